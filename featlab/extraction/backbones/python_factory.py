"""Networks from a function of the user's: ``python:MODULE:FACTORY``."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import fields
from importlib import import_module
from typing import Any

from torch import nn

from featlab.errors import ConfigError, FeatlabError, closest, one_line
from featlab.extraction.backbones import Backbone, InputSpec, NetworkOptions, network_options, require_argument
from featlab.extraction.backbones.network import module_backbone
from featlab.extraction.backbones.weights import RANDOM, module_with_weights, seeded, state_sha256

_USAGE = "a module and a function in it, for example python:my_networks:face_net"


def build(argument: str | None, options: Mapping[str, Any]) -> Backbone:
    """Build ``python:MODULE:FACTORY``."""
    module_name, colon, attribute = require_argument("python", argument, _USAGE).rpartition(":")
    if not colon or not module_name or not attribute:
        raise ConfigError(f"python:{argument}: what follows the colon is {_USAGE}")
    name = f"python:{module_name}:{attribute}"
    known = {entry.name for entry in fields(NetworkOptions)}
    own = {key: value for key, value in options.items() if key not in known}
    ours = {key: value for key, value in options.items() if key in known}
    factory = _find(name, module_name, attribute)

    made = _call(name, factory, own, seed=0)
    if isinstance(made, nn.Module):
        return _of_module(name, factory, made, own, network_options(name, NetworkOptions, ours))
    if isinstance(made, Backbone):
        if ours:
            raise ConfigError(f"{name} returns a backbone, which has no option {next(iter(ours))!r}")
        return made
    raise ConfigError(f"{name} returned a {type(made).__name__}; it must return a torch.nn.Module or a Backbone")


def _of_module(name: str, factory: Any, module: nn.Module, own: Mapping[str, Any], options: NetworkOptions) -> Backbone:
    if options.weights is None:
        sha = state_sha256(module)
        if sha != state_sha256(_call(name, factory, own, seed=1)):
            raise ConfigError(
                f"{name} gives other weights at every call: load them in the function, name a file with --weights, "
                f"or ask for random ones with --weights {RANDOM}"
            )
    else:
        module, sha = module_with_weights(name, lambda: module, options.weights, options.prefix)
    notes = tuple(f"{key} {_named(value)}" for key, value in sorted(own.items()))
    return module_backbone(name, module, options, InputSpec(), id=name, weights=sha, notes=notes)


def _named(value: Any) -> Any:
    """Return a file's name without its folders, which go into no cache and no bundle; any other value as it is."""
    return os.path.basename(value) if isinstance(value, str) and os.path.exists(value) else value


def _find(name: str, module_name: str, attribute: str) -> Any:
    here = os.getcwd()
    if here not in sys.path:
        # As `python -m` does. It stays: a module may import others when it is called.
        sys.path.insert(0, here)
    try:
        module = import_module(module_name)
    except Exception as error:
        missing = isinstance(error, ModuleNotFoundError) and module_name.startswith(error.name or "?")
        why = f"no module {module_name!r}, neither installed nor in {here}" if missing else _said(error)
        raise ConfigError(f"{name} can't be imported: {why}") from (None if missing else error)
    if not hasattr(module, attribute):
        known = [entry for entry in dir(module) if not entry.startswith("_")]
        raise ConfigError(f"{name}: the module {module_name} has no {attribute!r}{closest(attribute, known)}")
    return getattr(module, attribute)


def _call(name: str, factory: Any, arguments: Mapping[str, Any], *, seed: int) -> Any:
    """Call the factory with torch's generator at ``seed``; a network or a backbone stands for itself."""
    if isinstance(factory, nn.Module) or (isinstance(factory, Backbone) and not isinstance(factory, type)):
        if arguments:
            raise ConfigError(f"{name} is no function, so it has no option {next(iter(arguments))!r}")
        return factory
    if not callable(factory):
        raise ConfigError(f"{name} is a {type(factory).__name__}; it must be a function that returns a torch.nn.Module")
    try:
        return seeded(lambda: factory(**arguments), seed)
    except FeatlabError:
        raise
    except Exception as error:
        raise ConfigError(f"{name} failed: {_said(error)}") from error


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {one_line(error)}"
