"""The main path: one run, or several side by side, from options to results on disk."""
