"""Strategies: which parameters learn, and how. One file per strategy; `base.py` says what a strategy is."""
