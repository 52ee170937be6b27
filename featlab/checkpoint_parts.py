"""What an import starts from: netB, netC and a translator read from their files, and who made the features."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from featlab.cache import ExtractorInfo
from featlab.checkpoint_files import Checkpoint, read_checkpoint
from featlab.checkpoints import head_of, translator_of
from featlab.errors import InputError
from featlab.extraction.backbones.weights import file_sha256
from featlab.models import SourceHead, Translator

__all__ = ["Parts", "check_backbone_file", "read_extractor", "read_parts"]


@dataclass(frozen=True, eq=False)
class Parts:
    """What was read from the checkpoints.

    Attributes:
        head: netB and netC.
        translator: T, literal; ``None`` without one.
        files: File name and sha256 of each checkpoint, by ``b``, ``c``, ``t`` and ``f``.
    """

    head: SourceHead
    translator: Translator | None
    files: Mapping[str, Mapping[str, str]]

    @property
    def dim(self) -> int:
        """D, the values that netB takes."""
        return self.head.linear.in_features

    @property
    def classes(self) -> int:
        """K, the classes that netC knows."""
        return len(self.head.classifier.bias)


def read_parts(bottleneck: Path, classifier: Path, translator: Path | None = None) -> Parts:
    """Read netB, netC and a translator.

    Raises:
        InputError: As `featlab.checkpoints.read_checkpoint`, `head_of` and `translator_of`.
    """
    read: dict[str, Checkpoint] = {"b": read_checkpoint(bottleneck), "c": read_checkpoint(classifier)}
    head = head_of(read["b"], read["c"])
    made = None
    if translator is not None:
        read["t"] = read_checkpoint(translator)
        made = translator_of(read["t"], head.linear.in_features)
    return Parts(head, made, {name: _named(item.path, item.sha256) for name, item in read.items()})


def check_backbone_file(parts: Parts, backbone: Path, extractor: ExtractorInfo) -> Parts:
    """Return the parts with netF's file on record, when its sha256 is that of the weights that made the features.

    Raises:
        InputError: The features were made by another network.
    """
    digest = file_sha256(backbone)
    if digest != extractor.weights:
        raise InputError(
            f"{backbone} (sha256 {digest[:12]}) did not make the features: they are of {extractor.id!r} with weights "
            f"{extractor.weights[:12]}; extract again with --backbone resnet18 --weights {backbone}"
        )
    return replace(parts, files={**parts.files, "f": _named(backbone, digest)})


def read_extractor(path: Path) -> ExtractorInfo:
    """Read who made the features, from JSON: the object itself, or one that holds it under ``extractor``.

    `featlab inspect --json` prints such an object, and a bundle's ``bundle.json`` is one.

    Raises:
        InputError: The file can't be read, or doesn't say.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        content = content.get("extractor", content)
        return ExtractorInfo.from_dict({"layers": [], "versions": {}} | content)
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror})") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(
            f"{path}: doesn't say who made the features; it needs the texts id, weights and preprocessing, as "
            "`featlab inspect CACHE --json` prints them"
        ) from None


def _named(path: Path, digest: str) -> dict[str, str]:
    return {"file": path.name, "sha256": digest}
