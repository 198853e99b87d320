"""Pictures: overlays, contact sheets, plots."""
