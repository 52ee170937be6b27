"""Adaptation methods, one file each, found by name. Names are loaded on first use: to list methods costs no torch."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from featlab.methods.base import Method as Method
    from featlab.methods.base import NoConfig as NoConfig
    from featlab.methods.base import base_model as base_model
    from featlab.methods.base import target_features as target_features
    from featlab.methods.registry import get_method as get_method
    from featlab.methods.registry import make_method as make_method
    from featlab.methods.registry import method_names as method_names
    from featlab.methods.registry import prepare_extras as prepare_extras
    from featlab.methods.registry import register as register
    from featlab.model.networks import AdaptedModel as AdaptedModel
    from featlab.model.networks import Affine as Affine
    from featlab.model.networks import linear_head as linear_head

_HOME = {
    **dict.fromkeys(("Method", "NoConfig", "base_model", "target_features"), "methods.base"),
    **dict.fromkeys(("AdaptedModel", "Affine", "linear_head"), "model.networks"),
    **dict.fromkeys(("get_method", "make_method", "method_names", "prepare_extras", "register"), "methods.registry"),
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"featlab.{_HOME[name]}"), name)
