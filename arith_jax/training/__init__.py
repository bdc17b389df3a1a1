"""Training: loss, optimizer, the step, the loop, checkpoints and the log."""
