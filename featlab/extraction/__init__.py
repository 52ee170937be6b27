"""From pixels to embeddings: the only stage that sees images."""
