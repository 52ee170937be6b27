"""What has to hold before caches are merged; each check raises one line that says what to do."""

import os
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

from featlab.cache.errors import CacheError
from featlab.cache.table import closest_names
from featlab.cache.verify import CacheSummary

_SPELLED_OUT = 3


def check_files(paths: Sequence[Path], out: Path) -> None:
    """Raise a CacheError for fewer than two files, one named twice, or an output that is one of them."""
    if len(paths) < 2:
        raise CacheError(f"{', '.join(map(str, paths)) or 'no cache'}: a merge needs two caches or more; name another")
    present = [path for path in paths if path.exists()]
    for one, other in combinations(present, 2):
        if os.path.samefile(one, other):
            raise CacheError(f"{other}: is named twice; name each cache once")
    for path in present:
        if out.exists() and os.path.samefile(path, out):
            raise CacheError(f"{out}: is one of the caches to merge; choose another --out")


def check_free(outputs: Sequence[Path], force: bool) -> None:
    """Raise a CacheError for a file that is there, unless it may be replaced."""
    for path in outputs:
        if path.exists() and not force:
            raise CacheError(f"{path}: exists; --force replaces it, or choose another --out")


def check_alike(summaries: Sequence[CacheSummary]) -> None:
    """Raise a CacheError for caches of two extractors or widths, or of the same rows."""
    first, *others = summaries
    for each in others:
        if each.extractor.fingerprint != first.extractor.fingerprint:
            one, other = (f"{info.id} ({info.fingerprint[:12]})" for info in (first.extractor, each.extractor))
            raise CacheError(
                f"{each.path}: was made by {other}, {first.path} by {one}; features of two extractors never meet, "
                "extract both with one"
            )
        if each.dim != first.dim:
            raise CacheError(
                f"{each.path}: a row has {each.dim} values, one of {first.path} {first.dim}; extract both with the "
                "same options"
            )
    for one_cache, other_cache in combinations(summaries, 2):
        if one_cache.digest == other_cache.digest:
            raise CacheError(f"{other_cache.path}: holds the same rows as {one_cache.path}; name one of them")


def check_renames(rename: Mapping[str, str], summaries: Sequence[CacheSummary]) -> None:
    """Raise a CacheError for a class to rename that no cache has."""
    known = tuple(dict.fromkeys(name for each in summaries for name in each.classes))
    for name in rename:
        if name not in known:
            raise CacheError(f"--rename {name}={rename[name]}: no cache has that class; {closest_names(name, known)}")


def check_disjoint(paths: Sequence[Path], subjects: Sequence[Sequence[str]], prefix: bool) -> None:
    """Raise a CacheError for a subject that two caches have."""
    for (one, mine), (other, theirs) in combinations(zip(paths, subjects, strict=True), 2):
        both = sorted(set(mine) & set(theirs))
        if both:
            help_ = "rename one of the files" if prefix else "--prefix puts the cache's name before every subject"
            raise CacheError(f"{one} and {other}: both have the subject {spelled_few(both)}; {help_}")


def spelled_few(names: Sequence[str]) -> str:
    """Return the first few names, and how many more there are."""
    told = ", ".join(repr(name) for name in names[:_SPELLED_OUT])
    return told + (f" and {len(names) - _SPELLED_OUT} more" if len(names) > _SPELLED_OUT else "")
