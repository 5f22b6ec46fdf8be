"""Trained models in use: predictions for files, conversations, and a server for trying out and small loads."""
