"""Check a dataset for mistakes before training."""
