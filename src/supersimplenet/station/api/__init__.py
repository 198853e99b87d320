"""The REST interface of a station."""
