"""A backbone of one's own: fitted on the images of source subjects, written as a file for extraction.

Names are loaded on first use: importing this package costs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from featlab.extraction.training.checkpoint import read_card, read_meta
    from featlab.extraction.training.config import AugmentConfig, TrainConfig
    from featlab.extraction.training.export import BackboneMeta, export_backbone, export_onnx
    from featlab.extraction.training.networks import ResNet, resnet18, small_resnet
    from featlab.extraction.training.people import (
        Listed,
        People,
        choose_people,
        held_out_subjects,
        list_items,
        take_frames,
    )
    from featlab.extraction.training.train import TrainReport, train_backbone

__all__ = [
    "AugmentConfig",
    "BackboneMeta",
    "Listed",
    "People",
    "ResNet",
    "TrainConfig",
    "TrainReport",
    "choose_people",
    "export_backbone",
    "export_onnx",
    "held_out_subjects",
    "list_items",
    "read_card",
    "read_meta",
    "resnet18",
    "small_resnet",
    "take_frames",
    "train_backbone",
]

_HOME = {
    "AugmentConfig": "config",
    "TrainConfig": "config",
    "read_card": "checkpoint",
    "read_meta": "checkpoint",
    "BackboneMeta": "export",
    "export_backbone": "export",
    "export_onnx": "export",
    "People": "people",
    "choose_people": "people",
    "held_out_subjects": "people",
    "ResNet": "networks",
    "resnet18": "networks",
    "small_resnet": "networks",
    "Listed": "people",
    "list_items": "people",
    "take_frames": "people",
    "TrainReport": "train",
    "train_backbone": "train",
}


def __getattr__(name: str) -> object:
    if name in _HOME:
        return getattr(import_module(f"featlab.extraction.training.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
