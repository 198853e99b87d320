"""Datasets with versions: pictures by content, what is known about them, and one role for each part."""
