"""Expression networks by name, as ONNX files, with what their own library does to a picture: nothing is left to guess.

A file is that of ``--weights``, or lies in the folder of networks (`models_folder`), or is fetched into it.
"""

from __future__ import annotations

import os
import sys
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, replace
from http.client import HTTPException
from pathlib import Path
from typing import Any

from featlab.cache.atomic import atomic_path
from featlab.errors import ConfigError, InputError, closest, one_line
from featlab.extraction.backbones import IMAGENET_MEAN, IMAGENET_STD, onnx_file, require_argument
from featlab.extraction.backbones.network import NetworkBackbone
from featlab.extraction.backbones.weights import file_sha256

_PATIENCE = 60  # Seconds without a byte after which a server is given up.
_MADE = "make it with `python benchmarks/small_networks.py FOLDER`"
_EMOTIEFFLIB = "https://github.com/sb-ai-lab/EmotiEffLib/raw/main/models/affectnet_emotions/onnx/{}.onnx"


@dataclass(frozen=True)
class Named:
    """A network that is known by name."""

    size: int  # Side of its input in pixels.
    licence: str
    training: str  # The data sets that it was trained on, as its authors say.
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    url: str = ""  # Where its file is; empty: nowhere as it is needed.
    sha256: str = ""  # Of that file; empty where none was seen: then the cache's extractor keeps it.
    embedding: str = ""  # The output; empty: what the last Gemm reads.


_NETS = {
    **dict.fromkeys(
        ("enet_b0_8_best_vgaf", "enet_b0_8_best_afew", "enet_b0_8_va_mtl"), (224, IMAGENET_MEAN, IMAGENET_STD)
    ),
    **dict.fromkeys(("enet_b2_8", "enet_b2_7"), (260, IMAGENET_MEAN, IMAGENET_STD)),
    "mbf_va_mtl": (112, (0.5,) * 3, (0.5,) * 3),
}
EMOTIEFFLIB = {
    name: Named(size, "Apache-2.0", "VGGFace2, AffectNet", mean, std, _EMOTIEFFLIB.format(name))
    for name, (size, mean, std) in _NETS.items()
}
"""Networks of EmotiEffLib (Savchenko), by their names there."""
FACE_API = Named(
    *(112, "MIT", "not said by its authors"),
    sha256="62e572baed3a9a8873a55f8a6e2a259c0f54d0952f735c75e1cd1f2063fa0f0b",
    embedding="embedding",
)
FER = Named(
    *(64, "MIT", "FER2013"),
    sha256="9f2636edcdcf0e937ce78e1d30f3ae7394fc75bc6f9d900f5791ae014fa89650",
    embedding="embedding",
)


def build_emotiefflib(argument: str | None, options: Mapping[str, Any]) -> NetworkBackbone:
    """Build ``emotiefflib:NAME``; the options are those of ``onnx:``."""
    known = ", ".join(EMOTIEFFLIB)
    network = require_argument("emotiefflib", argument, f"a network's name: {known}")
    if network not in EMOTIEFFLIB:
        near = closest(network, EMOTIEFFLIB)
        raise ConfigError(f"emotiefflib: there is no network {network!r}{near} (there are: {known})")
    return _build(f"emotiefflib:{network}", EMOTIEFFLIB[network], options)


def build_face_api(argument: str | None, options: Mapping[str, Any]) -> NetworkBackbone:
    """Build ``face-api``, likewise."""
    return _build("face-api", FACE_API, options)


def build_fer(argument: str | None, options: Mapping[str, Any]) -> NetworkBackbone:
    """Build ``fer``, likewise."""
    return _build("fer", FER, options)


def models_folder() -> Path:
    """Return where networks are kept: ``FEATLAB_MODELS``, or a folder of the user's cache."""
    own = os.environ.get("FEATLAB_MODELS")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "featlab"


def _build(name: str, known: Named, options: Mapping[str, Any]) -> NetworkBackbone:
    rest = {key: value for key, value in options.items() if key != "weights"}
    path = _file(name, known, options.get("weights"))
    chosen = {"size": known.size, "mean": known.mean, "std": known.std, **rest}
    if known.embedding:
        chosen.setdefault("output", known.embedding)
    else:
        chosen.setdefault("node", onnx_file.before_the_last_gemm(path))
    made = onnx_file.build(str(path), chosen)
    about = {"licence": known.licence, "training sets": known.training}
    return replace(made, name=name, extractor=replace(made.extractor, id=name, about=about))


def _file(name: str, known: Named, weights: str | None) -> Path:
    """Return the network's file; one whose hash is known is refused when it is another."""
    path = Path(weights) if weights else models_folder() / f"{name.rpartition(':')[2]}.onnx"
    if not path.is_file():
        if weights or not known.url:
            where = "" if weights else f", or name another with --weights; {_MADE}"
            raise InputError(f"{name}: there is no file {path}{where}")
        _fetch(name, known.url, path)
    if known.sha256 and (found := file_sha256(path)) != known.sha256:
        raise InputError(f"{path}: not the file of {name} (SHA-256 {found[:12]}, not {known.sha256[:12]}); {_MADE}")
    return path


def _fetch(name: str, url: str, path: Path) -> None:
    print(f"featlab: fetching {name} from {url} into {path.parent}", file=sys.stderr)
    try:
        with urllib.request.urlopen(url, timeout=_PATIENCE) as answer, atomic_path(path) as partial:
            partial.write_bytes(answer.read())
    except (OSError, ValueError, HTTPException) as error:
        raise InputError(
            f"{name}: {url} can't be fetched ({one_line(error)}); fetch it elsewhere and put it at {path}, or name it "
            "with --weights"
        ) from None
