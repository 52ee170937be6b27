"""A cache without some of its people, and whether their names or rows are still in a file of any kind."""

from __future__ import annotations

import html
import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

import featlab.cache.schema as schema
from featlab.cache.assemble import Plan, write_cache
from featlab.cache.encode import Header, encode_table
from featlab.cache.hdf5 import guarded, open_file
from featlab.cache.reader import open_cache
from featlab.errors import FeatlabError

_BLOCK = 4 << 20
_KEY = 8
"""Bytes of a row that are looked for first."""
_DIFFERENT = 8
"""Values that a row needs to be told from others: fewer may be chance."""
_LEAST_BYTES = 4
"""Of a name that is looked for among numbers, where a shorter one is there by chance."""
_LINES, _OVERLAP = 1 << 16, 1 << 15


def remove_subjects(path: Path, names: Sequence[str]) -> None:
    """Write a cache anew, block by block, without the rows of some people; a cache of nobody else goes.

    Raises:
        CacheError: A damaged cache.
    """
    # Else what was damaged would get a digest of its own.
    with open_cache(path, verify=True) as cache:
        stay = tuple(name for name in cache.subjects if name not in names)
        if stay:
            extractor = replace(
                cache.extractor, trained_on=tuple(name for name in cache.extractor.trained_on if name not in names)
            )
            dtype = cache.large[schema.EMBEDDINGS].dtype.name
            header = Header(extractor, cache.classes, cache.neutral, dtype, cache.prompts)
            kept = np.isin(cache.codes[schema.SUBJECT], [cache.subjects.index(name) for name in stay])
            videos = tuple(cache.videos[code] for code in np.unique(cache.codes[schema.VIDEO][kept]))
            tables = cache.iter_rows(subjects=stay)
            parts = ((str(path), encode_table(table, header, str(path))) for table in tables)
            plan = replace(Plan.of(cache), rows=int(kept.sum()), subjects=stay, videos=videos)
            write_cache(path, header, plan, parts)
    if not stay:
        # First what a link leads to.
        for place in (path.resolve(), path):
            place.unlink(missing_ok=True)


@dataclass(frozen=True, eq=False)
class Traces:
    """What people would be found by."""

    names: tuple[str, ...]  # Theirs.
    others: tuple[str, ...]  # Of people who stay; a longer one may hold one of those.
    # float32 (N, D), their embeddings; those of fewer than 8 different values are not looked for.
    rows: NDArray[np.float32]

    def in_text(self, data: bytes, least: int = 0) -> bool:
        """Whether bytes hold a name, in UTF-8 or UTF-16 or as JSON or HTML write it, that is no part of a word."""
        # Looking for plain bytes is many times as fast as the pattern.
        return any(text in data for text in self._spelled) and any(
            match["name"] and len(match["name"]) >= least for match in self._pattern.finditer(data)
        )

    def named_in(self, path: Path) -> bool:
        """Whether a file holds a name; where it is of numbers, three letters count only in what a cache has as text."""
        with path.open("rb") as file:
            before, least = b"", 0
            while block := file.read(_BLOCK):
                if not before:
                    least = _LEAST_BYTES if b"\0" in block else 0
                    if block[:4] == b"\x89HDF" and any(map(self.in_text, _texts(path))):
                        return True
                if self.in_text(before + block, least):
                    return True
                before = block[-_OVERLAP:]
        return False

    def rows_in(self, path: Path) -> bool:
        """Whether a file holds the bytes of a row, as float16, float32 or float64."""
        if self._keys is None or not path.stat().st_size:
            return False
        data = np.memmap(path, dtype=np.uint8, mode="r")
        return any(
            place >= start and data[place - start : place - start + len(row)].tobytes() == row
            for place, key in self._keys.places(data)
            for start, row in self._keys.rows[key]
        )

    @cached_property
    def _spelled(self) -> list[bytes]:
        return _spellings(self.names)

    @cached_property
    def _pattern(self) -> re.Pattern[bytes]:
        longer = [other for other in self.others if any(name in other for name in self.names)]
        others, names = (b"|".join(map(re.escape, each)) for each in (_spellings(longer), self._spelled))
        return re.compile(
            rb"(?<![0-9A-Za-z])(?:" + (others + b"|" if others else b"") + rb"(?P<name>" + names + rb")(?![0-9A-Za-z]))"
        )

    @cached_property
    def telling(self) -> NDArray[np.bool_]:
        """Which rows are looked for, (N,)."""
        return np.array([len(np.unique(row)) >= _DIFFERENT for row in self.rows], dtype=bool)

    @cached_property
    def _keys(self) -> _Keys | None:
        rows = self.rows[self.telling]
        with np.errstate(over="ignore"):
            return _Keys.of([rows.astype(dtype) for dtype in ("<f4", "<f2", "<f8")]) if len(rows) else None


def _spellings(names: Sequence[str]) -> list[bytes]:
    """Return how names are written in files, the longest first."""
    written = {
        text.encode(code, "surrogatepass")
        for name in names
        for text in (name, html.escape(name), json.dumps(name)[1:-1])
        for code in ("utf-8", "utf-16-le", "utf-16-be")
    }
    return sorted(written, key=len, reverse=True)


def _texts(path: Path) -> Iterator[bytes]:
    """Yield the texts of an HDF5 file, which stand there without anything between them, as lines."""
    texts: list[h5py.Dataset] = []
    with suppress(FeatlabError), open_file(path) as file, guarded(path):
        file.visititems(lambda _, node: texts.append(node) if isinstance(node, h5py.Dataset) else None)
        for dataset in (each for each in texts if each.dtype.kind == "S"):
            for start in range(0, len(dataset), _LINES):
                yield b"\n".join(dataset[start : start + _LINES].tolist())


@dataclass(frozen=True, eq=False)
class _Keys:
    """Eight bytes of each row, where the fewest of its values are zero: (place in the row, the row) by key."""

    rows: Mapping[int, list[tuple[int, bytes]]]
    sorted: NDArray[np.uint64]
    likely: NDArray[np.bool_]  # By two bytes in the middle of a key: they rule out most places of a file.

    @classmethod
    def of(cls, tables: Sequence[NDArray[np.floating]]) -> _Keys:
        known: dict[int, list[tuple[int, bytes]]] = defaultdict(list)
        for rows in tables:
            windows = np.lib.stride_tricks.sliding_window_view(rows != 0, _KEY // rows.itemsize, axis=1)
            for row, place in zip(rows, windows.sum(axis=2).argmax(axis=1).tolist(), strict=True):
                start, data = place * rows.itemsize, row.tobytes()
                known[int.from_bytes(data[start : start + _KEY], "little")].append((start, data))
        keys, likely = np.array(sorted(known), dtype=np.uint64), np.zeros(1 << 16, dtype=bool)
        likely[(keys >> 16) & 0xFFFF] = True
        return cls(known, keys, likely)

    def places(self, data: NDArray[np.uint8]) -> Iterator[tuple[int, int]]:
        """Yield where in a file a key is, and the key."""
        for block in range(0, len(data), _BLOCK):
            part = np.array(data[block : block + _BLOCK + _KEY - 1])
            for shift in range(_KEY):
                words = part[shift : shift + (len(part) - shift) // _KEY * _KEY].view("<u8")
                maybe = np.flatnonzero(self.likely[words.view("<u2")[1::4]])
                found = maybe[np.isin(words[maybe], self.sorted)]
                yield from zip((block + shift + _KEY * found).tolist(), words[found].tolist(), strict=True)
