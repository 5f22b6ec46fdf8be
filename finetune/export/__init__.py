"""A model taken away from its study: in the form that other programs load, with proof that it answers as scored."""
