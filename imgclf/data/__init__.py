"""From files to batches: sources, decoding, verification, splits, audit, augmentation, pipeline. Nothing here imports jax."""
