"""A backbone of one's own: a network trained on the source subjects' images."""
