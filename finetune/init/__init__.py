"""From a data file to a recipe: what is in it, what it may be for, and how to begin, each with a reason."""
