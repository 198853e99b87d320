"""Draw pictures: overlays, contact sheets, plots."""
