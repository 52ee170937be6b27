"""State dicts of the SHOT family (netB, netC, a translator) to B, C and T, and who made their features."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from featlab.cache.schema import ExtractorInfo, parse_json
from featlab.errors import InputError, listed
from featlab.extraction.backbones.weights import file_sha256, read_state_dict
from featlab.extraction.items import natural_key
from featlab.model.networks import SourceHead, Translator, head_from_state, translator_from_state


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """One state dict as it came from a file."""

    path: Path  # The file.
    sha256: str  # Of the file.
    tensors: Mapping[str, Tensor]  # Key to tensor on the CPU, float32 where it was any float; no ``module.`` in front.


@dataclass(frozen=True, eq=False)
class Parts:
    """What was read from the checkpoints."""

    head: SourceHead  # netB and netC.
    translator: Translator | None  # T, literal; ``None`` without one.
    files: Mapping[str, Mapping[str, str]]  # File name and sha256 of each checkpoint, by ``b``, ``c``, ``t`` and ``f``.

    @property
    def dim(self) -> int:
        """D, the values that netB takes."""
        return self.head.linear.in_features

    @property
    def classes(self) -> int:
        """K, the classes that netC knows."""
        return len(self.head.classifier.bias)


def read_parts(bottleneck: Path, classifier: Path, translator: Path | None = None) -> Parts:
    """Read netB, netC and a translator from ``.safetensors`` or `torch.save`; only tensors are unpickled."""
    read = {"b": read_checkpoint(bottleneck), "c": read_checkpoint(classifier)}
    head = head_of(read["b"], read["c"])
    made = None
    if translator is not None:
        read["t"] = read_checkpoint(translator)
        made = translator_of(read["t"], head.linear.in_features)
    return Parts(head, made, {name: {"file": item.path.name, "sha256": item.sha256} for name, item in read.items()})


def check_backbone_file(parts: Parts, backbone: Path, extractor: ExtractorInfo) -> Parts:
    """Return the parts with netF's file on record; refuse one that did not make the features, by its sha256."""
    digest = file_sha256(backbone)
    if digest != extractor.weights:
        raise InputError(
            f"{backbone} (sha256 {digest[:12]}) did not make the features: they are of {extractor.id!r} with weights "
            f"{extractor.weights[:12]}; extract again with --backbone resnet18 --weights {backbone}"
        )
    return replace(parts, files={**parts.files, "f": {"file": backbone.name, "sha256": digest}})


def read_extractor(path: Path) -> ExtractorInfo:
    """Read who made the features from JSON: the object itself, or one that holds it under ``extractor``.

    `featlab inspect --json` prints such an object, and a bundle's ``bundle.json`` is one.
    """
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
        content = content.get("extractor", content)
        return ExtractorInfo.from_dict({"layers": [], "versions": {}} | content)
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror})") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(
            f"{path}: doesn't say who made the features; it needs the texts id, weights and preprocessing, as "
            "`featlab inspect CACHE --json` prints them"
        ) from None


def read_checkpoint(path: Path) -> Checkpoint:
    """Read one state dict; see `read_parts`."""
    tensors = {}
    for name, value in read_state_dict(path).items():
        tensor = value.detach().to(torch.float32) if value.is_floating_point() else value.detach()
        if not bool(torch.isfinite(tensor).all()):
            raise InputError(f"{path}: {name} holds NaN or infinity; take an earlier checkpoint")
        tensors[name] = tensor
    if all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    return Checkpoint(path, file_sha256(path), tensors)


_BATCH_NORM = ("bn.weight", "bn.bias", "bn.running_mean", "bn.running_var")
_SEEN = "bn.num_batches_tracked"
_WEIGHT_NORMS = (
    ("fc.parametrizations.weight.original0", "fc.parametrizations.weight.original1"),
    ("fc.weight_g", "fc.weight_v"),
)


def head_of(bottleneck: Checkpoint, classifier: Checkpoint) -> SourceHead:
    """Return netB and netC as one head with their logits, in evaluation mode, frozen.

    Of type ``ori`` (no BatchNorm, or one that never saw a batch: SHOT leaves it in) the BatchNorm is the identity.
    """
    tensors = {**_bottleneck_tensors(bottleneck), **_classifier_tensors(classifier)}
    width, taken = len(tensors["linear.weight"]), tensors["classifier.parametrizations.weight.original1"].shape[1]
    if taken != width:
        raise InputError(
            f"{classifier.path} takes {taken} values, but {bottleneck.path} gives {width}; they don't belong together"
        )
    with _fitting(f"{bottleneck.path} and {classifier.path}"):
        return head_from_state(tensors)


def translator_of(checkpoint: Checkpoint, dim: int) -> Translator:
    """Return a two-layer MLP as a literal `Translator` of (n, dim) features, in evaluation mode, frozen."""
    path, tensors = checkpoint.path, checkpoint.tensors
    if _is_resnet(tensors):
        count = sum(tensor.numel() for tensor in tensors.values())
        raise InputError(
            f"{path}: this translator is a whole ResNet ({count / 1e6:.1f} M values) that reads images; a translator "
            "here maps a cached embedding to an embedding, so it can't be imported: leave --t out"
        )
    layers = [name.removesuffix(".weight") for name in tensors if name.endswith(".weight") and tensors[name].ndim == 2]
    known = {f"{layer}.{part}" for layer in layers for part in ("weight", "bias")}
    unexpected = [name for name in tensors if name not in known]
    if len(layers) != 2 or unexpected:
        others = f"; unexpected: {listed(unexpected, 4)}" if unexpected else ""
        raise InputError(
            f"{path}: expected a translator of two linear layers, found {len(layers)} "
            f"({listed(layers, 4) or 'none'}){others}"
        )
    first, last = _in_order(checkpoint, layers, dim)
    hidden = len(tensors[f"{first}.weight"])
    content = {"offset": torch.zeros(dim)}
    for name, layer, width in (("first", first, hidden), ("last", last, dim)):
        content[f"{name}.weight"] = tensors[f"{layer}.weight"]
        content[f"{name}.bias"] = tensors.get(f"{layer}.bias", torch.zeros(width))
    with _fitting(str(path)):
        return translator_from_state(content, residual=False)


@contextmanager
def _fitting(where: str) -> Iterator[None]:
    """What is left to go wrong is a tensor whose shape isn't that of the others."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise InputError(f"{where}: the tensors don't fit together ({reason})") from None


def _bottleneck_tensors(checkpoint: Checkpoint) -> dict[str, Tensor]:
    tensors = checkpoint.tensors
    norm = _BATCH_NORM if any(name.startswith("bn.") for name in tensors) else ()
    _check_keys(checkpoint, "netB", ("bottleneck.weight", "bottleneck.bias", *norm), (_SEEN,))
    weight = _matrix(checkpoint, "bottleneck.weight")
    content = {"linear.weight": weight, "linear.bias": tensors["bottleneck.bias"]}
    content["norm.num_batches_tracked"] = tensors.get(_SEEN, torch.tensor(0))
    values = [tensors[name] for name in norm]
    if not norm or int(tensors.get(_SEEN, 1)) <= 0:
        # sqrt(variance + ε) is 1: the BatchNorm of type "ori" does nothing.
        ones, zeros = torch.ones(len(weight)), torch.zeros(len(weight))
        values = [ones, zeros, zeros, ones - torch.nn.BatchNorm1d(1).eps]
    return content | {
        f"norm.{name.removeprefix('bn.')}": value for name, value in zip(_BATCH_NORM, values, strict=True)
    }


def _classifier_tensors(checkpoint: Checkpoint) -> dict[str, Tensor]:
    tensors = checkpoint.tensors
    normed = next((names for names in _WEIGHT_NORMS if any(name in tensors for name in names)), None)
    _check_keys(checkpoint, "netC", (*(normed or ("fc.weight",)), "fc.bias"))
    if normed is not None:
        size, direction = tensors[normed[0]], _matrix(checkpoint, normed[1])
    else:
        weight = _matrix(checkpoint, "fc.weight")
        size = weight.norm(dim=1, keepdim=True)
        # A row of zeros has no direction; any will do, at size 0.
        direction = torch.where(size > 0, weight, torch.ones_like(weight))
    return {
        "classifier.parametrizations.weight.original0": size.reshape(-1, 1),
        "classifier.parametrizations.weight.original1": direction,
        "classifier.bias": tensors["fc.bias"],
    }


def _check_keys(checkpoint: Checkpoint, part: str, required: Sequence[str], optional: Sequence[str] = ()) -> None:
    tensors = checkpoint.tensors
    missing = [name for name in required if name not in tensors]
    unexpected = [name for name in tensors if name not in (*required, *optional)]
    wrong = [
        f"{what} {listed(names, 4)}" for what, names in (("missing", missing), ("unexpected", unexpected)) if names
    ]
    if wrong:
        looks = _looks_like(tensors)
        hint = f"; it looks like {looks}" if looks and not looks.startswith(part) else ""
        raise InputError(f"{checkpoint.path}: isn't a {part} of the SHOT family: {', '.join(wrong)}{hint}")


def _looks_like(tensors: Mapping[str, Tensor]) -> str:
    if _is_resnet(tensors):
        return "netF, the backbone: give it as --f"
    if "bottleneck.weight" in tensors:
        return "netB: give it as --b"
    if any(name.startswith("fc.") for name in tensors):
        return "netC: give it as --c"
    return ""


def _is_resnet(tensors: Mapping[str, Tensor]) -> bool:
    return any(re.search(r"(^|\.)layer1\.0\.conv1\.weight$", name) for name in tensors)


def _matrix(checkpoint: Checkpoint, name: str) -> Tensor:
    tensor = checkpoint.tensors[name]
    if tensor.ndim != 2 or 0 in tensor.shape:
        raise InputError(f"{checkpoint.path}: {name} has shape {tuple(tensor.shape)}, expected a matrix")
    return tensor


def _in_order(checkpoint: Checkpoint, layers: list[str], dim: int) -> tuple[str, str]:
    """Return the names of the first and the last layer, as the file orders them, or by number where it keeps none."""
    path, tensors = checkpoint.path, checkpoint.tensors
    ordered = path.suffix.lower() != ".safetensors"  # Which sorts its tensors
    one, two = layers if ordered else sorted(layers, key=natural_key)
    shapes = {layer: tuple(tensors[f"{layer}.weight"].shape) for layer in (one, two)}
    fits = [
        (first, last)
        for first, last in ((one, two), (two, one))
        if shapes[first][1] == dim and shapes[last] == (dim, shapes[first][0])
    ]
    if not fits:
        widths = ", ".join(f"{layer} {shape[1]} to {shape[0]}" for layer, shape in shapes.items())
        raise InputError(f"{path}: a translator of {dim} values to {dim} is needed, and its layers are {widths}")
    if len(fits) == 2 and not ordered and not all(re.search(r"\d", layer) for layer in layers):
        raise InputError(
            f"{path}: which of {one} and {two} comes first can't be told from a safetensors file; number them, or save "
            "a .pt"
        )
    return fits[0]
