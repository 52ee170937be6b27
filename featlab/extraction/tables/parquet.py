"""Features in a .parquet: one column a feature, or one column of lists."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featlab.errors import ConfigError, InputError
from featlab.extraction.tables.columns import Chosen, Selection, choose_columns
from featlab.extraction.tables.rows import INDEX_COLUMNS, OnProgress, ReadRows, as_points, as_text

__all__ = ["read_parquet"]

_BATCH = 4096


def read_parquet(path: Path, selection: Selection, *, on_progress: OnProgress | None = None) -> ReadRows:
    """Read a table of features, batch by batch.

    A single column of lists of numbers holds the features, unless the selection says otherwise; else columns of numbers
    do, as in a csv. Its index columns may be text, categories or numbers.

    Args:
        path: The file.
        selection: Which columns are features.
        on_progress: Called after every batch.

    Raises:
        ConfigError: pyarrow is missing.
        InputError: It can't be read, a list has another length, or there are no features.
    """
    try:
        import pyarrow as arrow
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise ConfigError(f"parquet files need pyarrow: pip install 'featlab[parquet]' ({error})") from None
    try:
        with ParquetFile(path) as file:
            return _read(path, file, selection, on_progress)
    except (InputError, ConfigError):
        raise
    except (arrow.ArrowException, OSError) as error:
        raise InputError(f"{path} can't be read as parquet: {' '.join(str(error).split())}") from None


def _read(path: Path, file: Any, selection: Selection, on_progress: OnProgress | None) -> ReadRows:
    rows = file.metadata.num_rows
    if not rows:
        raise InputError(f"{path} has no rows")
    header = list(file.schema_arrow.names)
    kinds = [_kind(file.schema_arrow.field(place).type) for place in range(len(header))]
    chosen = _choose(path, header, kinds, selection)
    in_list = kinds[chosen.features[0]] == "list"
    texts: dict[str, list[str]] = {name: [] for name in INDEX_COLUMNS if name in header}
    wanted = [*texts, *(header[place] for place in (*chosen.features, *chosen.landmarks))]
    features = np.empty((0, 0), dtype=np.float32)
    points = np.empty((rows, len(chosen.landmarks)), dtype=np.float32)
    done = 0
    for batch in file.iter_batches(batch_size=_BATCH, columns=wanted):
        stop = done + len(batch)
        columns = [batch.column(header[place]) for place in chosen.features]
        with np.errstate(over="ignore"):
            block = _lists(columns[0], path, done, features.shape[1]) if in_list else _numbers(columns)
        if not done:
            features = np.empty((rows, block.shape[1]), dtype=np.float32)
        features[done:stop] = block
        if chosen.landmarks:
            points[done:stop] = _numbers([batch.column(header[place]) for place in chosen.landmarks])
        for name, column in texts.items():
            column += [as_text(value) for value in batch.column(name).to_pylist()]
        done = stop
        if on_progress is not None:
            on_progress(done, rows)
    return ReadRows(
        features=features,
        names=texts,
        where=lambda row: f"{path}, row {row}",
        name_of=lambda row: f"{path.name}#row={row}",
        header=tuple(header),
        columns=() if in_list else tuple(header[place] for place in chosen.features),
        landmarks=as_points(points, rows, f"{path}, x_0, y_0, …") if chosen.landmarks else None,
        notes=chosen.notes,
    )


def _choose(path: Path, header: Sequence[str], kinds: Sequence[str], selection: Selection) -> Chosen:
    """Decide on the columns: a single one of lists if nothing was said, else as in any table."""
    for name in header:
        if header.count(name) > 1:
            raise InputError(f"{path}: the column {name!r} appears twice")
    lists = [place for place, kind in enumerate(kinds) if kind == "list" and header[place] not in INDEX_COLUMNS]
    if len(lists) == 1 and selection == Selection():
        left = [name for place, name in enumerate(header) if place != lists[0] and name not in INDEX_COLUMNS]
        return Chosen(tuple(lists), (), (f"not features: {', '.join(left)}",) if left else ())
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
    import pyarrow as arrow

    def is_number(kind: Any) -> bool:
        return bool(arrow.types.is_integer(kind) or arrow.types.is_floating(kind))

    if is_number(data_type):
        return "number"
    is_list = (arrow.types.is_list, arrow.types.is_large_list, arrow.types.is_fixed_size_list)
    return "list" if any(test(data_type) for test in is_list) and is_number(data_type.value_type) else "other"


def _numbers(columns: Sequence[Any]) -> NDArray[np.float32]:
    """Return (n, columns) values; a null is NaN."""
    return np.stack([_floats(column) for column in columns], axis=1)


def _floats(column: Any) -> NDArray[np.float32]:
    import pyarrow as arrow

    # Halves know no null in Arrow's own conversion, and whole numbers none in NumPy's.
    values = column.cast(arrow.float64()) if arrow.types.is_integer(column.type) else column
    floats: NDArray[np.float32] = values.to_numpy(zero_copy_only=False).astype(np.float32)
    return floats


def _lists(column: Any, path: Path, start: int, width: int) -> NDArray[np.float32]:
    """Return (n, D) values of lists of one length; a list that is null is a row of NaN.

    Args:
        column: Lists.
        path: The file, for messages.
        start: Row of the first, for messages.
        width: D, 0 when it isn't known yet.
    """
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
