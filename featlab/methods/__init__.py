"""Adaptation methods, one file each, registered by name."""

from featlab.methods.base import AdaptedModel, Affine, Method, NoConfig, base_model, target_features
from featlab.methods.registry import get_method, make_method, method_names, register

__all__ = [
    "AdaptedModel",
    "Affine",
    "Method",
    "NoConfig",
    "base_model",
    "get_method",
    "make_method",
    "method_names",
    "register",
    "target_features",
]
