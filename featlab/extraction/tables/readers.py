"""Which reader a source is for, and what a manifest adds to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featlab.errors import InputError
from featlab.extraction.tables.arrays import read_npy, read_npz
from featlab.extraction.tables.columns import Selection
from featlab.extraction.tables.delimited import read_delimited, read_index_columns
from featlab.extraction.tables.index import RowIndex, make_index
from featlab.extraction.tables.openface import read_openface
from featlab.extraction.tables.parquet import read_parquet
from featlab.extraction.tables.rows import OnProgress, ReadRows, check_subject_column

__all__ = ["FORMATS", "Source", "read_source"]

FORMATS = (".csv", ".tsv", ".npy", ".npz", ".parquet")
_WITH_COLUMNS = (".csv", ".tsv", ".parquet")
_HINT = "a row needs a subject: give the column, or name a manifest with --manifest"


@dataclass(frozen=True, eq=False)
class Source:
    """Features and who they are of.

    Attributes:
        rows: N rows in the source's order.
        kept: (n,) places of those that the source doesn't call failed.
        index: Their names.
    """

    rows: ReadRows
    kept: NDArray[np.intp]
    index: RowIndex


def read_source(
    source: Path,
    manifest: Path | None,
    selection: Selection,
    *,
    skip_bad: bool = False,
    on_progress: OnProgress | None = None,
) -> Source:
    """Read features and the names of their rows.

    Args:
        source: A file of one of `FORMATS`, or a folder of OpenFace's csv files.
        manifest: A csv with the columns subject, label, video, frame, path, a line a row of the source in its order; a
            line a file for a folder. None: the source itself says, or a folder has a ``manifest.csv``.
        selection: Which columns are features.
        skip_bad: Report files of a folder that aren't there in place of refusing them.
        on_progress: See `OnProgress`.

    Raises:
        InputError: Nothing is there, or it doesn't fit; one line.
    """
    if source.is_dir():
        listed = manifest if manifest is not None else source / "manifest.csv"
        if not listed.is_file():
            raise InputError(f"{listed}: no such file; a folder of OpenFace's csv files needs --manifest FILE")
        return _indexed(read_openface(source, listed, selection, skip_bad=skip_bad, on_progress=on_progress))
    rows = _read_file(source, selection, on_progress)
    if manifest is None:
        if source.suffix.lower() == ".npy":
            raise InputError(f"{source} holds features alone; name a csv with subject,label,video,frame by --manifest")
        check_subject_column(list(dict.fromkeys([*rows.names, *rows.header])), source, _HINT)
        return _indexed(rows)
    if not manifest.is_file():
        raise InputError(f"{manifest}: no such file")
    names, where = read_index_columns(manifest)
    lines, count = len(names["subject"]), len(rows.features)
    if lines != count:
        raise InputError(
            f"{manifest} has {lines} rows, and {source} has {count}; one each is needed, in the same order"
        )
    for name, values in rows.names.items():
        # A column of both is a check of the order; where they differ, nobody knows which one is right.
        for row in range(count if name in names else 0):
            if names[name][row] != values[row]:
                raise InputError(
                    f"{where(row)}: the {name} is {names[name][row]!r}, and in {source} it is {values[row]!r}; the "
                    "rows must be in the same order"
                )
    return _indexed(replace(rows, names={**rows.names, **names}), where)


def _indexed(rows: ReadRows, where: Callable[[int], str] | None = None) -> Source:
    """Name the rows that count; ``where`` says where a row's names are, by default where its features are."""
    said = where or rows.where
    kept = np.array([row for row in range(len(rows.features)) if row not in rows.failed], dtype=np.intp)
    if not len(kept):
        raise InputError(f"{rows.where(0)} and all other rows have failed: {rows.failed[0]}")
    places = kept.tolist()
    names = {name: [values[row] for row in places] for name, values in rows.names.items()}
    return Source(rows, kept, make_index(names, len(kept), lambda row: said(places[row])))


def _read_file(source: Path, selection: Selection, on_progress: OnProgress | None) -> ReadRows:
    if not source.exists():
        raise InputError(f"{source}: no such file or folder")
    suffix = source.suffix.lower()
    if suffix not in FORMATS:
        raise InputError(f"{source}: features come as {', '.join(FORMATS)}, or as a folder of OpenFace's csv files")
    if suffix not in _WITH_COLUMNS and selection != Selection():
        raise InputError(f"{source} has no columns to choose from; leave --columns and --features out")
    if suffix == ".npy":
        return read_npy(source)
    if suffix == ".npz":
        return read_npz(source)
    if suffix == ".parquet":
        return read_parquet(source, selection, on_progress=on_progress)
    return read_delimited(source, selection, on_progress=on_progress)
