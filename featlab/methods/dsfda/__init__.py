"""DSFDA: disentangled identity and expression, then a target stage."""
