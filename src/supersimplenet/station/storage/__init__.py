"""Results, pictures and models of a station: the database and the disk."""
