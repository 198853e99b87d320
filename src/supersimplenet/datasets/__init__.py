"""From folders and tables on disk to samples, and from files to pixels. Needs no torch."""
