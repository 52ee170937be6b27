"""What data sets look like on disk: from a root folder to a list of images."""
