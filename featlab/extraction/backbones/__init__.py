"""Backbones: what turns an image (or its landmarks) into an embedding."""
