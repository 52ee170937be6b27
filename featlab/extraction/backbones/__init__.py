"""Backbones: what turns an image (or its landmarks) into an embedding."""

from featlab.extraction.backbones.base import (
    Backbone,
    Preparation,
    backbone_names,
    make_backbone,
    register_backbone,
)

__all__ = ["Backbone", "Preparation", "backbone_names", "make_backbone", "register_backbone"]
