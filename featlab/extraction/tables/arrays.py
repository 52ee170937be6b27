"""Tables whose values have types: .npy, .npz, .parquet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featlab.errors import InputError
from featlab.extraction.columns import Columns, as_text, load_arrays
from featlab.extraction.faces import as_points
from featlab.extraction.tables.rows import INDEX_COLUMNS
from featlab.extraction.text import check_once

FEATURE_ARRAYS = ("embeddings", "features", "X")
_PLURALS = {f"{name}s": name for name in INDEX_COLUMNS}
_BATCH = 4096


def open_npy(path: Path) -> Columns:
    """Open features alone, numbers (N, D): a manifest has to say what the rows are."""
    array = load_arrays(path).get("")
    if array is None:
        raise InputError(f"{path} holds several arrays; call it .npz")
    return _columns(path, {"features": _matrix(array, str(path))})


def open_npz(path: Path) -> Columns:
    """Open ``embeddings`` (or ``features``, or ``X``) and whatever else a ``.npz`` says about the rows."""
    arrays = load_arrays(path)
    held = [name for name in FEATURE_ARRAYS if name in arrays]
    if len(held) != 1:
        found = ", ".join(filter(None, arrays)) or "nothing by name"
        raise InputError(f"{path} holds {found}; expected one array of features: {', '.join(FEATURE_ARRAYS)}")
    features = _matrix(arrays.pop(held[0]), f"{path}, {held[0]}")
    rows, width = features.shape
    columns: Mapping[str, NDArray[Any]] = {held[0]: features}
    in_memory = features if features.dtype == np.float32 and "columns" not in arrays else None
    if "columns" in arrays:
        header = [name.strip() for name in _texts(arrays.pop("columns"), f"{path}, columns")]
        if len(header) != width:
            raise InputError(f"{path} names {len(header)} columns, and its features have {width}")
        check_once(header, f"{path}, columns")
        columns = {name: features[:, place] for place, name in enumerate(header)}
    beside: dict[str, NDArray[Any]] = {}
    left: list[str] = []
    for name, array in arrays.items():
        column = _PLURALS.get(name, name)
        known = column in INDEX_COLUMNS or name == "landmarks"
        if not known and (array.shape != (rows,) or array.dtype.kind not in "USbiuf"):
            left.append(name)
            continue
        if column in beside:
            raise InputError(f"{path} holds both {column!r} and {column + 's'!r}; keep one")
        if name == "landmarks":
            array = as_points(array, f"{path}, landmarks")
        elif known or array.dtype.kind in "US":
            array = np.array(_texts(array, f"{path}, {name}"))
        if len(array) != rows:
            raise InputError(
                f"{path}, {name} has {len(array)} rows, and there are {rows} rows of features; one each is needed"
            )
        beside[column] = array
    landmarks = beside.pop("landmarks", None)
    notes = (f"not read: {', '.join(left)}",) if left else ()
    more = {"never": frozenset(beside), "landmarks": landmarks, "held": in_memory, "notes": notes}
    return _columns(path, {**columns, **beside}, **more)


def open_parquet(path: Path) -> Columns:
    """Open a table of Arrow's types; the names of its columns are stripped."""
    import pyarrow as arrow
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(path) as file:
            schema, rows = file.schema_arrow, file.metadata.num_rows
        header = tuple(name.strip() for name in schema.names)
        # What pandas keeps of a frame's index: a column's name, or the range that it was.
        kept = (schema.pandas_metadata or {}).get("index_columns", [])
    except (arrow.ArrowException, OSError, ValueError, AttributeError) as error:
        raise _unreadable(path, error) from None
    check_once(header, str(path))

    def batches(places: Sequence[int]) -> Iterator[list[Any]]:
        try:
            with ParquetFile(path) as file:
                for batch in file.iter_batches(batch_size=_BATCH, columns=[schema.names[place] for place in places]):
                    yield [_checked(batch.column(schema.names[place])) for place in places]
        except (arrow.ArrowException, OSError) as error:
            raise _unreadable(path, error) from None

    index = frozenset(name.strip() for name in kept if isinstance(name, str))
    return Columns(path, header, rows, batches, lambda row: f"{path}, row {row}", never=index)


def _checked(column: Any) -> Any:
    """Return a column whose text is UTF-8, as Arrow itself takes for granted; bytes as text."""
    from pyarrow import string, types

    column = column.cast(string()) if types.is_binary(column.type) or types.is_large_binary(column.type) else column
    column.validate(full=True)
    return column


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(f"{path} can't be read as parquet: {' '.join(str(error).split())}")


def _columns(path: Path, arrays: Mapping[str, NDArray[Any]], **more: Any) -> Columns:
    """Return arrays (N,), and one (N, D) as a column of lists, as the columns of a table."""
    import pyarrow as arrow

    header, columns = tuple(arrays), list(arrays.values())
    rows = len(columns[0])

    def cells(array: NDArray[Any]) -> Any:
        if array.dtype.kind in "US":
            return arrow.array(array.tolist())
        values = arrow.array(np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("=")).ravel())
        return values if array.ndim == 1 else arrow.FixedSizeListArray.from_arrays(values, array.shape[1])

    def batches(places: Sequence[int]) -> Iterator[list[Any]]:
        for start in range(0, rows, _BATCH):
            yield [cells(columns[place][start : start + _BATCH]) for place in places]

    return Columns(path, header, rows, batches, lambda row: f"{path}, row {row}", **more)


def _matrix(array: NDArray[Any], what: str) -> NDArray[Any]:
    if array.ndim != 2 or array.dtype.kind not in "fiu" or array.dtype.itemsize > 8 or 0 in array.shape:
        raise InputError(f"{what} has shape {array.shape} and type {array.dtype}; expected numbers (rows, features)")
    return array


def _texts(array: NDArray[Any], what: str) -> list[str]:
    """Return the names that an array (N,) of text, bytes or numbers holds."""
    if array.ndim != 1 or array.dtype.kind not in "USiuf":
        raise InputError(f"{what} has shape {array.shape} and type {array.dtype}; expected one name or number a row")
    try:
        texts = [as_text(value) for value in array.tolist()]
        # Neither halves of letters nor numbers that no letter has: NumPy keeps any, and Arrow takes them for text.
        "".join(texts).encode().decode()
    except (UnicodeError, SystemError):
        raise InputError(f"{what} holds bytes that aren't UTF-8 text; save it as text") from None
    return texts
