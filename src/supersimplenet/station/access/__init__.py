"""Who may use a station: users, sessions, tokens, and the trail of changes."""
