"""Advice before spending: rules of thumb with their sources, held against a recipe and its data. It changes nothing."""
