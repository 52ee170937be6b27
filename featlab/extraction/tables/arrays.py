"""Features in files whose values have types: .npy, .npz, .parquet."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featlab.errors import ConfigError, InputError
from featlab.extraction.tables.rows import (
    INDEX_COLUMNS,
    Chosen,
    OnProgress,
    ReadRows,
    Selection,
    as_points,
    as_text,
    choose_columns,
)

FEATURE_ARRAYS = ("embeddings", "features", "X")
_PLURALS = {f"{name}s": name for name in INDEX_COLUMNS}
_BROKEN = (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile)
_BATCH = 4096


def read_npy(path: Path) -> ReadRows:
    """Read features alone, numbers (N, D): a manifest has to say what the rows are."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except _BROKEN:
        raise InputError(f"{path} isn't a .npy array of numbers; save it with numpy.save") from None
    if not isinstance(array, np.ndarray):
        raise InputError(f"{path} holds several arrays; call it .npz")
    return _rows(path, _features(array, str(path)), {})


def read_npz(path: Path) -> ReadRows:
    """Read ``embeddings`` (or ``features``, or ``X``) and whatever else a ``.npz`` says about the rows."""
    arrays = _load(path)
    header = tuple(arrays)
    held = [name for name in FEATURE_ARRAYS if name in arrays]
    if len(held) != 1:
        found = ", ".join(arrays) or "nothing"
        raise InputError(f"{path} holds {found}; expected one array of features: {', '.join(FEATURE_ARRAYS)}")
    features = _features(arrays.pop(held[0]), f"{path}, {held[0]}")
    rows = len(features)
    names: dict[str, list[str]] = {}
    for name in list(arrays):
        if (column := _PLURALS.get(name, name)) in INDEX_COLUMNS:
            if column in names:
                raise InputError(f"{path} holds both {column!r} and {column + 's'!r}; keep one")
            names[column] = _texts(arrays.pop(name), f"{path}, {name}")
            if len(names[column]) != rows:
                raise InputError(
                    f"{path}, {name} has {len(names[column])} values, and there are {rows} rows of features; one each "
                    "is needed"
                )
    columns: tuple[str, ...] = ()
    if "columns" in arrays:
        columns = tuple(_texts(arrays.pop("columns"), f"{path}, columns"))
        if len(columns) != features.shape[1]:
            raise InputError(f"{path} names {len(columns)} columns, and its features have {features.shape[1]}")
    landmarks = as_points(arrays.pop("landmarks"), rows, f"{path}, landmarks") if "landmarks" in arrays else None
    notes = (f"not read: {', '.join(arrays)}",) if arrays else ()
    return _rows(path, features, names, header=header, columns=columns, landmarks=landmarks, notes=notes)


def read_parquet(path: Path, selection: Selection, *, on_progress: OnProgress | None = None) -> ReadRows:
    """Read a table batch by batch: a column a feature, or, without a selection, a single column of lists of numbers."""
    try:
        import pyarrow as arrow
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise ConfigError(f"parquet files need pyarrow: pip install 'featlab[parquet]' ({error})") from None
    try:
        with ParquetFile(path) as file:
            return _read_batches(path, file, selection, on_progress)
    except (arrow.ArrowException, OSError) as error:
        raise InputError(f"{path} can't be read as parquet: {' '.join(str(error).split())}") from None


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


def _texts(array: NDArray[Any], what: str) -> list[str]:
    """Return the names that an array (N,) of text, bytes or numbers holds."""
    if array.ndim != 1 or array.dtype.kind not in "USiuf":
        raise InputError(f"{what} has shape {array.shape} and type {array.dtype}; expected one name or number a row")
    try:
        return [as_text(value) for value in array.tolist()]
    except UnicodeDecodeError:
        raise InputError(f"{what} holds bytes that aren't UTF-8 text; save it as text") from None


def _rows(path: Path, features: NDArray[np.float32], names: Mapping[str, list[str]], **more: Any) -> ReadRows:
    return ReadRows(
        features=features,
        names=names,
        where=lambda row: f"{path}, row {row}",
        name_of=lambda row: f"{path.name}#row={row}",
        **more,
    )


def _read_batches(path: Path, file: Any, selection: Selection, on_progress: OnProgress | None) -> ReadRows:
    rows = file.metadata.num_rows
    if not rows:
        raise InputError(f"{path} has no rows")
    header = tuple(file.schema_arrow.names)
    kinds = [_kind(file.schema_arrow.field(place).type) for place in range(len(header))]
    chosen = _choose(path, header, kinds, selection)
    columns, points_at = (tuple(header[place] for place in places) for places in (chosen.features, chosen.landmarks))
    in_list = kinds[chosen.features[0]] == "list"
    names: dict[str, list[str]] = {name: [] for name in INDEX_COLUMNS if name in header}
    features = np.empty((0, 0), dtype=np.float32)
    points = np.empty((rows, len(points_at)), dtype=np.float32)
    done = 0
    for batch in file.iter_batches(batch_size=_BATCH, columns=[*names, *columns, *points_at]):
        with np.errstate(over="ignore"):
            if in_list:
                block = _lists(batch.column(columns[0]), path, done, features.shape[1])
            else:
                block = _numbers(batch, columns)
        if not done:
            features = np.empty((rows, block.shape[1]), dtype=np.float32)
        stop = done + len(batch)
        features[done:stop] = block
        if points_at:
            points[done:stop] = _numbers(batch, points_at)
        for name, values in names.items():
            values += [as_text(value) for value in batch.column(name).to_pylist()]
        done = stop
        if on_progress is not None:
            on_progress(done, rows)
    landmarks = as_points(points, rows, f"{path}, x_0, y_0, …") if points_at else None
    named = () if in_list else columns
    return _rows(path, features, names, header=header, columns=named, landmarks=landmarks, notes=chosen.notes)


def _choose(path: Path, header: Sequence[str], kinds: Sequence[str], selection: Selection) -> Chosen:
    """Decide on the columns: a single one of lists if nothing was said, else as in any table."""
    for name in header:
        if header.count(name) > 1:
            raise InputError(f"{path}: the column {name!r} appears twice")
    lists = [place for place, kind in enumerate(kinds) if kind == "list" and header[place] not in INDEX_COLUMNS]
    if len(lists) == 1 and selection == Selection():
        left = [name for place, name in enumerate(header) if place != lists[0] and name not in INDEX_COLUMNS]
        return Chosen(tuple(lists), notes=(f"not features: {', '.join(left)}",) if left else ())
    chosen = choose_columns(header, selection, lambda place: kinds[place] == "number", path)
    for place in (*chosen.features, *chosen.landmarks):
        if kinds[place] == "other" or (kinds[place] == "list" and len(chosen.features) > 1):
            raise InputError(
                f"{path}: the column {header[place]!r} doesn't hold one number a row; "
                "--columns chooses the columns of features"
            )
    return chosen


def _kind(data_type: Any) -> str:
    """Return what a column may be: "number", "list" (of numbers) or "other"."""
    from pyarrow import types

    def is_number(kind: Any) -> bool:
        return bool(types.is_integer(kind) or types.is_floating(kind))

    if is_number(data_type):
        return "number"
    is_list = types.is_list(data_type) or types.is_large_list(data_type) or types.is_fixed_size_list(data_type)
    return "list" if is_list and is_number(data_type.value_type) else "other"


def _numbers(batch: Any, columns: Sequence[str]) -> NDArray[np.float32]:
    """Return (n, columns) values; a null is NaN."""
    return np.stack([_floats(batch.column(name)) for name in columns], axis=1)


def _floats(column: Any) -> NDArray[np.float32]:
    import pyarrow as arrow

    # Halves know no null in Arrow's own conversion, and whole numbers none in NumPy's.
    values = column.cast(arrow.float64()) if arrow.types.is_integer(column.type) else column
    floats: NDArray[np.float32] = values.to_numpy(zero_copy_only=False).astype(np.float32)
    return floats


def _lists(column: Any, path: Path, start: int, width: int) -> NDArray[np.float32]:
    """Return (n, D) values of lists of one length (0: not known yet); a list that is null is a row of NaN."""
    import pyarrow.compute as compute

    lengths = compute.list_value_length(column).to_pylist()
    width = width or next((length for length in lengths if length is not None), 0)
    for row, length in enumerate(lengths, start):
        if length is not None and length != width:
            raise InputError(f"{path}, row {row}: a list of {length} values, and earlier ones have {width}")
    if not width:
        raise InputError(f"{path}, row {start}: there are no values in its list")
    block = np.full((len(lengths), width), np.nan, dtype=np.float32)
    # A null hides no values in what `flatten` returns, not even in a list of a fixed size.
    block[[length is not None for length in lengths]] = _floats(column.flatten()).reshape(-1, width)
    return block
