"""featlab: personalise facial-expression recognition to one new person, on cached features.

Names are loaded on first use: importing this package costs neither torch nor NumPy.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from featlab.bundle.bundle import Bundle, load_bundle, save_bundle
    from featlab.cache import FeatureTable, open_cache
    from featlab.config.load import Config, load_config
    from featlab.errors import FeatlabError
    from featlab.evaluation.run import evaluate_subject
    from featlab.evaluation.summary import summarise
    from featlab.exchange.estimators import PersonalizedClassifier, StyleTranslator
    from featlab.methods import make_method, method_names
    from featlab.protocol.splits import Target, choose_targets, split_target, target_of
    from featlab.workspace.build import build_bundle

__version__ = "0.2.0"

__all__ = [
    "Bundle",
    "Config",
    "FeatlabError",
    "FeatureTable",
    "PersonalizedClassifier",
    "StyleTranslator",
    "Target",
    "build_bundle",
    "choose_targets",
    "evaluate_subject",
    "load_bundle",
    "load_config",
    "make_method",
    "method_names",
    "open_cache",
    "save_bundle",
    "split_target",
    "summarise",
    "target_of",
]

_HOME = {
    "Bundle": "bundle.bundle",
    "load_bundle": "bundle.bundle",
    "save_bundle": "bundle.bundle",
    "FeatureTable": "cache",
    "open_cache": "cache",
    "Config": "config.load",
    "load_config": "config.load",
    "FeatlabError": "errors",
    "evaluate_subject": "evaluation.run",
    "PersonalizedClassifier": "exchange.estimators",
    "StyleTranslator": "exchange.estimators",
    "make_method": "methods",
    "method_names": "methods",
    "Target": "protocol.splits",
    "choose_targets": "protocol.splits",
    "split_target": "protocol.splits",
    "target_of": "protocol.splits",
    "build_bundle": "workspace.build",
    "summarise": "evaluation.summary",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
