"""From a source to rows whose names are known: a file, a file and a manifest, or a folder of OpenFace's csv files."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from featlab.errors import InputError
from featlab.extraction.items import Failure
from featlab.extraction.tables.arrays import read_npy, read_npz, read_parquet
from featlab.extraction.tables.delimited import read_cells, read_delimited, read_manifest
from featlab.extraction.tables.index import RowIndex, make_index
from featlab.extraction.tables.rows import OnProgress, ReadRows, Selection, check_subject_column

FORMATS = (".csv", ".tsv", ".npy", ".npz", ".parquet")
_HINT = "a row needs a subject: give the column, or name a manifest with --manifest"
_FACE = ("face_id", "face")


@dataclass(frozen=True, eq=False)
class Source:
    """Features and who they are of."""

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

    A manifest is a csv of `INDEX_COLUMNS`, a line a row of the source in its order; of a folder, a line a file, by
    default its ``manifest.csv``. ``skip_bad`` reports files of a folder that aren't there in place of refusing them.
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
    names, where = read_manifest(manifest)
    lines, count = len(names["subject"]), len(rows.features)
    if lines != count:
        raise InputError(
            f"{manifest} has {lines} rows, and {source} has {count}; one each is needed, in the same order"
        )
    for name in (name for name in names if name in rows.names):
        # A column of both is a check of the order; where they differ, nobody knows which one is right.
        for row, (listed_as, own) in enumerate(zip(names[name], rows.names[name], strict=True)):
            if listed_as != own:
                raise InputError(
                    f"{where(row)}: the {name} is {listed_as!r}, and in {source} it is {own!r}; the rows must be in "
                    "the same order"
                )
    return _indexed(replace(rows, names={**rows.names, **names}), where)


def read_openface(
    folder: Path, manifest: Path, selection: Selection, *, skip_bad: bool = False, on_progress: OnProgress | None = None
) -> ReadRows:
    """Read what OpenFace wrote about videos or images.

    A line of the manifest has ``path`` (the csv, or the video or image that lies beside it), ``subject`` and mostly
    ``label`` and ``video``. A csv with a column ``frame`` is a video: its frames are numbered by that column, and it is
    called by its path where the manifest doesn't name it. Rows of ``success`` 0 and of other faces than a file's first
    are reported as failed. ``x_0``, ``y_0``, … become the landmarks.
    """
    listed, where = read_manifest(manifest)
    if "path" not in listed:
        raise InputError(f"{manifest}: no column 'path'; it names the csv that OpenFace wrote for each video or image")
    parts: list[ReadRows] = []
    missing: list[Failure] = []
    files = len(listed["path"])
    for line in range(files):
        said = {name: values[line] for name, values in listed.items()}
        said["path"] = path = said["path"].replace("\\", "/")
        for name in ("path", "subject"):
            if not said[name]:
                raise InputError(f"{where(line)}: the {name} is empty")
        # The csv itself, or the one of the same name beside a video or an image.
        file = folder / path
        file = file if file.suffix.lower() in (".csv", ".tsv") else file.with_suffix(".csv")
        if not file.is_file():
            if not skip_bad:
                raise InputError(f"{where(line)}: there is no csv for {path} in {folder}; --skip-bad leaves it out")
            missing.append(Failure(path, "there is no csv for it"))
        elif sum(1 for _ in islice(read_cells(file), 2)) < 2:
            missing.append(Failure(path, "OpenFace wrote no rows"))
        else:
            parts.append(_read_openface_file(file, said, selection))
        if on_progress is not None:
            on_progress(line + 1, files)
    if not parts:
        raise InputError(f"none of the {files} files that {manifest} lists has a row")
    return _joined(parts, missing)


def _read_file(source: Path, selection: Selection, on_progress: OnProgress | None) -> ReadRows:
    if not source.exists():
        raise InputError(f"{source}: no such file or folder")
    suffix = source.suffix.lower()
    if suffix not in FORMATS:
        raise InputError(f"{source}: features come as {', '.join(FORMATS)}, or as a folder of OpenFace's csv files")
    if suffix in (".npy", ".npz"):
        if selection != Selection():
            raise InputError(f"{source} has no columns to choose from; leave --columns and --features out")
        return read_npy(source) if suffix == ".npy" else read_npz(source)
    read = read_parquet if suffix == ".parquet" else read_delimited
    return read(source, selection, on_progress=on_progress)


def _indexed(rows: ReadRows, where: Callable[[int], str] | None = None) -> Source:
    """Name the rows that count; ``where`` says where a row's names are, by default where its features are."""
    said = where or rows.where
    kept = np.array([row for row in range(len(rows.features)) if row not in rows.failed], dtype=np.intp)
    if not len(kept):
        raise InputError(f"{rows.where(0)} and all other rows have failed: {rows.failed[0]}")
    places = kept.tolist()
    names = {name: [values[row] for row in places] for name, values in rows.names.items()}
    return Source(rows, kept, make_index(names, len(kept), lambda row: said(places[row])))


def _read_openface_file(file: Path, said: Mapping[str, str], selection: Selection) -> ReadRows:
    """Read one csv, and say of each of its rows what the manifest says of the file."""
    path = said["path"]
    read = read_delimited(file, selection, extra=_FACE, name=path)
    rows = len(read.features)
    is_video = "frame" in read.names
    face = next((name for name in _FACE if name in read.names), None)
    faces = read.names[face] if face is not None else [""] * rows
    others = {row: f"another face ({face} {faces[row]})" for row in range(rows) if faces[row] != faces[0]}
    names: dict[str, Sequence[str]] = {name: [value] * rows for name, value in said.items()}
    names.setdefault("frame", [""] * rows)
    if is_video:
        names["frame"] = read.names["frame"]
        names["path"] = [read.name_of(row) for row in range(rows)]
    if not said.get("video"):
        names["video"] = [str(PurePosixPath(path).with_suffix("")) if is_video else ""] * rows
    return replace(read, names=names, failed=others | dict(read.failed))


def _joined(parts: Sequence[ReadRows], missing: Sequence[Failure]) -> ReadRows:
    first = parts[0]
    for part in parts:
        here, there = (each.names["path"][0].partition("#")[0] for each in (part, first))
        if part.columns != first.columns:
            raise InputError(
                f"{here} has {len(part.columns)} features, {part.columns[0]} to {part.columns[-1]}, and {there} has "
                f"{len(first.columns)}, {first.columns[0]} to {first.columns[-1]}; they must be the same columns"
            )
        if _points_of(part) != _points_of(first):
            raise InputError(f"{here} has {_points_of(part)} landmarks and {there} {_points_of(first)}; all or none")
    starts = np.cumsum([0, *(len(part.features) for part in parts)]).tolist()

    def place(row: int) -> tuple[ReadRows, int]:
        part = bisect_right(starts, row) - 1
        return parts[part], row - starts[part]

    def where(row: int) -> str:
        part, own = place(row)
        return part.where(own)

    def name_of(row: int) -> str:
        part, own = place(row)
        return part.name_of(own)

    by_part = zip(parts, starts[:-1], strict=True)
    failed = {start + row: why for part, start in by_part for row, why in part.failed.items()}
    points = [part.landmarks for part in parts if part.landmarks is not None]
    return ReadRows(
        features=np.concatenate([part.features for part in parts]),
        names={name: [value for part in parts for value in part.names[name]] for name in first.names},
        where=where,
        name_of=name_of,
        columns=first.columns,
        landmarks=np.concatenate(points) if points else None,
        failed=failed,
        missing=tuple(missing),
    )


def _points_of(part: ReadRows) -> int:
    return 0 if part.landmarks is None else part.landmarks.shape[1]
