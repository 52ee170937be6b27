"""Every file that featlab wrote, checked against the digest in it or beside it."""

from __future__ import annotations

import os
from pathlib import Path

from featlab.bundle.files import check_own_digest
from featlab.cache.atomic import SIDECAR, SUMS, damages, read_sums
from featlab.cache.verify import verify_cache
from featlab.errors import FeatlabError


def check_files(path: Path) -> tuple[list[str], list[str]]:
    """Check a file, or all of a folder: caches, bundles, stages, adaptations, runs, results and exports.

    Returns:
        A line for each damaged or missing file, and the files that no digest covers: what users or an older featlab
        wrote.
    """
    files = files_in(path) if path.is_dir() else [path]
    # Shards and drafts are of a run that goes on, or that the next one finishes.
    ours = (".shards", ".partial")
    files = [each for each in files if not any(name.endswith(ours) for name in each.relative_to(path).parts)]
    sums = [each for each in files if each.name == SUMS or each.suffix == SIDECAR]
    if path.is_file():
        sums += [each for each in (path.with_name(path.name + SIDECAR), path.with_name(SUMS)) if each.exists()]
    covered = {each.with_name(name) for each in sums for name in read_sums(each)} | set(sums)
    found = {place: line for each in sums for place, line in damages(each) if path.is_dir() or place in (path, each)}
    without = []
    for each in files:
        if each in covered:
            continue
        try:
            if each.suffix == ".h5":
                if problems := verify_cache(each):
                    found[each] = problems[0]
            elif not check_own_digest(each):
                without.append(each)
        except (FeatlabError, OSError, ValueError) as error:
            found[each] = str(error) if str(each) in str(error) else f"{each}: damaged ({error})"
    return [*found.values()], [*map(str, without)]


def files_in(folder: Path) -> list[Path]:
    """Return all files in a folder, sorted, also where links lead."""
    found, seen = [], set()
    for top, folders, names in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(top)) in seen:
            folders.clear()
            continue
        seen.add(real)
        found += [path for name in names if (path := Path(top, name)).is_file()]
    return sorted(found)
