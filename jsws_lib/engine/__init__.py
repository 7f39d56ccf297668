"""What surrounds a training: devices, resume points, checkpoints, what identifies a run."""
