"""Mitigations: known cures for unstable fine-tuning. One file per mitigation."""
