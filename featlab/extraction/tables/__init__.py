"""Features that other programs made, read from their tables."""
