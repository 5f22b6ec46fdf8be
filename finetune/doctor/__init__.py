"""Looks at the machine: what is there, what is wrong, and what to type about it."""
