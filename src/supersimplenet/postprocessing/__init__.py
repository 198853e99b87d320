"""Postprocessing: from anomaly map and score to a verdict and a list of defects, with numpy and Pillow alone."""
