"""Recipes and data files that were broken at random, from a seed: `finetune check` refuses or accepts each of them."""
