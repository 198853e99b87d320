"""What every room uses: console, files, formatting, seeding, serialization, system."""
