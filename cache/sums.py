"""Digests of files beside them, in the format of `sha256sum`: `SHA256SUMS` for a folder, `<name>.sha256` for one file.

`sha256sum -c SHA256SUMS` checks them without featlab. They find damage and files of different runs; they are no
signature: whoever changes a file on purpose can change its line, too.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

SUMS = "SHA256SUMS"
SIDECAR = ".sha256"
_OTHER = "damaged: its content is not what was written"


def sums_of(paths: Iterable[Path]) -> str:
    """Return the text of a file of sums, a line a file."""
    return "".join(f"{sum_of(path)}  {path.name}\n" for path in paths)


def sum_of(path: Path) -> str:
    """Return the sha256 (64 hex digits) of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_sums(path: Path) -> dict[str, str]:
    """Return name to sum of a file of sums."""
    lines = path.read_text("utf-8", errors="replace").splitlines()
    # No line leads out of the folder.
    return {os.path.basename(name) or "?": digest for digest, _, name in (line.partition("  ") for line in lines)}


def damages(sums: Path) -> list[tuple[Path, str]]:
    """Return the files of a file of sums that are missing or have other content, and what to say of each."""
    found = []
    for name, digest in read_sums(sums).items():
        path = sums.with_name(name)
        if not path.is_file():
            found.append((path, f"{path}: is missing, and {sums.name} has a digest of it"))
        elif sum_of(path) != digest:
            found.append((path, f"{path}: {_OTHER} (its digest in {sums.name} doesn't fit)"))
    return found


def check_sum(path: Path, error: type[Exception]) -> None:
    """Raise an ``error`` where the file's folder has sums, and not this one; an older featlab wrote none.

    Raises:
        OSError: It can't be read.
    """
    sums = path.with_name(SUMS)
    if sums.exists() and read_sums(sums).get(path.name) != sum_of(path):
        raise error(f"{path}: {_OTHER} (its digest in {SUMS} doesn't fit); run the command again that wrote it")


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
