"""Expression networks by name, with what their own library does to a picture; files are found or fetched."""

from __future__ import annotations

import os
import re
import sys
import tomllib
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Any

from torch import nn

from featlab.cache.atomic import atomic_path
from featlab.errors import ConfigError, InputError, closest, one_line
from featlab.extraction.backbones import (
    InputSpec,
    NetworkOptions,
    library,
    network_options,
    onnx_file,
    require_argument,
)
from featlab.extraction.backbones.network import NetworkBackbone, module_backbone
from featlab.extraction.backbones.weights import built, file_sha256, load_state_dict, read_state_dict

_PATIENCE = 60  # Seconds without a byte after which a server is given up.
_MADE = "make it with `python benchmarks/small_networks.py FOLDER`"


@dataclass(frozen=True)
class Named:
    """A network that is known by name."""

    size: int  # Side of its input in pixels.
    licence: str
    training: str  # The data sets that it was trained on, as its authors say.
    mean: Sequence[float] = (0.0, 0.0, 0.0)
    std: Sequence[float] = (1.0, 1.0, 1.0)
    url: str = ""  # Where its file is; empty: nowhere as it is needed.
    sha256: str = ""  # Of that file; empty where none was seen: then the cache's extractor keeps it.
    embedding: str = ""  # The output; empty: what the last Gemm reads.
    crop: float = 1.0  # As in `InputSpec`.


def _read_networks() -> dict[str, dict[str, Named]]:
    """Return the networks of each family by their names; one that stands alone has no name of its own."""
    read: dict[str, dict[str, Named]] = {}
    for prefix, told in tomllib.loads(Path(__file__).with_name("networks.toml").read_text("utf-8")).items():
        for name, own in told.pop("networks", {"": {}}).items():
            known = Named(**(told | own))
            read.setdefault(prefix, {})[name] = replace(known, url=known.url.replace("{name}", name))
    return read


NETWORKS = _read_networks()


def build_pyfeat(argument: str | None, options: Mapping[str, Any]) -> NetworkBackbone:
    """Build ``pyfeat:NAME``, its trunk: a ConvNeXt V2, the mean over positions of whose last map is the embedding."""
    name, known = _known("pyfeat", argument)
    chosen = network_options(name, NetworkOptions, options)
    transformers = library("transformers", "pyfeat:", "hf")
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
    own = InputSpec(known.size, tuple(known.mean), tuple(known.std), known.crop)
    made = module_backbone(
        *(name, module, chosen, own),
        id=name,
        weights=file_sha256(path),
        pick=lambda output: [output.pooler_output],
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


def models_folder() -> Path:
    """Return where networks are kept: ``FEATLAB_MODELS``, or a folder of the user's cache."""
    own = os.environ.get("FEATLAB_MODELS")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "featlab"


def _known(prefix: str, argument: str | None) -> tuple[str, Named]:
    """Return the whole name of a network of a family, and what is known of it."""
    table = NETWORKS[prefix]
    if "" in table:
        return prefix, table[""]
    known = ", ".join(table)
    network = require_argument(prefix, argument, f"a network's name: {known}")
    if network not in table:
        raise ConfigError(f"{prefix}: there is no network {network!r}{closest(network, table)} (there are: {known})")
    return f"{prefix}:{network}", table[network]


def _build(prefix: str, argument: str | None, options: Mapping[str, Any]) -> NetworkBackbone:
    """Build a network whose file is ONNX; the options are those of ``onnx:``."""
    name, known = _known(prefix, argument)
    rest = {key: value for key, value in options.items() if key != "weights"}
    path = _file(name, known, options.get("weights"))
    chosen = {"size": known.size, "mean": known.mean, "std": known.std, **rest}
    if "node" not in chosen:
        chosen["node"] = known.embedding or onnx_file.before_the_last_gemm(path)
    return _told(onnx_file.build(str(path), chosen), name, known)


build_emotiefflib, build_face_api, build_fer = (partial(_build, name) for name in ("emotiefflib", "face-api", "fer"))


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
