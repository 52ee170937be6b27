"""From a source to rows whose names are known: a file, a file and a manifest, or a folder of a tool's tables."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from featlab.engine import OnProgress
from featlab.errors import InputError
from featlab.extraction.columns import Columns
from featlab.extraction.items import Failure
from featlab.extraction.tables.arrays import open_npy, open_npz, open_parquet
from featlab.extraction.tables.index import NO_SUBJECT, RowIndex, make_index
from featlab.extraction.tables.reader import read_rows
from featlab.extraction.tables.rows import INDEX_COLUMNS, ReadRows, Selection
from featlab.extraction.text import check_columns, file_in, has_rows, open_delimited, read_columns

_OPEN = {
    ".csv": open_delimited,
    ".tsv": open_delimited,
    ".npy": open_npy,
    ".npz": open_npz,
    ".parquet": open_parquet,
}
_HINT = "; a row needs a subject: give the column, or name a manifest with --manifest"


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
    neutral: str,
    *,
    skip_bad: bool,
    on_progress: OnProgress | None = None,
) -> Source:
    """Read features and the names of their rows.

    A manifest has a line a row of the source, in its order; of a folder (by default its ``manifest.csv``) a line a
    file. ``skip_bad`` reports files that aren't there in place of refusing them.
    """
    if source.is_dir():
        listed = manifest if manifest is not None else source / "manifest.csv"
        if not listed.is_file():
            raise InputError(f"{listed}: no such file; a folder of a tool's tables needs --manifest FILE")
        rows = read_folder(source, listed, selection, neutral, skip_bad=skip_bad, on_progress=on_progress)
        return _indexed(rows, rows.where, skip_bad=skip_bad)
    rows = read_rows(_open(source), selection, neutral=neutral, on_progress=on_progress)
    if manifest is None:
        if source.suffix.lower() == ".npy":
            raise InputError(f"{source} holds features alone; name a csv with subject,label,video,frame by --manifest")
        check_columns(list(dict.fromkeys([*rows.names, *rows.header])), ["subject"], str(source), _HINT)
        return _indexed(rows, rows.where, skip_bad=skip_bad)
    names, where = read_columns(manifest, ["subject"], INDEX_COLUMNS, neutral=neutral)
    lines, count = len(names["subject"]), len(rows.features)
    if lines != count:
        raise InputError(f"{manifest} has {lines} rows, and {source} has {count}; one each is needed, in one order")
    for name in (name for name in names if name in rows.names):
        # A column of both is a check of the order; where they differ, nobody knows which one is right.
        for row, (listed_as, own) in enumerate(zip(names[name], rows.names[name], strict=True)):
            if listed_as != own:
                differs = f"the {name} is {listed_as!r}, and in {source} it is {own!r}"
                raise InputError(f"{where(row)}: {differs}; the rows must be in the same order")
    return _indexed(replace(rows, names={**rows.names, **names}), where, skip_bad=skip_bad)


def read_folder(
    folder: Path,
    manifest: Path,
    selection: Selection,
    neutral: str,
    *,
    skip_bad: bool,
    on_progress: OnProgress | None = None,
) -> ReadRows:
    """Read a tool's tables, each named by a line of the manifest, or by the video or image that lies beside its csv.

    A table with frames is a video: it is called by its path where the manifest doesn't name it.
    """
    listed, where = read_columns(manifest, ("path", "subject"), INDEX_COLUMNS, filled=True, neutral=neutral)
    parts: list[ReadRows] = []
    missing: list[Failure] = []
    files = len(listed["path"])
    for line, values in enumerate(zip(*listed.values(), strict=True)):
        said = dict(zip(listed, values, strict=True))
        said["path"] = path = said["path"].replace("\\", "/")
        # The table itself, or the csv of the same name beside a video or an image.
        table = PurePosixPath(path)
        file = file_in(folder, str(table if table.suffix.lower() in _OPEN else table.with_suffix(".csv")))
        if not file.is_file():
            if not skip_bad:
                raise InputError(f"{where(line)}: there is no csv for {path} in {folder}; --skip-bad leaves it out")
            missing.append(Failure(path, "there is no csv for it"))
        elif not has_rows(file):
            missing.append(Failure(path, "the file has no rows"))
        else:
            part = _read_part(file, said, selection)
            if len(part.failed) < len(part.features):
                parts.append(part)
            else:
                missing += [Failure(part.called(row), why) for row, why in sorted(part.failed.items())]
        if on_progress is not None:
            on_progress(line + 1, files)
    if not parts:
        first = f"{missing[0].path}: {missing[0].reason}"
        raise InputError(f"none of the {files} files that {manifest} lists has a row with a face ({first})")
    return _joined(parts, missing)


def _open(source: Path) -> Columns:
    if not source.exists():
        raise InputError(f"{source}: no such file or folder")
    suffix = source.suffix.lower()
    if suffix not in _OPEN:
        raise InputError(f"{source}: features come as {', '.join(_OPEN)}, or as a folder of a tool's tables")
    return _OPEN[suffix](source)


def _indexed(rows: ReadRows, where: Callable[[int], str], *, skip_bad: bool) -> Source:
    """Name the rows that count; ``where`` says where a row's names are."""
    nobody = {row: NO_SUBJECT for row, name in enumerate(rows.names["subject"]) if skip_bad and not name}
    rows = replace(rows, failed=nobody | _other_faces(rows) | dict(rows.failed))
    counts = np.ones(len(rows.features), dtype=bool)
    counts[list(rows.failed)] = False
    kept = np.flatnonzero(counts)
    if not len(kept):
        raise InputError(f"{rows.where(0)} and all other rows have failed: {rows.failed[0]}")
    places = kept.tolist()
    names = {name: [values[row] for row in places] for name, values in rows.names.items()}
    return Source(rows, kept, make_index(names, len(kept), lambda row: where(places[row])))


def _other_faces(rows: ReadRows) -> dict[int, str]:
    """Return the rows of another face than most of their recording; of as many, the first one counts."""
    if not rows.faces:
        return {}
    none = [""] * len(rows.features)
    subject, video, path, label = (rows.names.get(name, none) for name in ("subject", "video", "path", "label"))
    recordings = [(who, clip or at or said) for who, clip, at, said in zip(subject, video, path, label, strict=True)]
    seen = Counter(
        (recording, face)
        for row, (recording, face) in enumerate(zip(recordings, rows.faces, strict=True))
        if face and row not in rows.failed
    )
    usual: dict[tuple[str, str], str] = {}
    for (recording, face), _ in seen.most_common():
        usual.setdefault(recording, face)
    return {
        row: f"another face ({rows.face} {face})"
        for row, (recording, face) in enumerate(zip(recordings, rows.faces, strict=True))
        if face and face != usual.get(recording, face)
    }


def _read_part(file: Path, said: Mapping[str, str], selection: Selection) -> ReadRows:
    """Read the table of one video or image, and say of each of its rows what the manifest says of the file."""
    path = said["path"]
    read = replace(read_rows(_open(file), selection), name_of=lambda row: f"{path}#row={row}")
    rows = len(read.features)
    names: dict[str, Sequence[str]] = {name: [value] * rows for name, value in said.items()}
    names.setdefault("frame", [""] * rows)
    is_clip = "frame" in read.names
    if is_clip:
        names["frame"] = read.names["frame"]
        names["path"] = [read.name_of(row) for row in range(rows)]
    if not said.get("video"):
        names["video"] = [str(PurePosixPath(path).with_suffix("")) if is_clip else ""] * rows
    return replace(read, names=names)


def _joined(parts: Sequence[ReadRows], missing: Sequence[Failure]) -> ReadRows:
    first = parts[0]
    for part in parts:
        if part.columns != first.columns or _kind(part) != _kind(first):
            here, there = (f"{each.names['path'][0].partition('#')[0]} has {_kind(each)}" for each in (part, first))
            raise InputError(f"{here}, and {there}; all must have the same columns")
    starts = np.cumsum([0, *(len(part.features) for part in parts)]).tolist()

    def by_part(said: Sequence[Callable[[int], str]]) -> Callable[[int], str]:
        def of(row: int) -> str:
            part = bisect_right(starts, row) - 1
            return said[part](row - starts[part])

        return of

    def joined(which: Callable[[ReadRows], Mapping[int, str]]) -> dict[int, str]:
        placed = zip(parts, starts[:-1], strict=True)
        return {start + row: why for part, start in placed for row, why in which(part).items()}

    points = [part.landmarks for part in parts if part.landmarks is not None]
    return ReadRows(
        features=np.concatenate([part.features for part in parts]),
        names={name: [value for part in parts for value in part.names[name]] for name in first.names},
        where=by_part([part.where for part in parts]),
        name_of=by_part([part.name_of for part in parts]),
        columns=first.columns,
        landmarks=np.concatenate(points) if points else None,
        face=next((part.face for part in parts if part.faces), ""),
        faces=[face for part in parts for face in part.faces or [""] * len(part.features)],
        failed=joined(lambda part: part.failed),
        bad=joined(lambda part: part.bad),
        missing=tuple(missing),
        notes=tuple(dict.fromkeys(note for part in parts for note in part.notes)),
    )


def _kind(part: ReadRows) -> str:
    ends = f", {part.columns[0]} to {part.columns[-1]}" if part.columns else ""
    points = 0 if part.landmarks is None else part.landmarks.shape[1]
    return f"{part.features.shape[1]} features{ends}, and {points} landmarks"
