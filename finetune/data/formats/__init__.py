"""Formats of data, one file for each or for those that are read alike: a new one is found because it is there."""
