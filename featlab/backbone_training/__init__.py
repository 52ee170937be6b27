"""A backbone of one's own: fitted on the images of source subjects, written as a file for extraction.

Names are loaded on first use: importing this package costs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from featlab.backbone_training.config import AugmentConfig, TrainConfig
    from featlab.backbone_training.existing import read_card, read_meta
    from featlab.backbone_training.export import BackboneMeta, export_backbone, export_onnx
    from featlab.backbone_training.people import People, choose_people, held_out_subjects
    from featlab.backbone_training.resnet import ResNet, resnet18, small_resnet
    from featlab.backbone_training.source import Listed, list_items, take_frames
    from featlab.backbone_training.train import TrainReport, train_backbone

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
    "read_card": "existing",
    "read_meta": "existing",
    "BackboneMeta": "export",
    "export_backbone": "export",
    "export_onnx": "export",
    "People": "people",
    "choose_people": "people",
    "held_out_subjects": "people",
    "ResNet": "resnet",
    "resnet18": "resnet",
    "small_resnet": "resnet",
    "Listed": "source",
    "list_items": "source",
    "take_frames": "source",
    "TrainReport": "train",
    "train_backbone": "train",
}


def __getattr__(name: str) -> object:
    if name in _HOME:
        return getattr(import_module(f"featlab.backbone_training.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
