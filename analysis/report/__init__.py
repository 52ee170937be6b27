"""One HTML file with every result."""
