"""Training: features that are computed once, the published recipe, and Lightning's training loop."""
