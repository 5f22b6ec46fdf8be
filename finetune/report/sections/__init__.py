"""A section of the report each: its blocks, and what it says of the runs in results.json where it does."""
