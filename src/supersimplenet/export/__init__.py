"""One file for the line's computer, verified."""
