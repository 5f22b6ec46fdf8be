"""Cheap baselines: answers that need no tuning, without which a verdict may be among the wrong contestants."""
