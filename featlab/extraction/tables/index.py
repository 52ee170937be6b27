"""Who, what and when each row of a table is: its subject, label, video and frame; and features that give that away."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featlab.cache.names import one_name_each
from featlab.cache.table import FeatureTable
from featlab.errors import InputError, listed
from featlab.extraction.items import (
    LONGEST_NAME,
    MAX_FRAME,
    SPELLINGS,
    STILLS,
    Pseudonyms,
    find_stills,
    natural_key,
    refuse_equal,
)
from featlab.extraction.video.frames import is_video

UNLABELLED = "unlabelled"
"""Video of a subject's rows of unknown label, where the source names no videos."""

NO_SUBJECT = "the subject is empty, or a word for nothing (NA, None, nan, …); write the name otherwise"

Where = Callable[[int], str]


@dataclass(frozen=True, eq=False)
class RowIndex:
    """Names of N rows, in the source's order."""

    subject: list[str]
    label: list[str | None]
    video: list[str]
    frame: NDArray[np.int32]
    paths: list[str] | None
    session: list[str]
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    neutral: str = ""  # What the neutral label is called here

    def one_name_each(self, neutral: str, *, merge: bool) -> RowIndex:
        """Return the rows with their names in one form, or, with ``merge``, in one spelling."""
        names = one_name_each(self.subject, self.label, self.video, self.frame.tolist(), merge=merge)
        return replace(
            self,
            subject=list(names.subject),
            label=list(names.label),
            video=list(names.video),
            warnings=(names.warning,) if names.warning else (),
            neutral=names.neutral(neutral),
        )

    def pseudonymised(self, names: Pseudonyms) -> RowIndex:
        """Return the rows without a name."""
        subject = [names.subject(name) for name in self.subject]
        refuse_equal(self.subject, subject)
        return replace(
            self,
            subject=subject,
            video=[names.video(who, clip) for who, clip in zip(self.subject, self.video, strict=True)],
            paths=None if self.paths is None else [names.path(path) for path in self.paths],
            warnings=(SPELLINGS,) if self.warnings else (),
        )

    def take(self, rows: NDArray[np.intp]) -> RowIndex:
        """Return the rows at these places, in their order."""
        lists = {name: getattr(self, name) for name in ("subject", "label", "video", "paths", "session")}
        taken: dict[str, Any] = {name: each and [each[row] for row in rows.tolist()] for name, each in lists.items()}
        return replace(self, frame=self.frame[rows], **taken)


def make_index(
    names: Mapping[str, Sequence[str]], rows: int, where: Where, without_folder: Sequence[str] | None = None
) -> RowIndex:
    """Check the index columns and fill in what they leave out.

    A row without a video has that which its path names, or belongs to the path's folder, or is a still, a video of its
    own, or has that of ``without_folder``, by default one for all rows of a subject with one label in a session.
    """
    for name, texts in names.items():
        if len(max(texts, key=len, default="")) > LONGEST_NAME:
            row = next(row for row, text in enumerate(texts) if len(text) > LONGEST_NAME)
            raise InputError(f"{where(row)}: the {name} has {len(texts[row])} letters; {LONGEST_NAME} are the most")
    none = [""] * rows
    subject, video, session, frames = (list(names.get(name, none)) for name in ("subject", "video", "session", "frame"))
    if "" in subject:
        raise InputError(f"{where(subject.index(''))}: {NO_SUBJECT}, or leave such rows out with --skip-bad")
    label = [text or None for text in names.get("label", none)]
    paths = [path.replace("\\", "/") for path in names["path"]] if "path" in names else None
    stills: set[int] = set()
    folders = none
    if paths is not None:
        video = [
            name or (str(PurePosixPath(path).with_suffix("")) if is_video(PurePosixPath(path)) else "")
            for name, path in zip(video, paths, strict=True)
        ]
        stills = find_stills(subject, label, paths, (row for row in range(rows) if not (video[row] or frames[row])))
        folders = [path.removeprefix("./").rpartition("/")[0] for path in paths]
    unnamed = 0
    for row in [row for row, name in enumerate(video) if not name]:
        if paths is not None and row in stills:
            video[row] = paths[row]
        elif known := folders[row] or (without_folder[row] if without_folder else ""):
            video[row] = known
        else:
            video[row] = " ".join(filter(None, (session[row], label[row] or UNLABELLED)))
            unnamed += 1
    notes = [STILLS.format(len(stills))] if stills else []
    if unnamed:
        which = "no row names" if unnamed == rows else f"{unnamed} rows don't name"
        notes.append(f"{which} a video: all rows of a subject with one label are taken as one, in the rows' order")
    frame = _frames(frames, list(zip(subject, video, strict=True)), paths, where)
    keys = list(zip(subject, video, frame.tolist(), strict=True))
    first: dict[tuple[str, str, int], int] = {}
    for row, key in enumerate(keys if len(set(keys)) < rows else ()):
        earlier = first.setdefault(key, row)
        if earlier != row:
            who, clip, place = key
            raise InputError(
                f"{where(row)}: subject {who!r}, video {clip!r}, frame {place} is already there ({where(earlier)})"
            )
    return RowIndex(subject, label, video, frame, paths, session, tuple(notes))


def _frames(
    texts: Sequence[str], clips: Sequence[tuple[str, str]], paths: Sequence[str] | None, where: Where
) -> NDArray[np.int32]:
    """Return the numbers of frames, in the order of the paths or rows in a clip that has none."""
    if all(texts) and (digits := "".join(texts)).isascii() and digits.isdigit() and max(map(len, texts)) <= 9:
        return np.array(list(map(int, texts)), dtype=np.int32)
    frames = np.zeros(len(texts), dtype=np.int32)
    given = {clip for clip, text in zip(clips, texts, strict=True) if text}
    without: list[int] = []
    for row, (clip, text) in enumerate(zip(clips, texts, strict=True)):
        # Tables with gaps turn whole numbers into 3.0; Python makes no numbers of thousands of digits.
        whole = text.removesuffix(".0")
        if whole.isascii() and whole.isdigit() and len(whole) < 100 and int(whole) <= MAX_FRAME:
            frames[row] = int(whole)
        elif text:
            raise InputError(f"{where(row)}: frame {text!r} isn't a whole number from 0 to {MAX_FRAME}")
        elif clip in given:
            raise InputError(
                f"{where(row)}: the frame is empty, and other rows of subject {clip[0]!r}, video {clip[1]!r} have one; "
                "give all of them or none"
            )
        else:
            without.append(row)
    counts: defaultdict[tuple[str, str], Iterator[int]] = defaultdict(count)
    for row in without if paths is None else sorted(without, key=lambda row: natural_key(paths[row])):
        frames[row] = next(counts[clips[row]])
    return frames


_LEAST = 10
"""Rows below which it may be chance."""
_LOOKED_AT = 64
"""Rows that rule out nearly every column, so that only the others are looked at in full."""


def telltales(table: FeatureTable, columns: Sequence[str], source_rows: NDArray[np.intp]) -> list[str]:
    """Return a line for each thing that features (``columns``, if they have names) of these rows give away."""

    def constant(codes: NDArray[Any]) -> Callable[[NDArray[Any], NDArray[np.intp]], Any]:
        def check(values: NDArray[Any], rows: NDArray[np.intp]) -> Any:
            starts = np.flatnonzero(np.diff(codes[rows], prepend=-2))
            return (np.minimum.reduceat(values, starts) == np.maximum.reduceat(values, starts)).all(axis=0)

        return check

    def counts(values: NDArray[Any], rows: NDArray[np.intp]) -> Any:
        return (np.diff(source_rows[rows]) == np.diff(values, axis=0).T).all(axis=1)

    def rises(values: NDArray[Any], rows: NDArray[np.intp]) -> Any:
        pairs = (np.diff(table.subject[rows]) == 0) & (np.diff(table.video[rows]) == 0)
        steps = np.diff(values, axis=0)[pairs] / np.diff(table.frame[rows])[pairs, None]
        step = np.median(steps, axis=0) if len(steps) else np.ones(values.shape[1])
        return (step > 0) & (np.abs(steps - step) <= step / 2).all(axis=0)

    def found(rows: NDArray[np.intp], check: Callable[[NDArray[Any], NDArray[np.intp]], Any]) -> list[int]:
        few_rows = rows[:_LOOKED_AT]
        likely = np.flatnonzero(check(table.embeddings[few_rows], few_rows)).tolist()
        return [place for place in likely if check(table.embeddings[rows, place][:, None], rows).all()]

    def by_class(codes: NDArray[Any]) -> list[int]:
        rows = np.argsort(codes, kind="stable")[int((codes < 0).sum()) :]
        firsts = np.flatnonzero(np.diff(codes[rows], prepend=-2))
        if len(firsts) < 2 or len(rows) < max(_LEAST, 3 * len(firsts)):
            return []
        values = table.embeddings[rows[firsts]]
        return [place for place in found(rows, constant(codes)) if (values[:, place] != values[0, place]).any()]

    order = np.lexsort((table.frame, table.video, table.subject))
    steps_in_time = int(((np.diff(table.subject[order]) == 0) & (np.diff(table.video[order]) == 0)).sum())
    told = {
        "the label (one value a class)": by_class(table.label),
        "the subject (one value a person)": by_class(table.subject),
        "the recording (one value a video)": by_class(table.subject.astype(np.int64) * len(table.videos) + table.video),
        "the row number": found(np.arange(len(table)), counts) if len(table) >= _LEAST else [],
        "the time": found(order, rises) if steps_in_time >= _LEAST else [],
    }
    lines, named = [], set[int]()
    for what, places in told.items():
        which = [columns[place] if columns else f"value {place}" for place in places if place not in named]
        named.update(places)
        if which:
            give = "gives" if len(which) == 1 else "give"
            lines.append(f"{listed(which)} {give} away {what}; --columns chooses the columns of features")
    return lines
