"""The embedding cache: one HDF5 file, rows grouped by subject, then video, then frame."""
