"""A run group: R runs of one variant as one model. `stacked.py` has their weights side by side, `prefix.py` what
they have in common below; `group.py` puts the two together."""
