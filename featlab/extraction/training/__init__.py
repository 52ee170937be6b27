"""A backbone of one's own: fitted on the images of source subjects, written as a file for extraction."""
