"""Several caches of one extractor into one: subjects side by side, classes united by name."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import combinations, groupby
from pathlib import Path
from typing import Any

import numpy as np

import featlab.cache.schema as schema
from featlab.cache.assemble import Plan, write_cache
from featlab.cache.atomic import atomic_write_text
from featlab.cache.encode import CodedRows, Header, encode_table
from featlab.cache.names import alike
from featlab.cache.reader import CacheSummary, inspect_cache, open_cache
from featlab.cache.schema import ExtractorInfo, one_form
from featlab.cache.table import FeatureTable, closest_names, same_prompts
from featlab.errors import CacheError, listed

_SPELLED_OUT = 3


@dataclass(frozen=True)
class MergedInput:
    """One cache that went into a merged one."""

    path: Path  # Its file.
    name: str  # What its subjects' file, and with a prefix its subjects, are called after.
    rows: int  # How many it brought.
    subjects: tuple[str, ...]  # Its subjects, as they are called in the merged cache.
    subjects_file: Path  # The text file that lists them, one a line.


@dataclass(frozen=True)
class MergeReport:
    """What a merge made."""

    path: Path  # The merged cache.
    inputs: tuple[MergedInput, ...]  # The caches that went in, as they were named.
    notes: tuple[str, ...]  # One line each: what was left out, and what the caches do not share.
    warnings: tuple[str, ...]  # Names that may be one.


def merge_caches(
    paths: Sequence[str | os.PathLike[str]],  # Two or more, made by one extractor, without a subject in common.
    out: str | os.PathLike[str],
    *,
    rename: Mapping[str, str] | None = None,  # New class names by old; two classes of one new name become one.
    prefix: bool = False,  # Whether each subject is called "<name of its cache>/<subject>".
    force: bool = False,  # Whether files that are there are replaced.
    on_progress: Callable[[int, int], None] | None = None,  # Called with (rows written, all rows).
) -> MergeReport:
    """Put the rows of several caches into a new one, and a list of each cache's subjects beside it.

    Every cache is checked, then rows go through memory block by block. The merged one is whole or not
    there; where it is, so are the lists. Classes are united by name, in the order of the first cache, then of the next.
    Embeddings stay float16 where all are, else they are stored as float32, which changes no value. Landmarks and paths
    that not every cache has are left out.

    Raises:
        CacheError: Caches that can't be joined, or a file that is there; one line with the files and what to do.
        FeatlabError: A file can't be written.
    """
    files, out, rename = [Path(path) for path in paths], Path(out), dict(rename or {})
    _check_files(files, out)
    summaries, names = [inspect_cache(path) for path in files], _short_names(files)
    prefixes = [f"{name}/" if prefix else "" for name in names]
    inputs = [
        MergedInput(
            path=path,
            name=name,
            rows=summary.rows,
            subjects=tuple(before + subject for subject in summary.subjects),
            subjects_file=out.with_name(f"{out.stem}.{name}.subjects.txt"),
        )
        for path, name, before, summary in zip(files, names, prefixes, summaries, strict=True)
    ]
    lists = {each.subjects_file: "".join(f"{name}\n" for name in each.subjects) for each in inputs}
    # A list of the same people is what a merge left that was killed.
    in_the_way = [path for path, text in lists.items() if path.exists() and path.read_bytes() != text.encode()]
    for path in (*([out] if out.exists() else []), *in_the_way):
        if not force:
            raise CacheError(f"{path}: exists; --force replaces it, or choose another --out")
    _check_alike(summaries, rename)
    _check_disjoint(inputs, prefix)
    dtypes = {each.dtype for each in summaries}
    header = Header(
        extractor=_joined_extractor(summaries, prefixes),
        classes=tuple(dict.fromkeys(rename.get(name, name) for each in summaries for name in each.classes)),
        neutral=_neutral(summaries, rename),
        dtype="float32" if len(dtypes) > 1 else dtypes.pop(),
    )
    notes = [*_notes_of_classes(header.classes, summaries, rename)]
    owners = {name: number for number, each in enumerate(inputs) for name in each.subjects}
    with ExitStack() as opened:
        caches = [opened.enter_context(open_cache(path, verify=True)) for path in files]
        without: set[str] = set()
        for name in (schema.LANDMARKS, schema.PATHS, schema.FACES):
            shapes = [cache.large[name].shape[1:] if name in cache.large else None for cache in caches]
            if len(set(shapes)) > 1:
                without.add(name)
                has = ["none" if shape is None else f"{shape[0]} points" if shape else "some" for shape in shapes]
                told = ", ".join(f"{path} has {what}" for path, what in zip(files, has, strict=True))
                notes.append(f"{name} are left out: {told}")
        texts = caches[0].prompts
        if all(each.classes == header.classes and same_prompts(each.prompts, texts) for each in caches):
            header = replace(header, prompts=texts)
        elif any(each.prompts is not None for each in caches):
            about = {name: said for name, said in header.extractor.about.items() if name != schema.PROMPTS}
            header = replace(header, extractor=replace(header.extractor, about=about))
            notes.append("texts of the classes are left out: not every cache has the same classes and texts")
        nothing: dict[str, Any] = dict.fromkeys(without)
        plans = {str(cache.path): Plan.of(cache, without) for cache in caches}
        plan = replace(Plan.joined(str(out), plans), subjects=tuple(sorted(owners)))
        embeddings = np.dtype(header.dtype), (caches[0].dim,)
        plan = replace(plan, kinds={**plan.kinds, schema.EMBEDDINGS: embeddings})

        def renamed(table: FeatureTable, before: str) -> FeatureTable:
            return replace(
                table,
                subjects=tuple(before + name for name in table.subjects),
                classes=tuple(rename.get(name, name) for name in table.classes),
                neutral=header.neutral,
                prompts=None,  # As the header has them.
                **nothing,
            )

        def parts() -> Iterator[tuple[str, CodedRows]]:
            done = 0
            # Neighbours of one cache are read in one go.
            for number, group in groupby(plan.subjects, key=owners.__getitem__):
                cache, before = caches[number], prefixes[number]
                for table in cache.iter_rows(subjects=[name.removeprefix(before) for name in group]):
                    yield str(cache.path), encode_table(renamed(table, before), header, str(cache.path))
                    done += len(table)
                    if on_progress is not None:
                        on_progress(done, plan.rows)
            # Before the cache is renamed into place: where it is, they are.
            for path, text in lists.items():
                atomic_write_text(path, text)

        write_cache(out, header, plan, parts())
    may_be = alike({"subject": plan.subjects, "class": header.classes})
    line = f"names that may be one: {may_be}; --rename OLD=NEW joins classes"
    return MergeReport(out, tuple(inputs), tuple(notes), (line,) if may_be else ())


def _short_names(paths: Sequence[Path]) -> list[str]:
    """Return the files' stems, or folder and stem where two files are called alike."""
    names = [path.stem for path in paths]
    if len(set(names)) < len(names):
        names = [f"{Path(os.path.abspath(path)).parent.name}-{path.stem}" for path in paths]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise CacheError(f"two of the caches would be called {twice!r}; rename one of the files")
    return names


def _joined_extractor(summaries: Sequence[CacheSummary], prefixes: Sequence[str]) -> ExtractorInfo:
    """Return the extractor that all share, with what any of the caches knows of it beyond its fingerprint."""
    infos = [each.extractor for each in summaries]
    libraries = sorted({name for info in infos for name in info.versions})
    versions = {
        name: " / ".join(sorted({info.versions[name] for info in infos if name in info.versions})) for name in libraries
    }
    # It is one backbone: whom it has seen holds for every cache, whichever of them says so.
    seen = {name for info in infos for name in info.trained_on}
    return replace(infos[0], versions=versions, trained_on=tuple(sorted({at + who for at in prefixes for who in seen})))


def _neutral(summaries: Sequence[CacheSummary], rename: Mapping[str, str]) -> str:
    first = rename.get(summaries[0].neutral, summaries[0].neutral)
    for each in summaries:
        if (neutral := rename.get(each.neutral, each.neutral)) != first:
            raise CacheError(
                f"{each.path}: its neutral class is {neutral!r}, that of {summaries[0].path} is {first!r}; "
                f"--rename {each.neutral}={first} makes them one"
            )
    return first


def _check_files(paths: Sequence[Path], out: Path) -> None:
    """Refuse fewer than two files, or an output that is one of them."""
    if len(paths) < 2:
        raise CacheError(f"{', '.join(map(str, paths)) or 'no cache'}: a merge needs two caches or more; name another")
    if out.resolve() in [path.resolve() for path in paths]:
        raise CacheError(f"{out}: is one of the caches to merge; choose another --out")


def _check_alike(summaries: Sequence[CacheSummary], rename: Mapping[str, str]) -> None:
    """Refuse caches of two extractors, or of the same rows, and a class to rename that none has."""
    first, *others = summaries
    for each in others:
        if each.extractor.fingerprint != first.extractor.fingerprint:
            one, other = (f"{info.id} ({info.fingerprint[:12]})" for info in (first.extractor, each.extractor))
            raise CacheError(
                f"{each.path}: was made by {other}, {first.path} by {one}; features of two extractors never meet, "
                "extract both with one"
            )
    for before, after in combinations(summaries, 2):
        if before.digest == after.digest:
            raise CacheError(f"{after.path}: holds the same rows as {before.path}; name one of them")
    known = tuple(dict.fromkeys(name for each in summaries for name in each.classes))
    for name in rename:
        if name not in known:
            raise CacheError(f"--rename {name}={rename[name]}: no cache has that class; {closest_names(name, known)}")


def _check_disjoint(inputs: Sequence[MergedInput], prefix: bool) -> None:
    """Refuse a subject that two caches have."""
    for one, other in combinations(inputs, 2):
        both = [*map(repr, sorted(set(map(one_form, one.subjects)) & set(map(one_form, other.subjects))))]
        if both:
            help_ = "rename one of the files" if prefix else "--prefix puts the cache's name before every subject"
            raise CacheError(
                f"{one.path} and {other.path}: both have the subject {listed(both, _SPELLED_OUT)}; {help_}"
            )


def _notes_of_classes(
    classes: Sequence[str], summaries: Sequence[CacheSummary], rename: Mapping[str, str]
) -> Iterator[str]:
    """Tell of each class that only some of the caches have rows of."""
    having = {each.path: {rename.get(name, name) for name, rows in each.classes.items() if rows} for each in summaries}
    for name in classes:
        present = [path for path, held in having.items() if name in held]
        if 0 < len(present) < len(having):
            lacking = [path for path in having if path not in present]
            yield f"class {name!r}: rows in {', '.join(present)}, none in {', '.join(lacking)}"
