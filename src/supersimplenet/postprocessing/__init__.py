"""From map and score to a verdict and a list of defects. numpy and Pillow alone."""
