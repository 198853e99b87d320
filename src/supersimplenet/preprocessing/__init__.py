"""Preprocessing: from files and arrays to the network's input, with numpy and Pillow alone."""
