"""OpenFace's output: a folder of csv files, one a video or an image, and a manifest that says whose they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np

from featlab.errors import InputError
from featlab.extraction.shards import Failure
from featlab.extraction.tables.columns import Selection
from featlab.extraction.tables.delimited import read_cells, read_delimited, read_index_columns
from featlab.extraction.tables.rows import OnProgress, ReadRows

__all__ = ["read_openface"]

_FACE = ("face_id", "face")


def read_openface(
    folder: Path, manifest: Path, selection: Selection, *, skip_bad: bool = False, on_progress: OnProgress | None = None
) -> ReadRows:
    """Read what OpenFace wrote about videos or images.

    A line of the manifest has ``path`` (the csv, or the video or image that lies beside it), ``subject`` and mostly
    ``label`` and ``video``. A csv with a column ``frame`` is a video: its frames are numbered by that column, and it is
    called by its path where the manifest doesn't name it. Rows of ``success`` 0 and of other faces than a file's first
    are reported as failed. ``x_0``, ``y_0``, … become the landmarks.

    Args:
        folder: What paths are relative to.
        manifest: ``.csv`` or ``.tsv``.
        selection: Which columns are features; by default the intensities of action units.
        skip_bad: Report a file that isn't there in place of refusing it.
        on_progress: Called after every file with the files that were read and how many there are.

    Raises:
        InputError: A manifest or a file that doesn't fit; names the line.
    """
    listed, where = read_index_columns(manifest)
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
        file = _find(folder, path)
        if file is None:
            if not skip_bad:
                raise InputError(f"{where(line)}: there is no csv for {path} in {folder}; --skip-bad leaves it out")
            missing.append(Failure(path, "there is no csv for it"))
        elif _is_without_rows(file):
            missing.append(Failure(path, "OpenFace wrote no rows"))
        else:
            parts.append(_read_file(file, said, selection))
        if on_progress is not None:
            on_progress(line + 1, files)
    if not parts:
        raise InputError(f"none of the {files} files that {manifest} lists has a row")
    return _joined(parts, missing)


def _find(folder: Path, path: str) -> Path | None:
    """Return the csv of a line: the file itself, or the one of the same name beside a video or an image."""
    file = folder / path
    if file.suffix.lower() not in (".csv", ".tsv"):
        file = file.with_suffix(".csv")
    return file if path and file.is_file() else None


def _is_without_rows(file: Path) -> bool:
    lines = read_cells(file)
    next(lines)
    return next(lines, None) is None


def _read_file(file: Path, said: Mapping[str, str], selection: Selection) -> ReadRows:
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
    starts = np.cumsum([0, *(len(part.features) for part in parts)])

    def place(row: int) -> tuple[ReadRows, int]:
        part = int(np.searchsorted(starts, row, side="right")) - 1
        return parts[part], row - int(starts[part])

    def where(row: int) -> str:
        part, own = place(row)
        return part.where(own)

    def name_of(row: int) -> str:
        part, own = place(row)
        return part.name_of(own)

    failed = {
        int(start) + row: why for part, start in zip(parts, starts, strict=False) for row, why in part.failed.items()
    }
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
