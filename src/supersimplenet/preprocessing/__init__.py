"""From files and arrays to what the network sees. numpy and Pillow alone."""
