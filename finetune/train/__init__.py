"""Training: the loop, optimizers and schedules, batching, checkpoints, meters."""
