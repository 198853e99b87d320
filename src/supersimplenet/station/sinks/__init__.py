"""Where results go: machines and systems that get each result at least once, in order."""
