"""Small valid files, changed at random: bytes, words, structure. A reader refuses them in one line, or reads them.

What a reader takes has to be in order: a cache that `featlab verify` accepts, the rows that were written, a bundle
whose parts fit. Cases are numbered: the same seed and number make the same file. The mutations are plain; for a guided
search by hand, `atheris.instrument_all()` before the imports and ``atheris.Setup([], lambda data: read(path of data))``
with one of the readers below will do.
"""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hostile.caches import people, same_rows, write_cache
from hostile.changes import (
    Random,
    arrays_changed,
    bytes_changed,
    cache_changed,
    edited,
    members_changed,
    tree_changed,
    words_changed,
)
from hostile.checkpoints import of_torch
from hostile.parts import saved
from hostile.tables import written
from trust import Row
from trust_forked import counted, in_children

from featlab import ExtractorInfo, verify_cache
from featlab.bundle.bundle import Bundle, load_bundle, save_bundle
from featlab.bundle.files import load_adaptation, read_tensors, save_adaptation, write_json, write_tensors
from featlab.cache.schema import parse_json
from featlab.config.load import Config, load_config, parse_settings
from featlab.errors import FeatlabError
from featlab.exchange.checkpoints import read_checkpoint, read_extractor
from featlab.extraction.faces.landmark_files import read_landmark_table
from featlab.extraction.layouts import read_layout
from featlab.extraction.shards import read_failures
from featlab.extraction.tables import ImportConfig, import_features
from featlab.methods.base import base_model
from featlab.methods.registry import make_method
from featlab.model.networks import AdaptedModel
from featlab.protocol.splits import Target
from featlab.workspace.stages import build_bundle
from featlab.workspace.workspace import tuned_on

_ADAPTATION = "adaptation.safetensors"
_OVERWRITE = ImportConfig(if_exists="overwrite")


@dataclass(frozen=True)
class Kind:
    """A reader, files that it takes, and how they are changed."""

    name: str  # Of the file, whose ending may say how it is read.
    cases: int
    seeds: Sequence[Any]
    change: Callable[[Any, Random], Any]
    read: Callable[[Path], bool]  # Whether what was read is in order; a FeatlabError where it refuses.
    write: Callable[[Path, Any], object] = Path.write_bytes


def attacks(folder: Path, scale: float, seed: int) -> Iterator[Row]:
    """Yield a row a kind of file."""
    for what, kind in kinds(folder).items():
        numbers = range(max(1, round(kind.cases * scale)))
        works = [partial(tried, folder / what, kind, seed, number) for number in numbers]
        (folder / what).mkdir()
        yield counted(f"fuzz {what}", [f"{seed}/{number}" for number in numbers], in_children(works))


def tried(folder: Path, kind: Kind, seed: int, number: int) -> str:
    """Write one file, read it, and say how that ended."""
    rng = np.random.default_rng([seed, number])
    path = folder / kind.name
    content = kind.change(kind.seeds[int(rng.integers(len(kind.seeds)))], rng)
    kind.write(path, content)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return "harmless" if kind.read(path) else "silent: read, and not in order"
    except FeatlabError as error:
        return (
            "detected" if str(error) and "\n" not in str(error) else f"traceback: {len(str(error).splitlines())} lines"
        )


def kinds(folder: Path) -> dict[str, Kind]:
    """Return every reader with its files."""
    rows = b"".join(
        b"s%d,%s,v%d,%d,%d.5,%d\n" % (n % 2, (b"neutral", b"joy")[n // 2 % 2], n // 2, n, n, -n) for n in range(8)
    )
    table = b"subject,label,video,frame,a,b\n" + rows
    listed = b"subject,frame,e\n" + b"".join(b's,%d,"[%d, 2, 3]"\n' % (n, n) for n in range(6))
    manifest = b"path,subject,label,video,frame\n" + b"".join(
        b"p/%d.png,%s\n" % (n, row.rsplit(b",", 2)[0]) for n, row in enumerate(rows.splitlines())
    )
    rng = np.random.default_rng(0)
    arrays = {
        "X": rng.normal(size=(8, 3)).astype(np.float32),
        "subject": np.array(list("aabbaabb")),
        "label": np.array(["neutral", "joy"] * 4),
        "frame": np.arange(8),
        "landmarks": rng.uniform(size=(8, 5, 2)) * 99,
    }
    packed = {f"{name}.npy": saved(array) for name, array in arrays.items()}
    one = {name: array for name, array in arrays.items() if array.ndim == 1}
    good = write_cache(folder / "good.h5")
    bundle = _bundle(folder / "good")
    meta, tensors = (bundle / "bundle.json").read_bytes(), (bundle / "model.safetensors").read_bytes()
    loaded = load_bundle(bundle)
    as_it_was = partial(_as_it_was, _facts(loaded))
    adapted = save_adaptation(folder / "subjects" / "s1", loaded, _adapt(loaded), {"subject": "s1"})
    told, kept = read_tensors(adapted / _ADAPTATION)
    about = json.dumps(told).encode()
    out = folder / "out.h5"
    landmarks = (
        b"frame,success,"
        + b",".join(b"x_%d,y_%d" % (n, n) for n in range(5))
        + b"\n"
        + b"".join(b"%d,1%s\n" % (n, b",%d,1.5" % n * 5) for n in range(4))
    )
    return {
        "manifest": Kind("m.csv", 15_000, [manifest], words_changed, _layout),
        "table csv": Kind("t.csv", 15_000, [table, listed], words_changed, partial(_imported, out)),
        "table tsv": Kind("t.tsv", 2_000, [table.replace(b",", b"\t")], words_changed, partial(_imported, out)),
        "table npz, bytes": Kind("t.npz", 8_000, [packed], members_changed, partial(_imported, out)),
        "table npz, arrays": Kind("t.npz", 6_000, [arrays], arrays_changed, partial(_imported, out)),
        "table parquet": Kind(
            "t.parquet", 6_000, [written(**{**one, "f": arrays["X"][:, 0]})], bytes_changed, partial(_imported, out)
        ),
        "landmarks csv": Kind("l.csv", 6_000, [landmarks], words_changed, _landmarks),
        "landmarks pts": Kind(
            "l.pts", 3_000, [b"version: 1\nn_points: 2\n{\n1.5 2\n3 4\n}\n"], words_changed, _landmarks
        ),
        "landmarks npy": Kind("l.npy", 4_000, [saved(arrays["landmarks"])], bytes_changed, _landmarks),
        "settings toml": Kind(
            "featlab.toml", 15_000, [_TOML], words_changed, lambda path: bool(load_config(path).to_dict())
        ),
        "settings --set": Kind(
            "set.txt",
            8_000,
            [b"head.lr=0.01\nadapt.pft.form=linear", b"protocol.targets=3\npair.strategy=cosine"],
            words_changed,
            _set,
        ),
        "cache, bytes": Kind("c.h5", 8_000, [good.read_bytes()], bytes_changed, _same),
        "cache, datasets": Kind("c.h5", 4_000, [good], cache_changed, _same, edited),
        "bundle json": Kind("bundle.json", 6_000, [meta], tree_changed, as_it_was, partial(_beside, bundle)),
        "bundle json, sealed": Kind("bundle.json", 3_000, [meta], tree_changed, _usable, partial(_sealed, bundle)),
        "bundle tensors": Kind(
            "model.safetensors", 4_000, [tensors], bytes_changed, as_it_was, partial(_beside, bundle)
        ),
        "adaptation": Kind(_ADAPTATION, 4_000, [about], tree_changed, partial(_adapted, loaded), partial(_told, kept)),
        "checkpoint pt": Kind(
            "b.pt",
            4_000,
            [of_torch({"bottleneck.weight": torch.ones(4, 6), "bottleneck.bias": torch.zeros(4)})],
            bytes_changed,
            lambda path: bool(read_checkpoint(path).tensors),
        ),
        "extractor json": Kind(
            "e.json",
            2_000,
            [b'{"id": "a", "weights": "b", "preprocessing": "c", "layers": ["d"]}'],
            tree_changed,
            lambda path: bool(read_extractor(path).fingerprint),
        ),
        "failures jsonl": Kind(
            "c.failures.jsonl",
            2_000,
            [b'{"path": "a", "reason": "b"}\n{"path": "c", "reason": "d"}\n'],
            words_changed,
            lambda path: read_failures(path.with_name("c.h5")) is not None,
        ),
        "tuned json": Kind(
            "tuned.json",
            2_000,
            [b'{"pft": ["s1", "s2"], "shot": []}'],
            tree_changed,
            lambda path: tuned_on(path.parent) is not None,
        ),
    }


_TOML = b"""cache = "a.h5"
[head]
epochs = 3
lr = 0.02
[features]
dim = 8
[protocol]
targets = "s1,s2"
draws = 2
[adapt]
method = "pft"
[adapt.shot]
epochs = 4
[plot]
formats = ["png", "pdf"]
"""


def _layout(path: Path) -> bool:
    items = read_layout("manifest", path)
    return all(item.subject and item.video and item.frame >= 0 for item in items)


def _imported(out: Path, path: Path) -> bool:
    report = import_features(path, out, _OVERWRITE)
    return report.rows > 0 and not verify_cache(out)


def _landmarks(path: Path) -> bool:
    points = read_landmark_table(path).points
    return points.ndim == 3 and points.shape[2] == 2 and points.dtype == np.float32


def _set(path: Path) -> bool:
    text = path.read_bytes().decode("utf-8", "surrogateescape")
    return bool(load_config(None, parse_settings(text.split("\n"))).to_dict())


def _same(path: Path) -> bool:
    said = same_rows(path)
    if said == "detected":
        raise FeatlabError(said)
    return said == "harmless"


def _bundle(folder: Path) -> Path:
    config = Config().with_values({"features.dim": 4, "head.bottleneck": 3, "head.epochs": 1, "head.batch": 8}, "here")
    bundle = build_bundle(people(), config, seed=0, extractor=ExtractorInfo("hog", "none", "grey"))
    return save_bundle(folder, bundle)


def _beside(bundle: Path, path: Path, content: bytes) -> None:
    """Write one file of a bundle, and copy the others."""
    for file in bundle.iterdir():
        if file.is_file():
            (path.parent / file.name).write_bytes(content if file.name == path.name else file.read_bytes())


def _sealed(bundle: Path, path: Path, content: bytes) -> None:
    """Write changed JSON with a digest that fits."""
    _beside(bundle, path, content)
    with contextlib.suppress(ValueError, RecursionError):
        told = json.loads(content)
        told.pop("digest", None)
        write_json(path, told)


def _facts(bundle: Bundle) -> tuple[object, ...]:
    rows = torch.from_numpy(people().embeddings)
    made = base_model(bundle)(rows)
    return bundle.classes, bundle.neutral, bundle.extractor, bundle.seed, bundle.config, made.tolist()


def _as_it_was(good: tuple[object, ...], path: Path) -> bool:
    return _facts(load_bundle(path.parent)) == good


def _usable(path: Path) -> bool:
    classes, neutral, *_, made = _facts(load_bundle(path.parent))
    return neutral in classes and bool(np.isfinite(made).all())


def _adapt(bundle: Bundle) -> AdaptedModel:
    rows = people().rows_of("s1").take(slice(3))
    return make_method("adabn").adapt(bundle, Target(rows.embeddings, rows.video, rows.frame))


def _told(tensors: Mapping[str, torch.Tensor], path: Path, content: bytes) -> None:
    """Write an adaptation that tells something else of itself, one time in four with tensors of another shape."""
    try:
        told = parse_json(content.decode())
    except ValueError:
        told = {}
    other = {name: tensor[None] if len(content) % 4 == 0 else tensor for name, tensor in tensors.items()}
    write_tensors(path, other, told if isinstance(told, dict) else {})


def _adapted(bundle: Bundle, path: Path) -> bool:
    model, _ = load_adaptation(path.parent, bundle)
    return bool(np.isfinite(model.predict_proba(people().embeddings)).all())
