"""Held-out scoring: predictions, metrics, and the prediction store."""
