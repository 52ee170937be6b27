"""Adaptation methods, one file each, registered by name."""

from featlab.methods.base import AdaptedModel, Affine, Method, NoConfig, base_model, linear_head, target_features
from featlab.methods.registry import get_method, make_method, method_names, prepare_extras, register

__all__ = [
    "AdaptedModel",
    "Affine",
    "Method",
    "NoConfig",
    "base_model",
    "get_method",
    "linear_head",
    "make_method",
    "method_names",
    "prepare_extras",
    "register",
    "target_features",
]
