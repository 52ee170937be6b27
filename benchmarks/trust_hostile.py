"""Files that somebody made to do harm: each is given to what reads it, and what came of it is counted.

A case is one file. It is *detected* where it is refused in one line, or left out and listed, *harmless* where what was
made of it is right, *silent* where code of it ran or it was taken for what it isn't, *traceback* where the process
died, hung, took too much memory, or said anything but one line.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from hostile.caches import hostile_caches, people, same_rows, write_cache
from hostile.checkpoints import checkpoints
from hostile.networks import networks
from hostile.pictures import pictures, videos
from hostile.tables import tables
from hostile.texts import descriptions, manifests, settings
from PIL import Image
from trust import Row
from trust_forked import Work, counted, featlab, in_children

from featlab import verify_cache
from featlab.errors import FeatlabError

Cases = Iterator[tuple[str, Work]]


def attacks(folder: Path, scale: float, seed: int) -> Iterator[Row]:
    """Yield a row a kind of file; with a scale, every so many-th file of each kind."""
    _import_all()
    os.environ["PATH"] = f"{_ghostscript(folder)}{os.pathsep}{os.environ['PATH']}"
    for what, kind in _KINDS.items():
        place = folder / what.partition(" ")[0]
        place.mkdir()
        cases = list(kind(place))
        cases = cases[seed % max(1, round(1 / scale)) :: max(1, round(1 / scale))]
        works = [work for _, work in cases]
        # A command writes over this process's output, so each has a child of its own; readers share one.
        groups = [works] if kind in _READERS else [[work] for work in works]
        ended = (said for group in groups for said in in_children(group))
        yield counted(f"hostile {what}", [name for name, _ in cases], ended)


def _import_all() -> None:
    """Import what the commands import, once for all children; nothing that starts a thread."""
    import featlab.bundle.bundle
    import featlab.cli.app
    import featlab.exchange.checkpoint_bundle
    import featlab.extraction.backbones.builtin
    import featlab.extraction.backbones.exported_program
    import featlab.extraction.extract
    import featlab.extraction.inputs
    import featlab.extraction.layouts.plain
    import featlab.extraction.tables
    import featlab.workspace.workspace  # noqa: F401


def _ghostscript(folder: Path) -> Path:
    """Make programs that Pillow may start for a picture; theirs is the canary of every kind."""
    programs = folder / "bin"
    programs.mkdir()
    for name in ("gs", "djpeg"):
        (programs / name).write_text(f"#!/bin/sh\ntouch {folder}/pictures/canary\n", encoding="ascii")
        (programs / name).chmod(0o755)
    return programs


def _caches(folder: Path) -> Cases:
    for name, path in hostile_caches(folder):
        yield name, partial(same_rows, path)


def _tables(folder: Path) -> Cases:
    canary = folder / "canary"
    for number, (name, content) in enumerate(tables(canary)):
        path, out = folder / f"{number}{Path(name).suffix}", folder / f"{number}.h5"
        path.write_bytes(content)
        yield (
            name,
            partial(featlab, ["import", str(path), "--out", str(out)], harmless=partial(_sound, out), canary=canary),
        )


def _sound(cache: Path) -> bool:
    """Whether a command has made a cache that is in order."""
    return not verify_cache(cache)


def _checkpoints(folder: Path) -> Cases:
    import torch

    canary, other, extractor = folder / "canary", folder / "c.pt", folder / "extractor.json"
    torch.save({"fc.weight": torch.ones(2, 4), "fc.bias": torch.zeros(2)}, other)
    extractor.write_text('{"id": "x", "weights": "y", "preprocessing": "z"}', encoding="utf-8")
    for number, (name, content) in enumerate(checkpoints(canary)):
        path = folder / f"{number}{Path(name).suffix}"
        path.write_bytes(content)
        words = ["bundle", "import", "--b", str(path), "--c", str(other), "--out", str(folder / f"out{number}")]
        words += ["--extractor", str(extractor), "--classes", "a,b", "--neutral", "a"]
        yield name, partial(featlab, words, harmless=lambda: True, canary=canary)


def _picture(path: Path, grey: int = 90) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((40, 40, 3), grey, dtype=np.uint8)).save(path)


def _extracted(folder: Path, source: Path, *more: str) -> Work:
    out = source.parent / f"{source.stem}.h5"
    words = ["extract", str(source), "--out", str(out), "--jobs", "1", "--quiet", *more]
    return partial(featlab, words, harmless=partial(_sound, out), canary=folder / "canary")


def _beside_good_ones(folder: Path, number: int, name: str, content: bytes | Callable[[Path], object]) -> Path:
    """Return a data set of two good pictures and a hostile one."""
    source = folder / str(number)
    for grey, label in enumerate(("neutral", "smile")):
        _picture(source / "s0" / label / "1.png", 90 + grey)
    path = source / "s0" / "neutral" / f"2{Path(name).suffix}"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        content(path)
    return source


def _pictures(folder: Path) -> Cases:
    for number, (name, content) in enumerate([*pictures(folder), *_NO_FILES]):
        yield name, _extracted(folder, _beside_good_ones(folder, number, name, content))


_NO_FILES: tuple[tuple[str, Callable[[Path], object]], ...] = (
    ("a folder.png", Path.mkdir),
    ("a pipe.png", os.mkfifo),
    ("a pipe.mp4", os.mkfifo),
    ("a loop.png", lambda path: path.symlink_to(path)),
    ("nothing.png", lambda path: path.symlink_to("/nowhere")),
    ("zeros without end.png", lambda path: path.symlink_to("/dev/zero")),
    ("zeros without end.mp4", lambda path: path.symlink_to("/dev/zero")),
    ("a text elsewhere.png", lambda path: path.symlink_to("/etc/passwd")),
)


def _videos(folder: Path) -> Cases:
    for number, (name, content) in enumerate(videos(folder)):
        yield name, _extracted(folder, _beside_good_ones(folder, number, name, content))


def _manifests(folder: Path) -> Cases:
    for name in ("a/1.png", "a/2.png", "b/1.png"):
        _picture(folder / name)
    for number, (name, content) in enumerate(manifests(folder)):
        path = folder / f"{number}.csv"
        path.write_bytes(content)
        yield name, _extracted(folder, path)


def _networks(folder: Path) -> Cases:
    source = _beside_good_ones(folder, 0, "x.png", lambda path: _picture(path))
    for name, spec in networks(folder):
        yield name, _extracted(folder, source, "--if-exists", "overwrite", "--backbone", spec)


def _settings(folder: Path) -> Cases:
    write_cache(folder / "cache.h5", people())
    for number, (name, content) in enumerate(settings()):
        place = folder / str(number)
        place.mkdir()
        (place / "featlab.toml").write_bytes(content)
        (place / "cache.h5").symlink_to(folder / "cache.h5")
        words = ["train", "--workspace", str(place), "--quiet"]
        yield name, partial(featlab, words, harmless=lambda: True, canary=folder / "canary")


def _descriptions(folder: Path) -> Cases:
    from featlab.bundle.bundle import load_bundle
    from featlab.exchange.checkpoints import read_extractor
    from featlab.extraction.shards import read_failures
    from featlab.workspace.workspace import tuned_on

    for number, (name, content) in enumerate(descriptions(folder / "canary")):
        place = folder / str(number)
        place.mkdir()
        for file in ("bundle.json", "cache.failures.jsonl", "tuned.json"):
            (place / file).write_bytes(content)
        readers: dict[str, Callable[[], object]] = {
            "bundle": partial(load_bundle, place),
            "extractor": partial(read_extractor, place / "bundle.json"),
            "failures": partial(read_failures, place / "cache.h5"),
            "tuned": partial(tuned_on, place),
        }
        for file, reader in readers.items():
            yield f"{file}: {name}", partial(_read, reader, folder / "canary")


def _read(reader: Callable[[], object], canary: Path) -> str:
    try:
        reader()
    except FeatlabError as error:
        return "traceback: more than one line" if "\n" in str(error) else "detected"
    return "silent: code ran" if canary.exists() else "harmless"


_READERS = (_caches, _descriptions)
_KINDS: dict[str, Callable[[Path], Cases]] = {
    "caches (HDF5)": _caches,
    "tables (csv, npy, npz, parquet)": _tables,
    "checkpoints (pt, safetensors)": _checkpoints,
    "pictures": _pictures,
    "videos": _videos,
    "manifests": _manifests,
    "networks (pt2, onnx)": _networks,
    "settings (toml)": _settings,
    "descriptions (json)": _descriptions,
}
