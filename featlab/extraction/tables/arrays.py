"""Features in NumPy's files: a .npy of numbers alone, or a .npz that also says what its rows are."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featlab.errors import InputError
from featlab.extraction.tables.rows import INDEX_COLUMNS, ReadRows, as_points, as_texts

__all__ = ["read_npy", "read_npz"]

FEATURE_ARRAYS = ("embeddings", "features", "X")
_PLURALS = {f"{name}s": name for name in INDEX_COLUMNS}
_BROKEN = (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile)


def read_npy(path: Path) -> ReadRows:
    """Read features from a ``.npy`` of numbers (N, D); a manifest has to say what the rows are.

    The file is mapped, so that a float64 array costs no more memory than its float32 copy.

    Raises:
        InputError: It can't be read, or isn't numbers (N, D).
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except _BROKEN:
        raise InputError(f"{path} isn't a .npy array of numbers; save it with numpy.save") from None
    if not isinstance(array, np.ndarray):
        raise InputError(f"{path} holds several arrays; call it .npz")
    return _rows(path, _features(array, str(path)), {})


def read_npz(path: Path) -> ReadRows:
    """Read a ``.npz`` with ``embeddings`` (or ``features``, or ``X``) and whatever else it says about the rows.

    Arrays of N values: ``subject``, ``label``, ``video``, ``frame``, ``path`` (or their plurals). ``landmarks``
    (N, P, 2); ``columns``, D names of features. Others are named in a note.

    Raises:
        InputError: It can't be read, has no features, pickled objects, or arrays that don't fit.
    """
    arrays = _load(path)
    header = tuple(arrays)
    held = [name for name in FEATURE_ARRAYS if name in arrays]
    if len(held) != 1:
        found = ", ".join(arrays) or "nothing"
        raise InputError(f"{path} holds {found}; expected one array of features: {', '.join(FEATURE_ARRAYS)}")
    features = _features(arrays.pop(held[0]), f"{path}, {held[0]}")
    rows = len(features)
    names = {}
    for name in list(arrays):
        if (column := _PLURALS.get(name, name)) in INDEX_COLUMNS:
            if column in names:
                raise InputError(f"{path} holds both {column!r} and {column + 's'!r}; keep one")
            names[column] = as_texts(_fitting(arrays.pop(name), rows, f"{path}, {name}"), f"{path}, {name}")
    columns: tuple[str, ...] = ()
    if "columns" in arrays:
        columns = tuple(as_texts(arrays.pop("columns"), f"{path}, columns"))
        if len(columns) != features.shape[1]:
            raise InputError(f"{path} names {len(columns)} columns, and its features have {features.shape[1]}")
    landmarks = as_points(arrays.pop("landmarks"), rows, f"{path}, landmarks") if "landmarks" in arrays else None
    notes = (f"not read: {', '.join(arrays)}",) if arrays else ()
    return _rows(path, features, names, header=header, columns=columns, landmarks=landmarks, notes=notes)


def _load(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise InputError(f"{path} isn't a .npz; save it with numpy.savez")
            return {name: file[name] for name in file.files}
    except InputError:
        raise
    except _BROKEN as error:
        if "pickle" in str(error) and zipfile.is_zipfile(path):
            raise InputError(
                f"{path} holds pickled objects, which are never loaded; save names as text: np.array(names, dtype=str)"
            ) from None
        raise InputError(f"{path} isn't a .npz that can be read; save it with numpy.savez") from None


def _features(array: NDArray[Any], what: str) -> NDArray[np.float32]:
    if array.ndim != 2 or array.dtype.kind not in "fiu" or 0 in array.shape:
        raise InputError(f"{what} has shape {array.shape} and type {array.dtype}; expected numbers (rows, features)")
    with np.errstate(over="ignore"):
        return np.array(array, dtype=np.float32)


def _fitting(array: NDArray[Any], rows: int, what: str) -> NDArray[Any]:
    if array.ndim and len(array) != rows:
        raise InputError(f"{what} has {len(array)} values, and there are {rows} rows of features; one each is needed")
    return array


def _rows(path: Path, features: NDArray[np.float32], names: Mapping[str, list[str]], **more: Any) -> ReadRows:
    return ReadRows(
        features=features,
        names=names,
        where=lambda row: f"{path}, row {row}",
        name_of=lambda row: f"{path.name}#row={row}",
        **more,
    )
