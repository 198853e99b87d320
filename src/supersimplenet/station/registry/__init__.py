"""Models of a station: where each comes from, how it was compared, and which one is in use."""
