"""Export a model as one verified file for the production line's computer."""
