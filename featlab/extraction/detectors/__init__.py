"""Face landmarks found in images."""
