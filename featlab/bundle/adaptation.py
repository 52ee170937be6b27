"""What adapting to one person changed, on disk: one file, `subjects/<id>/adaptation.safetensors`."""

from __future__ import annotations

import copy
import hashlib
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from featlab.bundle.bundle import Bundle
from featlab.bundle.files import check_tensors, open_tensors, read_json, write_tensors
from featlab.errors import BundleError, InputError, one_line
from featlab.model.networks import AdaptedModel, Affine, PersonalModel, SourceHead, Translator, linear_head
from featlab.seeding import blank, stable_hash

_FILE, _OLD_META = "adaptation.safetensors", "adaptation.json"
ADAPTATION_FORMAT = 2
_RESERVED = {"con", "prn", "aux", "nul"} | {f"{port}{number}" for port in ("com", "lpt") for number in range(10)}


def adaptation_folder(bundle_folder: Path, subject: str) -> Path:
    """Return where a subject's adaptation lives; a name that is no safe folder name gets a hash in its place."""
    # Other letters can be too many bytes, or one name in two spellings; Windows keeps some names to itself.
    safe = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,79}", subject) and subject.lower() not in _RESERVED
    return Path(bundle_folder) / "subjects" / (subject if safe else f"subject-{stable_hash(subject)[:16]}")


def has_adaptation(folder: Path) -> bool:
    """Tell whether there is an adaptation in a person's folder, whatever it is worth."""
    return (folder / _FILE).exists()


def save_adaptation(folder: Path, bundle: Bundle, adapted: AdaptedModel, meta: Mapping[str, Any]) -> Path:
    """Write the tensors that differ from the bundle's, and how they came about; return the person's folder.

    Nothing of the bundle is repeated. ``meta`` is kept beside them: method, subject, options, seconds, as JSON has it.

    Raises:
        InputError: A model of other parts than a `Translator` or an `Affine`, and a `SourceHead` or a linear map.
    """
    kind = _kind(adapted.model, bundle)
    base = _base_tensors(bundle, kind)
    tensors = {
        name: tensor
        for name, tensor in adapted.model.state_dict().items()
        if not name.startswith("projection.") and (name not in base or not _same(tensor, base[name]))
    }
    content = {
        "format_version": ADAPTATION_FORMAT,
        "translator": kind,
        "bundle": _fingerprint(bundle),
        "iterations": adapted.iterations,
        "trainable": adapted.trainable,
        "warnings": list(adapted.warnings),
        "history": [dict(entry) for entry in adapted.history],
        **meta,
    }
    write_tensors(folder / _FILE, tensors, content)
    (folder / _OLD_META).unlink(missing_ok=True)
    return folder


def load_adaptation(folder: Path, bundle: Bundle) -> tuple[AdaptedModel, dict[str, Any]]:
    """Read an adaptation back onto its bundle: the model, and the metadata stored with it.

    Raises:
        BundleError: None there, damaged, a newer format, or made for another bundle.
    """
    path = folder / _FILE
    try:
        about, tensors = open_tensors(path)
        # Format 1 has it in a file beside.
        meta = read_json(folder / _OLD_META) if about is None else about
        version, kind = int(meta["format_version"]), str(meta["translator"])
        made_for, iterations, trainable = str(meta["bundle"]), int(meta["iterations"]), int(meta["trainable"])
        history, warnings = tuple(dict(entry) for entry in meta["history"]), tuple(meta["warnings"])
    except OSError as error:
        raise BundleError(f"{folder}: no adaptation there ({one_line(error)}); run featlab adapt first") from error
    except (ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{path}: damaged; run featlab adapt again") from error
    if version > ADAPTATION_FORMAT:
        raise BundleError(f"{path}: format {version} is newer than this featlab's; update featlab")
    if made_for != _fingerprint(bundle):
        raise BundleError(f"{folder}: was made for another bundle; run featlab adapt again")
    check_tensors(path, about or {}, tensors, digest=meta.pop("tensors", None))
    try:
        model = PersonalModel(bundle.projection, _translator(kind, bundle, tensors), _head(bundle, tensors))
        state = model.state_dict()
        # The projection is the bundle's own object: a tensor for it would change every other model of the bundle.
        unknown = sorted(name for name in tensors if name not in state or name.startswith("projection."))
        if unknown:
            raise KeyError(f"unknown tensor {unknown[0]}")
        model.load_state_dict(state | tensors)
    except (KeyError, RuntimeError, ValueError) as error:
        raise BundleError(f"{folder}: does not fit its bundle ({one_line(error)}); run featlab adapt again") from error
    model.requires_grad_(False)
    return AdaptedModel(model, iterations, trainable, history, warnings), meta


def _same(one: Tensor, other: Tensor) -> bool:
    # Most are the bundle's own, whose values needn't be compared.
    return (one.data_ptr() == other.data_ptr() and one.shape == other.shape) or torch.equal(one, other)


def _kind(model: PersonalModel, bundle: Bundle) -> str:
    kinds = {Translator: "translator", Affine: "affine", nn.Identity: "none"}
    for part, known in ((model.translator, tuple(kinds)), (model.head, (SourceHead, nn.Linear))):
        if type(part) not in known:
            names = ", ".join(kind.__name__ for kind in known)
            raise InputError(f"a model with a {type(part).__name__} can't be stored; a method makes one of: {names}")
    kind, part = kinds[type(model.translator)], model.translator
    if isinstance(part, Translator):
        (form, shape), own = ((each.residual, each.first.weight.shape) for each in (part, bundle.translator))
        if (form, shape) != own:
            return "adapter" if form else "literal"
    return kind


@lru_cache(maxsize=2)
def _fingerprint(bundle: Bundle) -> str:
    """Return a hash of the weights that an adaptation is a difference from; taken once for many people."""
    digest = hashlib.sha256()
    for name, tensor in _base_tensors(bundle, "translator").items():
        if name == "temperature":
            # A bundle has none of its own: it is a person's.
            continue
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


@lru_cache(maxsize=4)
def _base_tensors(bundle: Bundle, kind: str) -> dict[str, Tensor]:
    translator = bundle.translator if kind == "translator" else None
    return dict(PersonalModel(bundle.projection, translator, bundle.head).state_dict())


def _head(bundle: Bundle, tensors: Mapping[str, Tensor]) -> nn.Module:
    """Return B and C, or the linear map that a method put in their place."""
    if "head.weight" not in tensors:
        return copy.deepcopy(bundle.head)
    return linear_head(tensors["head.weight"], tensors["head.bias"])


def _translator(kind: str, bundle: Bundle, tensors: Mapping[str, Tensor]) -> nn.Module | None:
    if kind == "translator":
        return copy.deepcopy(bundle.translator)
    if kind == "affine":
        weight, bias = tensors["translator.weight"], tensors["translator.bias"]
        width = bundle.projection.components.shape[1]
        if weight.shape != (width, width) or bias.shape != (width,):
            raise ValueError(f"translator.weight has shape {tuple(weight.shape)}")
        return Affine(weight, bias)
    if kind in ("adapter", "literal"):
        width, dim = tensors["translator.first.weight"].shape
        return blank(lambda: Translator(dim, width, residual=kind == "adapter"))
    if kind == "none":
        return None
    raise KeyError(f"unknown translator kind {kind!r}")
