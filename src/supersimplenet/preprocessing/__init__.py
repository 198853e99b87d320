"""Preprocessing: from files and arrays to the network's input, with numpy, Pillow and simplejpeg alone."""
