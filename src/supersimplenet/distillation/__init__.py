"""Distillation: train a small backbone to give the features of a large one, on pictures without labels."""
