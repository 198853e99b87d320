"""What each command does: a few calls on the rooms below, and words for the person who waits."""
