"""From batches of images to counts: which neurons are active, and who influences whom."""
