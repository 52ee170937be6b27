"""Adaptation methods, one file each, found by name. Names are loaded on first use: to list methods costs no torch."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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

_REGISTRY = {"get_method", "make_method", "method_names", "prepare_extras", "register"}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{'registry' if name in _REGISTRY else 'base'}"), name)
