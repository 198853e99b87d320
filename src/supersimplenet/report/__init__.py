"""What an evaluation says, for people: a report that opens from disk, a comparison of two models, a gate."""
