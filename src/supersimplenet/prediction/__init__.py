"""Predict many images, on one machine or many: find the images, predict them, write the results into files."""
