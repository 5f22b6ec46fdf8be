"""Faults at seeded moments of real studies, counted."""
