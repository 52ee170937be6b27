"""Backbones: what turns an image (or its landmarks) into an embedding."""

from featlab.extraction.backbones.base import BACKBONES, Backbone, Preparation, make_backbone

__all__ = ["BACKBONES", "Backbone", "Preparation", "make_backbone"]
