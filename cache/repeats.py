"""Rows that are equal: one picture under two people or two labels, or there twice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featlab.cache.hdf5 import guarded
from featlab.cache.schema import EMBEDDINGS, LABEL, LANDMARKS, PATHS, SUBJECT, VIDEO

if TYPE_CHECKING:
    from featlab.cache.verify import Structure

_LOOKED_AT = 64
_TELLING = 8
"""So many different values of a row can't be equal by chance; a few action units, most of them 0, can."""


class Repeats:
    """Learns which rows of a cache are equal while they are read or written: each dataset in blocks, in row order."""

    def __init__(self) -> None:
        self._hashes: dict[str, list[NDArray[np.int64]]] = {EMBEDDINGS: [], LANDMARKS: [], PATHS: []}
        self._telling: list[NDArray[np.bool_]] = []

    def update(self, name: str, block: NDArray[Any]) -> None:
        """Add the next rows of dataset `name`; text as a bytes array (dtype kind S)."""
        if name not in self._hashes:
            return
        if block.dtype.kind != "S":
            block = np.ascontiguousarray(block).reshape(len(block), -1)
        # The bytes of each row; those of text without the NULs that fill it up.
        rows = block if block.dtype.kind == "S" else block.view(f"V{block[:1].nbytes}").ravel()
        self._hashes[name].append(np.fromiter(map(hash, rows.tolist()), np.int64, len(block)))
        if name == EMBEDDINGS:
            values = np.sort(block[:, :_LOOKED_AT], axis=1)
            self._telling.append((values[:, 1:] != values[:, :-1]).sum(axis=1) + 1 >= _TELLING)

    def find(self, cache: Structure) -> tuple[list[str], list[str]]:
        """Return problems and warnings, a line each, of the cache whose rows were added.

        One picture of two people, or with two labels, is a problem; one that is there twice is a warning, as are equal
        rows of so few different values that they may be chance. Frames of one video may be equal: a recording can stand
        still.
        """
        content, *points = (
            np.concatenate(self._hashes[name]) for name in (EMBEDDINGS, LANDMARKS) if name in cache.large
        )
        for more in points:
            content = content * 31 + more
        order = np.argsort(content, kind="stable")
        same = content[order[1:]] == content[order[:-1]]
        one, other = order[:-1][same], order[1:][same]
        in_order = np.argsort(other)
        one, other = one[in_order], other[in_order]
        subject, video, label = cache.codes[SUBJECT], cache.codes[VIDEO], cache.codes[LABEL]
        people = subject[one] != subject[other]
        still = ~people & (video[one] == video[other])
        if PATHS in cache.large:
            names = np.concatenate(self._hashes[PATHS])
            still &= names[one] != names[other]
        labels = ~people & ~still & (label[one] != label[other]) & (np.minimum(label[one], label[other]) >= 0)

        def line(which: NDArray[np.bool_], what: str) -> list[str]:
            if not which.any():
                return []
            first, second = (_row_name(cache, int(rows[which][0])) for rows in (one, other))
            more = f", and {which.sum() - 1} more like it" if which.sum() > 1 else ""
            return [f"{cache.path}: {what}: {first} and {second}{more}"]

        sure = np.concatenate(self._telling)[one]
        problems = line(people & sure, "the same picture is of two people")
        problems += line(labels & sure, "the same picture has two labels")
        warnings = line(~people & ~labels & ~still & sure, "the same picture is there twice")
        chance = "equal rows of two people or labels (by chance, or one picture twice)"
        return problems, warnings + line((people | labels) & ~sure, chance)


def _row_name(cache: Structure, row: int) -> str:
    path = ""
    if PATHS in cache.large:
        with guarded(cache.path):
            path = f"{cache.large[PATHS][row].decode('utf-8', 'replace')}: "
    return f"{path}{cache.describe_row(row)}, {[*cache.classes, 'no label'][cache.codes[LABEL][row]]}"
