"""Adaptation methods, one file each, found by name. Names are loaded on first use: to list methods costs no torch."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from featlab.methods.base import Method, NoConfig, base_model, target_features
    from featlab.methods.registry import get_method, make_method, method_names, prepare_extras, register
    from featlab.model.networks import AdaptedModel, Affine, linear_head

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

_BASE = {"Method", "NoConfig", "base_model", "target_features"}
_PERSONAL = {"AdaptedModel", "Affine", "linear_head"}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = "methods.base" if name in _BASE else "model.networks" if name in _PERSONAL else "methods.registry"
    return getattr(import_module(f"featlab.{home}"), name)
