"""Whether all of a cache's content can be trusted, and whether rows in it are equal.

Equal rows are one picture under two people or two labels, or there twice.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

import featlab.cache.schema as schema
from featlab.cache.hdf5 import LAYERS, POSE, Structure, decode_names, guarded, only_in_digest, open_file, read_structure
from featlab.cache.schema import EMBEDDINGS, LABEL, LANDMARKS, PATHS, SUBJECT, VIDEO, ContentDigest
from featlab.cache.table import LARGEST, usable_rows
from featlab.errors import CacheError

_BLOCK_BYTES = 8 << 20
_LOOKED_AT = 64
_TELLING = 8
"""So many different values of a row can't be equal by chance; a few action units, most of them 0, can."""


def verify_cache(path: str | os.PathLike[str]) -> list[str]:
    """Read everything, in bounded memory: checksums, finiteness, landmarks, text, the digest.

    Returns:
        One line a problem, naming the file and the dataset; an empty list when all is well.

    Raises:
        CacheError: The file can't even be opened as a cache (see `open_cache`).
    """
    with open_file(Path(path)) as file:
        return find_problems(read_structure(file, Path(path)))


def check_cache(path: str | os.PathLike[str]) -> tuple[list[str], list[str]]:
    """Verify a cache and, in the same pass, look for equal rows (see `Repeats`).

    Returns:
        Problems and warnings, a line each; of equal rows only where the file itself is right.

    Raises:
        CacheError: As `verify_cache`.
    """
    with open_file(Path(path)) as file:
        cache, repeats = read_structure(file, Path(path)), Repeats()
        if problems := find_problems(cache, repeats):
            return problems, []
        return repeats.find(cache)


def find_problems(cache: Structure, repeats: Repeats | None = None) -> list[str]:
    """Verify a file that is open and whose structure was read; `repeats` learns of its rows. See `verify_cache`."""
    file, path = cache.file, cache.path
    problems = []
    digest = cache.new_digest()
    learners: list[ContentDigest | Repeats] = [digest, repeats] if repeats else [digest]
    readable = True
    for name, dataset in {**cache.large, **only_in_digest(file, path)}.items():
        try:
            problems += _problems_of(cache, name, dataset, learners)
        except CacheError as error:
            problems.append(str(error))
            readable = False
    if readable and not digest.fits(cache.digest):
        problems.append(
            f"{path}: its content is not what was written (digest {digest.hexdigest()[:12]}, expected "
            f"{cache.digest[:12]}); make it again with `featlab extract` or restore a copy"
        )
    names = schema.SUBJECTS, schema.VIDEOS, schema.SUBJECT_OFFSETS, schema.PROMPTS
    known = {*cache.large, *schema.CODE_DTYPES, *names, POSE, LAYERS}
    for name in sorted(set(file) - known):
        problems.append(
            f"{path}: {name!r} is no part of format {schema.FORMAT_VERSION} and no digest covers it; remove it"
        )
    return problems


def _problems_of(
    cache: Structure, name: str, dataset: h5py.Dataset, learners: Sequence[ContentDigest | Repeats]
) -> list[str]:
    """Read one dataset block by block, once for all learners; at most one problem, of its first bad row."""
    row_bytes = dataset.dtype.itemsize * int(np.prod(dataset.shape[1:], dtype=np.int64))
    step = max(1, _BLOCK_BYTES // row_bytes)
    bad, first_bad = 0, 0
    for start in range(0, cache.rows, step):
        with guarded(cache.path, f"dataset {name!r}"):
            block = dataset[start : start + step]
            rows = _bad_rows(name, block)
        for learner in learners:
            learner.update(name, block)
        if rows.any() and not bad:
            first_bad = start + int(rows.argmax())
        bad += int(rows.sum())
    if not bad:
        return []
    return [
        f"{cache.path}: dataset {name!r} is not finite, or above {LARGEST:g}, in {bad} of {cache.rows} rows, first at "
        f"{cache.describe_row(first_bad)}; make the cache again without them"
    ]


def _bad_rows(name: str, block: NDArray[Any]) -> NDArray[np.bool_]:
    if name == schema.PATHS:
        decode_names(block)
        return np.zeros(len(block), dtype=np.bool_)
    flat = block.reshape(len(block), -1)
    if name == schema.EMBEDDINGS:
        return ~usable_rows(flat)
    # A row of nothing but NaN says that no face was found.
    bad: NDArray[np.bool_] = ~np.isfinite(flat).all(axis=1) & ~np.isnan(flat).all(axis=1)
    return bad


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
