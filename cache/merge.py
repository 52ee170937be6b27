"""Several caches of one extractor into one: subjects side by side, classes united by name."""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from featlab.cache.assemble import Plan, write_cache
from featlab.cache.atomic import atomic_write_text
from featlab.cache.encode import CodedRows, Settings, encode_rows
from featlab.cache.errors import CacheError
from featlab.cache.hdf5 import get_dataset, open_file
from featlab.cache.merge_checks import (
    check_alike,
    check_disjoint,
    check_files,
    check_free,
    check_renames,
    spelled_few,
)
from featlab.cache.reader import Cache, open_cache
from featlab.cache.schema import (
    CODE_DTYPES,
    EMBEDDING_DTYPES,
    EMBEDDINGS,
    FLOAT_DTYPE,
    LANDMARKS,
    PATHS,
    ExtractorInfo,
)
from featlab.cache.table import FeatureTable, Rows
from featlab.cache.verify import CacheSummary, inspect_cache


@dataclass(frozen=True)
class MergedInput:
    """One cache that went into a merged one.

    Attributes:
        path: its file.
        name: what its subjects' file, and with a prefix its subjects, are called after.
        rows: how many it brought.
        subjects: its subjects, as they are called in the merged cache.
        subjects_file: the text file that lists them, one a line.
    """

    path: Path
    name: str
    rows: int
    subjects: tuple[str, ...]
    subjects_file: Path


@dataclass(frozen=True)
class MergeReport:
    """What a merge made.

    Attributes:
        path: the merged cache.
        inputs: the caches that went in, as they were named.
        notes: one line each: what was left out, and what the caches do not share.
    """

    path: Path
    inputs: tuple[MergedInput, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Optional:
    """The optional data that every input has: points a face (0: none), paths."""

    landmarks: int
    paths: bool


@dataclass(frozen=True)
class _Part:
    """How the rows of one input are called in the merged cache."""

    prefix: str
    rename: Mapping[str, str]
    optional: _Optional

    def rows(self, table: FeatureTable) -> Rows:
        """The table's rows under their new names, without the data that not every input has."""
        labels: list[str | None] = [*(self.rename.get(name, name) for name in table.classes), None]
        subjects = [self.prefix + name for name in table.subjects]
        return Rows(
            embeddings=table.embeddings,
            labels=[labels[code] for code in table.label.tolist()],
            subjects=[subjects[code] for code in table.subject.tolist()],
            videos=[table.videos[code] for code in table.video.tolist()],
            frames=table.frame,
            landmarks=table.landmarks if self.optional.landmarks else None,
            paths=table.paths if self.optional.paths else None,
        )


def merge_caches(
    paths: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    rename: Mapping[str, str] | None = None,
    prefix: bool = False,
    force: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> MergeReport:
    """Puts the rows of several caches into a new one, and a list of each cache's subjects beside it.

    Rows go through RAM block by block. The cache is whole or not there; the lists follow when it is. Classes are united
    by name, in the order of the first cache, then of the next. Embeddings stay float16 where all are, else they are
    stored as float32, which changes no value. Landmarks and paths that not every cache has are left out.

    Args:
        paths: two caches or more, made by the same extractor, without a subject in common.
        out: the cache to make.
        rename: new class names by old, in all caches at once; two classes of one new name become one.
        prefix: whether each subject is called "<name of its cache>/<subject>".
        force: whether files that are there are replaced.
        on_progress: called with (rows written, all rows).

    Raises:
        CacheError: caches that can't be joined, or a file that is there; one line with the files and what to do.
        FeatlabError: a file can't be written.
    """
    inputs, out, rename = [Path(path) for path in paths], Path(out), dict(rename or {})
    check_files(inputs, out)
    summaries = [inspect_cache(path) for path in inputs]
    names = _short_names(inputs)
    lists = [out.with_name(f"{out.stem}.{name}.subjects.txt") for name in names]
    check_free((out, *lists), force)
    check_alike(summaries)
    check_renames(rename, summaries)
    prefixes = [f"{name}/" if prefix else "" for name in names]
    subjects = [tuple(start + name for name in each.subjects) for start, each in zip(prefixes, summaries, strict=True)]
    check_disjoint(inputs, subjects, prefix)
    optional, notes = _shared_data(summaries)
    dtypes = {each.dtype for each in summaries}
    settings = Settings(
        extractor=_joined_extractor(summaries, prefixes),
        classes=tuple(dict.fromkeys(rename.get(name, name) for each in summaries for name in each.classes)),
        neutral=_neutral(summaries, rename),
        dtype="float32" if len(dtypes) > 1 else dtypes.pop(),
        has_landmarks=optional.landmarks > 0,
    )
    notes += [*_class_notes(settings.classes, summaries, rename), *_unlistable(subjects)]
    owners = {name: number for number, part in enumerate(subjects) for name in part}
    parts = [_Part(start, rename, optional) for start in prefixes]
    with ExitStack() as opened:
        caches = [opened.enter_context(open_cache(path)) for path in inputs]
        plan = Plan(
            rows=sum(each.rows for each in summaries),
            subjects=tuple(sorted(owners)),
            videos=tuple(sorted({name for cache in caches for name in cache.videos})),
            kinds=_kinds(summaries, optional, settings.dtype),
        )
        write_cache(out, settings, plan, _encoded(caches, parts, owners, settings, plan.rows, on_progress))
    for path, listed in zip(lists, subjects, strict=True):
        atomic_write_text(path, "".join(f"{name}\n" for name in listed))
    made = zip(inputs, names, summaries, subjects, lists, strict=True)
    return MergeReport(
        out, tuple(MergedInput(path, name, each.rows, who, file) for path, name, each, who, file in made), tuple(notes)
    )


def _encoded(
    caches: Sequence[Cache],
    parts: Sequence[_Part],
    owners: Mapping[str, int],
    settings: Settings,
    total: int,
    on_progress: Callable[[int, int], None] | None,
) -> Iterator[tuple[str, CodedRows]]:
    """All rows, block by block, by ascending subject: neighbours of one cache are read in one go."""
    done = 0
    for number, group in groupby(sorted(owners), key=owners.__getitem__):
        cache, part = caches[number], parts[number]
        own = [name.removeprefix(part.prefix) for name in group]
        for table in cache.iter_rows(subjects=own):
            yield str(cache.path), encode_rows(part.rows(table), settings, str(cache.path))
            done += len(table)
            if on_progress is not None:
                on_progress(done, total)


def _kinds(
    summaries: Sequence[CacheSummary], optional: _Optional, dtype: str
) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
    """Dtype and shape of one row of the merged cache, by dataset."""
    first = summaries[0]
    kinds: dict[str, tuple[np.dtype[Any], tuple[int, ...]]] = {EMBEDDINGS: (EMBEDDING_DTYPES[dtype], (first.dim,))}
    kinds |= {name: (code, ()) for name, code in CODE_DTYPES.items()}
    if optional.landmarks:
        kinds[LANDMARKS] = (FLOAT_DTYPE, (optional.landmarks, 2))
    if optional.paths:
        kinds[PATHS] = (np.dtype(f"S{max(_path_width(Path(each.path)) for each in summaries)}"), ())
    return kinds


def _path_width(path: Path) -> int:
    with open_file(path) as file:
        return int(get_dataset(file, path, PATHS).dtype.itemsize)


def _short_names(paths: Sequence[Path]) -> list[str]:
    """The files' stems, or folder and stem where two files are called alike.

    Raises:
        CacheError: folders and files are called alike.
    """
    names = [path.stem for path in paths]
    if len(set(names)) < len(names):
        names = [f"{Path(os.path.abspath(path)).parent.name}-{path.stem}" for path in paths]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise CacheError(f"two of the caches would be called {twice!r}; rename one of the files")
    return names


def _shared_data(summaries: Sequence[CacheSummary]) -> tuple[_Optional, list[str]]:
    """What every cache has of the optional data, and a note on each kind that is left out."""
    notes = []
    points = {each.landmarks for each in summaries}
    has = {
        "landmarks": [each.landmarks > 0 for each in summaries],
        "paths": [each.has_paths for each in summaries],
    }
    for what, held in has.items():
        if any(held) and not all(held):
            notes.append(f"{what} are left out: {summaries[held.index(False)].path} has none")
    if all(has["landmarks"]) and len(points) > 1:
        told = ", ".join(f"{each.path} has {each.landmarks} points" for each in summaries)
        notes.append(f"landmarks are left out: {told}")
    landmarks = points.pop() if len(points) == 1 else 0
    return _Optional(landmarks, all(has["paths"])), notes


def _joined_extractor(summaries: Sequence[CacheSummary], prefixes: Sequence[str]) -> ExtractorInfo:
    """The extractor that all share, with what any of the caches knows of it beyond its fingerprint."""
    infos = [each.extractor for each in summaries]
    libraries = sorted({name for info in infos for name in info.versions})
    versions = {
        name: " / ".join(sorted({info.versions[name] for info in infos if name in info.versions})) for name in libraries
    }
    # It is one backbone: whom it has seen holds for every cache, whichever of them says so.
    seen = {name for info in infos for name in info.trained_on}
    return replace(infos[0], versions=versions, trained_on=tuple(sorted({at + who for at in prefixes for who in seen})))


def _neutral(summaries: Sequence[CacheSummary], rename: Mapping[str, str]) -> str:
    first, *others = [rename.get(each.neutral, each.neutral) for each in summaries]
    for each, neutral in zip(summaries[1:], others, strict=True):
        if neutral != first:
            raise CacheError(
                f"{each.path}: its neutral class is {neutral!r}, that of {summaries[0].path} is {first!r}; "
                f"--rename {each.neutral}={first} makes them one"
            )
    return first


def _class_notes(classes: Sequence[str], summaries: Sequence[CacheSummary], rename: Mapping[str, str]) -> list[str]:
    """A note on each class that some of the caches have no row of, and on classes of one cache that became one."""
    notes = []
    counts = []
    for each in summaries:
        count: Counter[str] = Counter()
        for name, rows in each.classes.items():
            count[rename.get(name, name)] += rows
        counts.append(count)
        for target in count:
            old = [name for name in each.classes if rename.get(name, name) == target]
            if len(old) > 1:
                notes.append(f"{each.path}: the classes {', '.join(old)} become {target}")
    for name in classes:
        having = [each.path for each, count in zip(summaries, counts, strict=True) if count[name]]
        if 0 < len(having) < len(summaries):
            lacking = [each.path for each in summaries if each.path not in having]
            notes.append(f"class {name!r}: rows in {', '.join(having)}, none in {', '.join(lacking)}")
    return notes


def _unlistable(subjects: Sequence[Sequence[str]]) -> list[str]:
    """A note when subjects are called what a list of one name a line, with # for comments, can't hold."""
    odd = [
        name for part in subjects for name in part if "#" in name or name != name.strip() or len(name.splitlines()) > 1
    ]
    return (
        [f"a file of subjects can't name {spelled_few(odd)} ('#' starts a comment, blanks at the ends go)"]
        if odd
        else []
    )
