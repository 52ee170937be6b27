"""Change one setting, see what it does to the score."""
