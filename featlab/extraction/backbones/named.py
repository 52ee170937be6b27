"""Expression networks by name, with what their own library does to a picture: nothing is left to guess.

They are ONNX files, but for pyfeat's, which is safetensors. A file is that of ``--weights``, or lies in the folder of
networks (`models_folder`), or is fetched into it.
"""

from __future__ import annotations

import os
import re
import sys
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Any

from torch import nn

from featlab.cache.atomic import atomic_path
from featlab.errors import ConfigError, InputError, closest, one_line
from featlab.extraction.backbones import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    InputSpec,
    NetworkOptions,
    network_options,
    onnx_file,
    require_argument,
)
from featlab.extraction.backbones.network import NetworkBackbone, module_backbone
from featlab.extraction.backbones.weights import built, file_sha256, load_state_dict, read_state_dict

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
    crop: float = 1.0  # As in `InputSpec`.


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
_PYFEAT = "https://huggingface.co/py-feat/face_multitask_v2/resolve/{}.safetensors"
# Its card: a square around the detector's box, 1.2 times its longer side, at 256 px, of which the middle 224 are seen.
_pyfeat = partial(Named, 224, mean=IMAGENET_MEAN, std=IMAGENET_STD, crop=224 / 256)
_RESEARCH = "research and other non-commercial use only"
PYFEAT = {
    "v2": _pyfeat(
        _RESEARCH,
        "AffectNet, RAF-DB, FER+, ExpW, MELD, Aff-Wild2, AFEW-VA, BP4D, BP4D+, DISFA, EmotioNet, CK+, UNBC-McMaster, "
        "AM-FED, CelebV-HQ, ETH-XGaze, Gaze360, MPIIGaze, Columbia Gaze",
        url=_PYFEAT.format("main/face_multitask_v28"),
    ),
    "v2.7": _pyfeat(
        _RESEARCH,
        "AffectNet, DISFA+, RAF-DB, Aff-Wild2, BP4D and others that its card doesn't name",
        url=_PYFEAT.format("7c18f8da048b90f7bf135d6129bcf349960ec32f/face_multitask_v27"),
        sha256="e3c870e22ba041d2aeb11ae7eaaf832fbb869413bca21d7486a805b8a4ddc8bd",
    ),
}
"""The network of py-feat's Detectorv2: the file that it takes by default, and the one before, whose hash is known."""


def build_emotiefflib(argument: str | None, options: Mapping[str, Any]) -> NetworkBackbone:
    """Build ``emotiefflib:NAME``; the options are those of ``onnx:``."""
    return _build(*_known("emotiefflib", argument, EMOTIEFFLIB), options)


def build_pyfeat(argument: str | None, options: Mapping[str, Any]) -> NetworkBackbone:
    """Build ``pyfeat:NAME``, its trunk: a ConvNeXt V2, the mean over positions of whose last map is the embedding.

    The options are the fields of `NetworkOptions`.
    """
    name, known = _known("pyfeat", argument, PYFEAT)
    chosen = network_options(name, NetworkOptions, options)
    try:
        import transformers
    except ImportError:
        raise ConfigError(f"{name} needs transformers: pip install 'featlab[hf]'") from None
    path = _file(name, known, chosen.weights)
    start = "backbone."
    trunk = {key.removeprefix(start): each for key, each in read_state_dict(path).items() if key.startswith(start)}
    block = re.compile(r"stages_(\d)\.blocks\.\d+\.conv_dw\.bias")
    stages = [[key for key in trunk if (found := block.fullmatch(key)) and found[1] == at] for at in "0123"]
    if not all(stages):
        raise InputError(f"{path}: not the file of {name} (it holds no ConvNeXt V2 under {start!r})")
    config = transformers.ConvNextV2Config(
        hidden_sizes=[len(trunk[keys[0]]) for keys in stages], depths=[len(keys) for keys in stages]
    )
    module: nn.Module = built(lambda: transformers.ConvNextV2Model(config))
    # The file has no norm after the mean: py-feat's heads have their own.
    module.layernorm = nn.Identity()
    renamed = {}
    for key, tensor in trunk.items():
        for pattern, theirs in _NAMES:
            key = re.sub(pattern, theirs, key)
        renamed[key] = tensor[None, None, None] if ".grn." in key else tensor
    load_state_dict(name, module, renamed, path)
    own = InputSpec(known.size, known.mean, known.std, known.crop)
    made = module_backbone(
        *(name, module, chosen, own),
        id=name,
        weights=file_sha256(path),
        pick=lambda output: output.pooler_output,
        versions={"transformers": transformers.__version__},
    )
    return _told(made, name, known)


# Of the trunk's tensors, timm's names to those of transformers.
_NAMES = (
    (r"^stem_0\.", "embeddings.patch_embeddings."),
    (r"^stem_1\.", "embeddings.layernorm."),
    (r"^stages_(\d)\.", r"encoder.stages.\1."),
    (r"\.downsample\.", ".downsampling_layer."),
    (r"\.blocks\.", ".layers."),
    (r"\.conv_dw\.", ".dwconv."),
    (r"\.norm\.", ".layernorm."),
    (r"\.mlp\.fc", ".pwconv"),
    (r"\.mlp\.grn\.", ".grn."),
)


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


def _known(prefix: str, argument: str | None, table: Mapping[str, Named]) -> tuple[str, Named]:
    """Return the whole name of a network of a table, and what is known of it."""
    known = ", ".join(table)
    network = require_argument(prefix, argument, f"a network's name: {known}")
    if network not in table:
        raise ConfigError(f"{prefix}: there is no network {network!r}{closest(network, table)} (there are: {known})")
    return f"{prefix}:{network}", table[network]


def _build(name: str, known: Named, options: Mapping[str, Any]) -> NetworkBackbone:
    rest = {key: value for key, value in options.items() if key != "weights"}
    path = _file(name, known, options.get("weights"))
    chosen = {"size": known.size, "mean": known.mean, "std": known.std, **rest}
    if known.embedding:
        chosen.setdefault("output", known.embedding)
    else:
        chosen.setdefault("node", onnx_file.before_the_last_gemm(path))
    return _told(onnx_file.build(str(path), chosen), name, known)


def _told(made: NetworkBackbone, name: str, known: Named) -> NetworkBackbone:
    """Return a backbone under a network's name, with what is known of it in its extractor."""
    about = {"licence": known.licence, "training sets": known.training}
    return replace(made, name=name, extractor=replace(made.extractor, id=name, about=about))


def _file(name: str, known: Named, weights: str | None) -> Path:
    """Return the network's file; one whose hash is known is refused when it is another."""
    file = known.url.rpartition("/")[2] or f"{name}.onnx"
    path = Path(weights) if weights else models_folder() / file
    if not path.is_file():
        if weights or not known.url:
            where = "" if weights else f", or name another with --weights; {_MADE}"
            raise InputError(f"{name}: there is no file {path}{where}")
        _fetch(name, known.url, path)
    if known.sha256 and (found := file_sha256(path)) != known.sha256:
        right = f"fetch {known.url}" if known.url else _MADE
        raise InputError(f"{path}: not the file of {name} (SHA-256 {found[:12]}, not {known.sha256[:12]}); {right}")
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
