"""Training: state, optimizer, step, loop, checkpoints, and the placement of all of them on devices."""
