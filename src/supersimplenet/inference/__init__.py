"""A trained network as a model folder on disk, its engines, and the import of other implementations' weights."""
