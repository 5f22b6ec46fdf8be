"""Lays a study out over devices, and starts the processes that do its runs."""
