"""Read samples from folders and tables on disk, and pixel masks from files. Needs no torch."""
