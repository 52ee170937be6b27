"""From scikit-learn's arrays to the rows of the source stage."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from featlab.cache import FeatureTable
from featlab.errors import InputError
from featlab.extraction.tables.index import codes_of
from featlab.extraction.tables.rows import as_text
from featlab.protocol.splits import Target

__all__ = ["EVERYONE", "find_neutral", "make_table", "make_target", "row_names"]

EVERYONE = "everyone"
"""Subject of rows that were given without one."""


def row_names(values: Any, rows: int, what: str) -> list[str]:
    """Return one name a row, as text; a single value is everybody's.

    Args:
        values: (rows,) of text or whole numbers, or one of them.
        rows: How many.
        what: The argument's name, for messages.

    Raises:
        InputError: Another shape, or a row without a name.
    """
    array = np.asarray(values)
    if array.ndim == 0:
        array = np.repeat(array, rows)
    if array.shape != (rows,):
        raise InputError(f"{what} has shape {array.shape}; expected one value for each of {rows} rows")
    names = [as_text(value) for value in array.tolist()]
    if "" in names:
        raise InputError(f"{what} of row {names.index('')} is empty; every row needs one")
    return names


def find_neutral(classes: NDArray[Any], neutral: Any) -> int:
    """Return the place of the neutral class; by default the one called "neutral", or else the first.

    Args:
        classes: (K,) as y holds them.
        neutral: One of them, or None.

    Raises:
        InputError: It is none of them.
    """
    if neutral is None:
        names = [as_text(value) for value in classes.tolist()]
        return names.index("neutral") if "neutral" in names else 0
    places = [place for place, value in enumerate(classes.tolist()) if value == neutral]
    if not places:
        raise InputError(f"neutral = {neutral!r} is none of the classes {classes.tolist()[:8]}")
    return places[0]


def make_table(
    X: NDArray[np.float32], y: NDArray[np.intp], classes: NDArray[Any], neutral: int, subject: Any, video: Any
) -> FeatureTable:
    """Return the rows as a feature table.

    Args:
        X: (n, D0) embeddings.
        y: (n,) codes, indices into ``classes``.
        classes: (K,) as the user has them.
        neutral: Code of the neutral class.
        subject: (n,) or one; None: all rows are one person's.
        video: (n,) or one; None: a subject's rows of one class are one video.

    Raises:
        InputError: Names that don't fit the rows.
    """
    names = tuple(as_text(value) for value in classes.tolist())
    subjects, subject_code = codes_of(row_names(EVERYONE if subject is None else subject, len(X), "subject"))
    videos, video_code = codes_of([names[code] for code in y] if video is None else row_names(video, len(X), "video"))
    return FeatureTable(
        embeddings=X,
        label=y.astype(np.int16),
        subject=subject_code,
        video=video_code,
        frame=np.arange(len(X), dtype=np.int32),
        subjects=subjects,
        videos=videos,
        classes=names,
        neutral=names[neutral],
    )


def make_target(X: NDArray[np.float32], video: Any) -> Target:
    """Return neutral rows of one person, in their order; without ``video`` they are one clip.

    Raises:
        InputError: ``video`` doesn't fit the rows.
    """
    _, codes = codes_of(row_names(EVERYONE if video is None else video, len(X), "video"))
    return Target(X, codes, np.arange(len(X), dtype=np.int32))
