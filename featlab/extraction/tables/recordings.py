"""Recordings to calibrate: read from any table, the neutral ones picked out, and what was found as columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from featlab.cache.atomic import atomic_path
from featlab.cache.names import as_cell
from featlab.errors import InputError, closest
from featlab.extraction.items import Failure
from featlab.extraction.tables import good_rows
from featlab.extraction.tables.calibrate import Calibration, Recordings
from featlab.extraction.tables.rows import ReadRows, Selection
from featlab.extraction.tables.sources import read_source

_TABLES = (".csv", ".tsv", ".npz", ".parquet")


def read_recordings(
    source: Path, manifest: Path | None, selection: Selection, neutral: str, *, skip_bad: bool, merge_names: bool
) -> tuple[Recordings, tuple[Failure, ...], ReadRows]:
    """Return the rows of numbers, what has no row, and all that was read.

    Missing and infinite values are refused, or left out with ``skip_bad``; names that are one are told, or joined.
    """
    read = read_source(source, manifest, selection, neutral=neutral, skip_bad=skip_bad)
    read, failures = good_rows(read, source, "float32", skip_bad=skip_bad)
    index = read.index.one_name_each(neutral, merge=merge_names)
    names = read.rows.columns or tuple(f"f{place}" for place in range(read.rows.features.shape[1]))
    return Recordings(read.rows.features[read.kept], index, names), failures, read.rows


def resting_rows(rows: Recordings, neutral: str, read: Callable[[Path], Recordings]) -> Recordings:
    """Return the rows of some labels, of videos (``video:NAME,…``, with ``*`` and ``?``), or all of another table."""
    if Path(neutral).suffix.lower() in _TABLES:
        other = read(Path(neutral))
        if missing := [name for name in rows.names if name not in other.names]:
            raise InputError(f"{neutral} has no feature {missing[0]!r}{closest(missing[0], other.names)}")
        order = [other.names.index(name) for name in rows.names]
        return replace(other, features=other.features[:, order], names=rows.names)
    by_video = neutral.startswith("video:")
    what, patterns = ("video", neutral[6:]) if by_video else ("label", rows.index.neutral or neutral)
    mine = [name or "" for name in getattr(rows.index, what)]
    fits: set[str] = set()
    for pattern in (each.strip() for each in patterns.split(",")):
        found = {name for name in set(mine) if name and (name == pattern or fnmatchcase(name, pattern))}
        if not found:
            held = sorted(set(mine) - {""})
            listed = f"{what}s: {', '.join(held[:8]) or 'none'}"
            raise InputError(f"--neutral: no row has the {what} {pattern!r} ({listed}){closest(pattern, held)}")
        fits |= found
    return rows.take(np.flatnonzero([name in fits for name in mine]))


def calibrated_columns(rows: Recordings, calibration: Calibration) -> dict[str, Sequence[Any]]:
    """Return the calibrated table: what the rows are, each feature's difference, then each in spreads (``NAME_z``)."""
    kept = np.flatnonzero(np.isin(rows.index.subject, calibration.left_out, invert=True))
    mine = rows.take(kept)
    columns: dict[str, Any] = {name: getattr(mine.index, name) for name in ("subject", "label", "video", "frame")}
    columns |= {} if mine.index.paths is None else {"path": mine.index.paths}
    columns |= {"session": mine.index.session} if any(mine.index.session) else {}
    for values, ending in ((calibration.difference, ""), (calibration.in_spreads, "_z")):
        columns |= {name + ending: values[kept, place] for place, name in enumerate(rows.names)}
    return columns


def rest_columns(calibration: Calibration, names: Sequence[str]) -> dict[str, Sequence[Any]]:
    """Return every resting face, a line a person (and session) and feature; the interval of one frame is empty."""
    rests = [*calibration.people.values(), *calibration.sessions]
    names_of = "subject", "session", "frames", "clips"
    facts = [(rest.who[0], rest.who[1] or "all", len(rest.rows), rest.clips) for rest in rests for _ in names]
    columns: dict[str, Any] = dict(zip(names_of, zip(*facts, strict=True), strict=True))
    columns["feature"] = [*names] * len(rests)
    parts = {"effective_frames": "effective", "centre": "centre", "plus_minus": "half", "spread": "spread"}
    for head, name in parts.items():
        columns[head] = np.concatenate([getattr(rest, name) for rest in rests])
    return columns | {"spread_from": [each for rest in rests for each in rest.spread_from.tolist()]}


def write_columns(path: Path, columns: Mapping[str, Any]) -> None:
    """Write columns as .csv or .parquet, whole or not at all; NaN is empty."""
    import pyarrow as arrow
    from pyarrow import csv, parquet

    kept = {name: _rounded(column) for name, column in columns.items()}
    if path.suffix.lower() == ".csv":
        kept = {
            str(as_cell(name)): each if isinstance(each, np.ndarray) else [*map(as_cell, each)]
            for name, each in kept.items()
        }
    table = arrow.table({name: arrow.array(column, from_pandas=True) for name, column in kept.items()})
    with atomic_path(path) as partial, partial.open("wb") as file:
        if path.suffix.lower() == ".parquet":
            parquet.write_table(table, file)
        else:
            csv.write_csv(table, file, csv.WriteOptions(quoting_style="needed"))


def _rounded(column: Any) -> Any:
    """Return floats with seven digits of the largest: what float32 adds behind them is noise."""
    if not isinstance(column, np.ndarray) or column.dtype.kind != "f":
        return column
    largest = np.nanmax(np.abs(column), initial=0.0)
    return np.round(column, 6 - int(np.floor(np.log10(largest))) if largest > 0 else 0)
