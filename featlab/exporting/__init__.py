"""Models out, in formats that other programs read."""
