"""Rows that are equal: one picture under two people or two labels, or there twice."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featlab.cache.hdf5 import guarded, open_file
from featlab.cache.schema import EMBEDDINGS, LABEL, LANDMARKS, PATHS, SUBJECT, VIDEO
from featlab.cache.verify import Structure, read_structure

_BLOCK_BYTES = 8 << 20
_LOOKED_AT = 64
_TELLING = 8
"""So many different values of a row can't be equal by chance; a few action units, most of them 0, can."""


def find_repeats(path: str | os.PathLike[str]) -> tuple[list[str], list[str]]:
    """Compare all rows of a cache by a hash of their embeddings and landmarks, in bounded memory.

    One picture of two people, or with two labels, is a problem; one that is there twice is a warning, as are equal rows
    of so few different values that they may be chance. Frames of one video may be equal: a recording can stand still.

    Returns:
        Problems and warnings, a line each.

    Raises:
        CacheError: The file can't be read as a cache.
    """
    path = Path(path)
    with open_file(path) as file:
        cache = read_structure(file, path)
        content, telling = _content(cache)
        order = np.argsort(content, kind="stable")
        same = content[order[1:]] == content[order[:-1]]
        one, other = order[:-1][same], order[1:][same]
        in_order = np.argsort(other)
        one, other = one[in_order], other[in_order]
        with guarded(path):
            names = np.array(cache.large[PATHS][:]) if PATHS in cache.large and len(one) else None
    subject, video, label = cache.codes[SUBJECT], cache.codes[VIDEO], cache.codes[LABEL]
    people = subject[one] != subject[other]
    still = ~people & (video[one] == video[other])
    if names is not None:
        still &= names[one] != names[other]
    labels = ~people & ~still & (label[one] != label[other]) & (np.minimum(label[one], label[other]) >= 0)

    def line(which: NDArray[np.bool_], what: str) -> list[str]:
        if not which.any():
            return []
        first, second = (_row_name(cache, names, int(rows[which][0])) for rows in (one, other))
        more = f", and {which.sum() - 1} more like it" if which.sum() > 1 else ""
        return [f"{path}: {what}: {first} and {second}{more}"]

    sure, chance = telling[one], "equal rows of two people or labels (by chance, or one picture twice)"
    problems = line(people & sure, "the same picture is of two people")
    problems += line(labels & sure, "the same picture has two labels")
    warnings = line(~people & ~labels & ~still & sure, "the same picture is there twice")
    return problems, warnings + line((people | labels) & ~sure, chance)


def _content(cache: Structure) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
    """Return a hash of each row, and whether the row holds enough to tell that an equal one is the same."""
    parts = [cache.large[name] for name in (EMBEDDINGS, LANDMARKS) if name in cache.large]
    step = max(1, _BLOCK_BYTES // sum(part.dtype.itemsize * int(np.prod(part.shape[1:])) for part in parts))
    hashes: list[bytes] = []
    telling = np.empty(cache.rows, dtype=np.bool_)
    for start in range(0, cache.rows, step):
        with guarded(cache.path):
            blocks = [part[start : start + step] for part in parts]
        rows = np.concatenate([block.reshape(len(block), -1).view(np.uint8) for block in blocks], axis=1)
        hashes += [hashlib.blake2b(row, digest_size=8).digest() for row in rows]
        values = np.sort(blocks[0][:, :_LOOKED_AT], axis=1)
        telling[start : start + step] = (np.diff(values, axis=1) != 0).sum(axis=1) + 1 >= _TELLING
    return np.frombuffer(b"".join(hashes), dtype=np.uint64), telling


def _row_name(cache: Structure, names: NDArray[np.bytes_] | None, row: int) -> str:
    path = "" if names is None else f"{names[row].decode('utf-8', 'replace')}: "
    return f"{path}{cache.describe_row(row)}, {[*cache.classes, 'no label'][cache.codes[LABEL][row]]}"
