"""Caches of others: the ways in which HDF5 can point elsewhere, promise too much or hold another type."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from featlab import ExtractorInfo, FeatureTable, open_cache
from featlab.cache.assemble import write_table
from featlab.errors import FeatlabError

NAMES = ("embeddings", "landmarks", "label", "subject", "frame", "subjects", "subject_offsets", "paths")
ATTRIBUTES = ("featlab_format", "format_version", "extractor", "classes", "neutral", "rows", "dim", "digest")
Edit = Callable[[h5py.File], None]


def people(subjects: int = 4, frames: int = 3, dim: int = 6) -> FeatureTable:
    """Return a few rows of each of a few people, of two classes, with landmarks and paths."""
    rng = np.random.default_rng(0)
    rows = subjects * 2 * frames
    label = np.tile(np.repeat(np.arange(2, dtype=np.int16), frames), subjects)
    return FeatureTable(
        embeddings=rng.normal(size=(rows, dim)).astype(np.float32),
        label=label,
        subject=np.repeat(np.arange(subjects, dtype=np.int32), 2 * frames),
        video=label.astype(np.int32),
        frame=np.tile(np.arange(frames, dtype=np.int32), 2 * subjects),
        subjects=tuple(f"s{number}" for number in range(subjects)),
        videos=("rest", "smiles"),
        classes=("neutral", "smile"),
        neutral="neutral",
        landmarks=rng.normal(size=(rows, 5, 2)).astype(np.float32),
        paths=tuple(f"picture{row}.png" for row in range(rows)),
    )


def write_cache(path: Path, table: FeatureTable | None = None) -> Path:
    """Write a small cache that is in order."""
    return write_table(path, table or people(), ExtractorInfo("hog", "none", "grey 96x96"))


def same_rows(path: Path) -> str:
    """Read a cache, and say whether it was refused, gave the rows of `people`, or gave others without a word."""
    try:
        with open_cache(path) as cache:
            table = cache.read()
    except FeatlabError as error:
        return "detected" if "\n" not in str(error) else "traceback: more than one line"
    wanted = people()
    same = all(np.array_equal(getattr(table, name), getattr(wanted, name)) for name in vars(wanted))
    return "harmless" if same else "silent: other rows were read"


def hostile_caches(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield caches with their names: a good one, changed in one place each."""
    good = write_cache(folder / "good.h5")
    for number, (name, edit) in enumerate(_edits(good)):
        path = folder / f"{number}.h5"
        shutil.copy(good, path)
        with h5py.File(path, "r+", libver="latest") as file:
            edit(file)
        yield name, path
    yield from _files(folder, good)


def _edits(good: Path) -> Iterator[tuple[str, Edit]]:
    for name in NAMES:
        yield f"{name} is an external link", lambda file, name=name: _put(file, name, h5py.ExternalLink(good, name))
        yield f"{name} is a soft link", lambda file, name=name: _moved(file, name)
        yield f"{name} is virtual", lambda file, name=name: _virtual(file, name, good)
        yield f"{name} lies in another file", lambda file, name=name: _external(file, name)
        yield f"{name} is a group", lambda file, name=name: _put(file, name, h5py.Group(file.create_group("g").id))
        yield f"{name} is gone", lambda file, name=name: file.__delitem__(name)
        for kind in _TYPES:
            yield f"{name} is of {kind}", lambda file, name=name, kind=kind: _retyped(file, name, _TYPES[kind])
    for name in ATTRIBUTES:
        yield f"attribute {name} is gone", lambda file, name=name: file.attrs.__delitem__(name)
        for value in _VALUES:
            short = repr(value)[:30]
            yield (
                f"attribute {name} is {short}",
                lambda file, name=name, value=value: file.attrs.create(name, value),
            )
    for name, array in _CONTENTS:
        yield f"{name} is {array!s:.30}", lambda file, name=name, array=array: _put(file, name, np.array(array))
    for rows in (10**6, 10**8, 10**10, 10**15):
        yield f"{rows:g} rows are promised", lambda file, rows=rows: _promised(file, rows, 6)
        yield f"{rows:g} values a row are promised", lambda file, rows=rows: _promised(file, len(file["label"]), rows)
    for name in ("embedding", "pose", "layers", "__proto__", "../x"):
        yield f"also a dataset {name}", lambda file, name=name: file.create_dataset(name, data=np.zeros(3))


_TYPES: dict[str, Any] = {
    "text of any length": h5py.string_dtype(),
    "lists of any length": h5py.vlen_dtype(np.int32),
    "references": h5py.ref_dtype,
    "regions": h5py.regionref_dtype,
    "float64": np.float64,
    "complex numbers": np.complex64,
    "pairs": [("a", "i4"), ("b", "f4")],
    "opaque bytes": np.void(b"12345678").dtype,
    "an enum": h5py.enum_dtype({"a": 0, "b": 1}, basetype="i1"),
    "bits": np.bool_,
}
_VALUES: tuple[Any, ...] = (
    *(np.zeros(100), np.zeros(0), 1.5, float("nan"), -1, 2**63, np.bytes_(b"\xff\xfe"), np.bytes_(b"1"), "1", ""),
    *("[" * 60_000, "9" * 5000, '{"id": 1}', "null", "NaN", '["neutral", "neutral"]', h5py.Empty("f"), True),
)
_CONTENTS: tuple[tuple[str, Any], ...] = (
    *(
        ("subject_offsets", np.array(found))
        for found in ([0, -6, 12, 18, 24], [0, 18, 12, 6, 24], [0, 6, 12, 18, 2**62])
    ),
    *(("subject_offsets", np.array(found)) for found in ([6, 12, 18, 24, 24], [0, 6, 6, 18, 24], [0, 6, 12, 18])),
    *(("label", np.full(24, code, dtype=np.int16)) for code in (2, -2, 32767, -32768)),
    *((name, np.full(24, code, dtype=np.int32)) for name in ("subject", "video") for code in (-1, 4, 2**31 - 1)),
    *(("frame", np.full(24, code, dtype=np.int32)) for code in (0, -1)),
    *(("subjects", np.array(names)) for names in ([b"s0"] * 4, [b"s3", b"s2", b"s1", b"s0"], [b"", b"a", b"b", b"c"])),
    *(("subjects", np.array(names)) for names in ([b"\xff", b"\xfe\xff"], [b"a" * 10**6, b"b", b"c", b"d"])),
    *(("embeddings", np.full((24, 6), value, dtype=np.float32)) for value in (np.nan, np.inf, -np.inf, 1e38)),
    *(("embeddings", np.zeros(shape, dtype=np.float32)) for shape in ((24,), (24, 6, 1), (23, 6), (24, 0), (0, 6))),
    ("label", np.zeros((24, 1), dtype=np.int16)),
    ("landmarks", np.zeros((24, 5, 3), dtype=np.float32)),
    ("landmarks", np.full((24, 5, 2), np.inf, dtype=np.float32)),
    ("paths", np.array([b"\xff"] * 24)),
    ("label", np.int16(0)),
)


def _put(file: h5py.File, name: str, value: Any) -> None:
    del file[name]
    file[name] = value


def _moved(file: h5py.File, name: str) -> None:
    file.move(name, "moved")
    file[name] = h5py.SoftLink("/moved")


def _virtual(file: h5py.File, name: str, good: Path) -> None:
    shape, dtype = file[name].shape, file[name].dtype
    layout = h5py.VirtualLayout(shape, dtype)
    layout[...] = h5py.VirtualSource(good, name, shape, dtype)
    del file[name]
    file.create_virtual_dataset(name, layout)


def _external(file: h5py.File, name: str) -> None:
    shape, dtype = file[name].shape, file[name].dtype
    del file[name]
    file.create_dataset(name, shape, dtype, external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)])


def _retyped(file: h5py.File, name: str, dtype: Any) -> None:
    shape = file[name].shape
    del file[name]
    file.create_dataset(name, shape, dtype)


def _promised(file: h5py.File, rows: int, dim: int) -> None:
    """Declare datasets of any size: HDF5 writes nothing of what was never filled."""
    shapes = {"embeddings": (rows, dim), "landmarks": (rows, 5, 2), "subject_offsets": (2,), "subjects": (1,)}
    for name in (*NAMES, "video"):
        shape, dtype = shapes.get(name, (rows,)), file[name].dtype
        if shape != file[name].shape:
            del file[name]
            file.create_dataset(name, shape, dtype, chunks=tuple(min(side, 1000) for side in shape))
    file["subjects"][:], file["subject_offsets"][:] = [b"s0"], [0, rows]
    file.attrs["rows"], file.attrs["dim"] = rows, dim


def _files(folder: Path, good: Path) -> Iterator[tuple[str, Path]]:
    content = good.read_bytes()
    changed = {
        "empty": b"",
        "the signature alone": content[:8],
        "the first 2,000 bytes": content[:2000],
        "all but the last byte": content[:-1],
        "behind 512 bytes of text": b"x" * 512 + content,
        "zeros after the start": content[:8] + bytes(len(content)),
        "0xff after the start": content[:8] + b"\xff" * 5000,
        "twice": content + content,
    }
    for name, data in changed.items():
        path = folder / f"{name}.h5"
        path.write_bytes(data)
        yield name, path
    os.mkfifo(folder / "pipe.h5")
    (folder / "loop.h5").symlink_to(folder / "loop.h5")
    (folder / "zero.h5").symlink_to("/dev/zero")
    (folder / "folder.h5").mkdir()
    for name in ("pipe", "loop", "zero", "folder"):
        yield f"a {name}", folder / f"{name}.h5"
