"""Planning: how many seeds and examples a study needs, and what they cost."""
