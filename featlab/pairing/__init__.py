"""Which row of another subject is a row's reference: by landmarks, by cosine, at random."""
