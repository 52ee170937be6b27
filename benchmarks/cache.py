"""Reading and writing a cache of 100,000 × 512 values, against bare h5py on the same chunks with its own checksums.

Reading everything takes the sha256 of all rows in a thread beside, in place of the checksums: it needs a second core.

python benchmarks/claims.py cache
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
from claims import Claim

from featlab import ExtractorInfo, FeatureTable, open_cache, write_table

ROWS, WIDTH, PEOPLE = 100_000, 512, 200
EXTRACTOR = ExtractorInfo("random", "none", "none")


def random_table(rows: int = ROWS, people: int = PEOPLE) -> FeatureTable:
    """Return a table of random rows, in order, one video a person."""
    subject = np.arange(rows) * people // rows
    return FeatureTable(
        embeddings=np.random.default_rng(0).standard_normal((rows, WIDTH), dtype=np.float32),
        label=(np.arange(rows) % 2).astype(np.int16),
        subject=subject.astype(np.int32),
        video=np.zeros(rows, dtype=np.int32),
        frame=np.arange(rows, dtype=np.int32),
        subjects=tuple(f"p{number:06}" for number in range(people)),
        videos=("clip",),
        classes=("neutral", "smile"),
        neutral="neutral",
    )


def claims(folder: Path) -> Iterator[Claim]:
    """Yield the claims about the cache, with all that it checks; the alternative does not sync what it writes."""
    table, cached, bare, written = random_table(), folder / "cache.h5", folder / "bare.h5", folder / "written.h5"
    write_table(cached, table, EXTRACTOR)
    with h5py.File(cached) as file:
        chunks = file["embeddings"].chunks

    def write_bare() -> None:
        with h5py.File(bare, "w") as file:
            file.create_dataset("embeddings", data=table.embeddings, chunks=chunks, fletcher32=True)

    def read() -> None:
        with open_cache(cached) as cache:
            cache.read()

    def read_bare() -> None:
        with h5py.File(bare) as file:
            file["embeddings"][:]

    def clear() -> None:
        bare.unlink(missing_ok=True)
        written.unlink(missing_ok=True)

    against, size = "h5py with its checksums", f"{ROWS:,} × {WIDTH}"
    yield Claim(f"writing {size}", against, 2, lambda: write_table(written, table, EXTRACTOR), write_bare, before=clear)
    yield Claim(f"everything, checked against its digest, {size}", against, 1.25, read, read_bare)
    with open_cache(cached) as cache, h5py.File(bare) as file:
        data, some = file["embeddings"], range(0, PEOPLE, 5)

        def one_by_one() -> None:
            for person in some:
                cache.read([table.subjects[person]])

        def rows_one_by_one() -> None:
            for person in some:
                data[cache.offsets[person] : cache.offsets[person + 1]]

        what = f"one subject of an open cache, checked ({len(some)} of {ROWS // PEOPLE} × {WIDTH} in turn)"
        yield Claim(what, "raw h5py of the same rows", 1.3, one_by_one, rows_one_by_one)
