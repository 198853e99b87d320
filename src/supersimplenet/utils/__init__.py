"""Helpers that all subpackages use: console, files, formatting, seeding, serialization, system."""
