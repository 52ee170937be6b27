"""What leaves the source site, and what a person's adaptation is, on disk."""
