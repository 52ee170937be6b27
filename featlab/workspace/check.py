"""Every file that featlab wrote, checked against the digest in it or beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from featlab.bundle.files import check_own_digest
from featlab.cache.sums import SIDECAR, SUMS, damages, read_sums
from featlab.cache.verify import verify_cache
from featlab.errors import FeatlabError, InputError


@dataclass(frozen=True)
class Checked:
    """What a check found."""

    damages: tuple[str, ...]  # A line a damaged or missing file.
    whole: int  # Files that are as they were written.
    without: tuple[Path, ...]  # Files that no digest covers: what users wrote, or an older featlab.


def check_files(path: Path) -> Checked:
    """Check a file, or all of a folder: caches, bundles, stages, adaptations, runs, results and exports.

    Raises:
        InputError: Nothing there, or nothing that can be looked at.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file or folder; name what featlab wrote")
    files = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
    # Shards and drafts are of a run that goes on, or that the next one finishes.
    files = [each for each in files if not any(name.endswith((".shards", ".partial")) for name in each.parts)]
    sums = [each for each in files if each.name == SUMS or each.suffix == SIDECAR]
    if path.is_file():
        sums += [each for each in (path.with_name(path.name + SIDECAR), path.with_name(SUMS)) if each.exists()]
    covered = {each.with_name(name) for each in sums for name in read_sums(each)} | set(sums)
    found = {place: line for each in sums for place, line in damages(each) if path.is_dir() or place in (path, each)}
    without = []
    for each in files:
        if each not in covered:
            try:
                if not (_check_cache(each) if each.suffix == ".h5" else check_own_digest(each)):
                    without.append(each)
            except (FeatlabError, OSError, ValueError) as error:
                found[each] = str(error) if str(each) in str(error) else f"{each}: damaged ({error})"
    return Checked(tuple(found.values()), len(set(files) - set(found) - set(without)), tuple(without))


def _check_cache(path: Path) -> bool:
    if problems := verify_cache(path):
        raise InputError(problems[0])
    return True
