"""Fine-tune pretrained models from a recipe, under several seeds, and report every number with its uncertainty."""

__version__ = "0.1.0"
