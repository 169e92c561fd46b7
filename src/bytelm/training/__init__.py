"""One training loop for every model: optimizers, schedules, checkpoints, exact resume."""
