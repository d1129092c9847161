"""Image sources to batches: reading, decoding, classes, loading beside the model."""
