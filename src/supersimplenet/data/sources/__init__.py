"""Data sets as lists of samples: folders and tables of one's own, and the published layouts."""
