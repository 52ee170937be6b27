"""Features to a cache: read, check, name, write."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featlab.cache.assemble import write_table
from featlab.cache.reader import open_cache
from featlab.cache.schema import ExtractorInfo
from featlab.cache.table import LARGEST, FeatureTable, usable
from featlab.config.options import check_choice
from featlab.engine import OnProgress
from featlab.errors import CacheError, ConfigError, InputError
from featlab.extraction.faces import order_problem, unit_problem
from featlab.extraction.faces.landmarks import read_landmarks
from featlab.extraction.items import Failure, IfExists, Pseudonyms, class_names, stays
from featlab.extraction.shards import float16_error, write_list
from featlab.extraction.tables.index import telltales
from featlab.extraction.tables.rows import ReadRows, Selection
from featlab.extraction.tables.sources import Source, read_source

_BLOCK_BYTES = 16 << 20


@dataclass(frozen=True)
class ImportConfig:
    """How to import: the options of `featlab import`. ``if_exists`` "resume" leaves a cache that holds the same."""

    neutral: str = "neutral"
    manifest: Path | None = None
    landmarks: Path | None = None
    selection: Selection = field(default_factory=Selection)
    extractor: str = "imported"
    dtype: str = "float32"
    skip_bad: bool = False
    merge_names: bool = False
    pseudonyms: Pseudonyms | None = None
    if_exists: IfExists = "resume"

    def __post_init__(self) -> None:
        check_choice("--dtype", self.dtype, ("float32", "float16"))
        if not self.extractor.strip():
            raise ConfigError("--extractor is empty; name what made the features, or leave it out")


@dataclass(frozen=True)
class ImportReport:
    """What an import did.

    ``failures`` has no row: files without any, then rows in the source's order; they are also listed beside the cache.
    ``storage_error`` is the largest distance of a stored row from its float32, relative to that row's length; None with
    float32. ``was_there``: the cache was there before and has been left as it was. ``columns`` are the features,
    if they have names.
    """

    path: Path
    rows: int
    dim: int
    digest: str
    seconds: float
    extractor: ExtractorInfo
    was_there: bool
    failures: tuple[Failure, ...]
    storage_error: float | None
    columns: tuple[str, ...]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


DEFAULTS = ImportConfig()
_LOOKED_AT = 2000


def import_features(
    source: Path, out: Path, config: ImportConfig = DEFAULTS, *, on_progress: OnProgress | None = None
) -> ImportReport:
    """Write features that somebody else computed into the cache ``out``; they are in memory once, as float32."""
    start = time.monotonic()
    was_there = stays(out, config.if_exists)
    read = read_source(
        source, config.manifest, config.selection, config.neutral, skip_bad=config.skip_bad, on_progress=on_progress
    )
    landmarks = read.rows.landmarks
    if config.landmarks is not None:
        rows = range(len(read.rows.features))
        landmarks = read_landmarks(config.landmarks, len(rows), [read.rows.called(row) for row in rows])
    read, failures = good_rows(read, source, config.dtype, skip_bad=config.skip_bad)
    index = read.index.one_name_each(config.neutral, merge=config.merge_names)
    if secret := config.pseudonyms:
        index, failures = index.pseudonymised(secret), secret.failures(failures)
    # What would be a copy of all rows isn't made.
    some = read.kept if len(read.kept) < len(read.rows.features) else slice(None)
    table = FeatureTable.named(
        embeddings=read.rows.features[some],
        labels=index.label,
        subjects=index.subject,
        videos=index.video,
        frames=index.frame,
        classes=class_names(index.label, index.neutral),
        neutral=index.neutral,
        landmarks=None if landmarks is None else landmarks[some],
        paths=None if index.paths is None else tuple(index.paths),
    )
    extractor = make_extractor(config.extractor, table.dim, read.rows.columns)
    halves = _blocks(np.arange(len(table)), table.dim) if config.dtype == "float16" else ()
    told = [*telltales(table, read.rows.columns, read.kept), *_strange(table.landmarks)]
    if was_there:
        _check_same(out, table, extractor, config.dtype)
    else:
        # The list goes first: a cache without its list would look like one made from other inputs.
        write_list(out, failures)
        write_table(out, table, extractor, dtype=config.dtype)
    with open_cache(out) as cache:
        return ImportReport(
            path=out,
            rows=len(cache),
            dim=cache.dim,
            digest=cache.digest,
            seconds=time.monotonic() - start,
            extractor=cache.extractor,
            was_there=was_there,
            failures=failures,
            storage_error=max((float16_error(table.embeddings[part]) for part in halves), default=None),
            columns=read.rows.columns,
            notes=(*read.rows.notes, *index.notes),
            warnings=(*index.warnings, *told),
        )


def _strange(landmarks: NDArray[np.float32] | None) -> list[str]:
    """Return what is wrong with landmarks: there are no pictures to compare them with, so it is only said."""
    if landmarks is None:
        return []
    points = landmarks[:: max(len(landmarks) // _LOOKED_AT, 1)]
    points = points[np.isfinite(points).all(axis=(1, 2))]
    unit = unit_problem(points)
    return [*filter(None, [unit and f"{unit}; where pictures aren't square they distort faces", order_problem(points)])]


def good_rows(read: Source, source: Path, dtype: str, *, skip_bad: bool) -> tuple[Source, tuple[Failure, ...]]:
    """Keep the rows that can be stored; also return all that have no row."""
    rows = read.rows
    bad = {row: why for row, why in rows.bad.items() if row not in rows.failed}
    for part in _blocks(read.kept, rows.features.shape[1]):
        block = rows.features[part]
        with np.errstate(over="ignore"):
            fits = usable(block.astype(dtype))
        for place in np.flatnonzero(~fits.all(axis=1)).tolist():
            column = int(np.argmin(fits[place]))
            bad.setdefault(int(part[place]), _why(rows, column, float(block[place, column]), dtype))
    if bad and not skip_bad:
        first = min(bad)
        more = f" ({len(bad) - 1} more rows like it)" if len(bad) > 1 else ""
        raise InputError(
            f"{rows.where(first)}: {bad[first]}{more}; --skip-bad leaves such rows out and lists them, and --columns "
            "chooses the features"
        )
    failed = {**rows.failed, **bad}
    failures = (*rows.missing, *(Failure(rows.called(row), failed[row]) for row in sorted(failed)))
    good = np.flatnonzero(np.isin(read.kept, [*bad], invert=True))
    if not len(good):
        raise InputError(f"{source}: no row can be stored ({failures[0].path}: {failures[0].reason})")
    return replace(read, kept=read.kept[good], index=read.index.take(good)), failures


def _why(rows: ReadRows, column: int, value: float, dtype: str) -> str:
    name = rows.columns[column] if rows.columns else f"value {column}"
    if np.isnan(value):
        return f"{name} is missing or NaN"
    what = dtype if abs(value) <= LARGEST else "an embedding"
    return f"{name} is infinite" if np.isinf(value) else f"{name} is {value:g}, too large for {what}"


def _blocks(rows: NDArray[np.intp], width: int) -> Iterator[NDArray[np.intp]]:
    step = max(1, _BLOCK_BYTES // (4 * width))
    for start in range(0, len(rows), step):
        yield rows[start : start + step]


def make_extractor(name: str, dim: int, columns: tuple[str, ...]) -> ExtractorInfo:
    """Describe who made imported features by their number and a hash of their names, in order, if they have any."""
    if not columns:
        return ExtractorInfo(name, "none", f"{dim} imported values without names")
    digest = hashlib.sha256("\n".join(columns).encode()).hexdigest()
    return ExtractorInfo(name, "none", f"{dim} imported columns, {columns[0]} to {columns[-1]}, names {digest[:12]}")


def _check_same(out: Path, table: FeatureTable, extractor: ExtractorInfo, dtype: str) -> None:
    """Raise an InputError when the cache at ``out`` holds anything else than these rows."""
    # The digest is over everything; writing is what computes it, and much faster than reading a csv.
    probe = out.with_name(f"{out.name}.{secrets.token_hex(4)}.new")
    try:
        write_table(probe, table, extractor, dtype=dtype)
        with open_cache(probe) as new, open_cache(out) as old:
            same = (new.digest, new.extractor.fingerprint) == (old.digest, old.extractor.fingerprint)
            why = "" if same else f"it has {len(old)} other rows, of {old.extractor.id!r}"
    except CacheError as error:
        why = str(error)
    finally:
        probe.unlink(missing_ok=True)
    if why:
        raise InputError(f"{out} exists and isn't what this would make: {why}; --if-exists overwrite replaces it")
