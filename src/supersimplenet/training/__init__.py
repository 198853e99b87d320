"""Training: features computed once, the published recipe, Lightning's loop around it."""
