"""Many images: where they come from, here or on many machines, and the files of what was found."""
