"""A trained network as a folder on disk, and other implementations' weights turned into one."""
