"""Training: state, step, evaluation, checkpoints, logs."""
