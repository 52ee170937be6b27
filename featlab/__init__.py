"""featlab: personalise facial-expression recognition to one new person, on cached features.

Names are loaded on first use: importing this package costs neither torch nor NumPy.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from featlab.bundle.bundle import Bundle as Bundle
    from featlab.bundle.bundle import load_bundle as load_bundle
    from featlab.bundle.bundle import save_bundle as save_bundle
    from featlab.cache.assemble import write_table as write_table
    from featlab.cache.reader import open_cache as open_cache
    from featlab.cache.schema import ExtractorInfo as ExtractorInfo
    from featlab.cache.table import FeatureTable as FeatureTable
    from featlab.cache.verify import verify_cache as verify_cache
    from featlab.config.load import Config as Config
    from featlab.config.load import load_config as load_config
    from featlab.errors import FeatlabError as FeatlabError
    from featlab.evaluation.run import evaluate_subject as evaluate_subject
    from featlab.evaluation.summary import summarise as summarise
    from featlab.exchange.estimators import PersonalizedClassifier as PersonalizedClassifier
    from featlab.exchange.estimators import StyleTranslator as StyleTranslator
    from featlab.methods import make_method as make_method
    from featlab.methods import method_names as method_names
    from featlab.protocol.splits import Target as Target
    from featlab.protocol.splits import choose_targets as choose_targets
    from featlab.protocol.splits import split_target as split_target
    from featlab.protocol.splits import target_of as target_of
    from featlab.workspace.stages import build_bundle as build_bundle

__version__ = "0.2.0"

_HOME = {
    "Bundle": "bundle.bundle",
    "load_bundle": "bundle.bundle",
    "save_bundle": "bundle.bundle",
    "ExtractorInfo": "cache.schema",
    "FeatureTable": "cache.table",
    "open_cache": "cache.reader",
    "verify_cache": "cache.verify",
    "write_table": "cache.assemble",
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
    "build_bundle": "workspace.stages",
    "summarise": "evaluation.summary",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
