"""The forms that a model can be taken away in: one file each, found because it is there."""
