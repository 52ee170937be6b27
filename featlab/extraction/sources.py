"""Where the images come from: a manifest or a folder."""

from __future__ import annotations

from pathlib import Path

from featlab.errors import InputError
from featlab.extraction.folders import EXPECTED, read_folder
from featlab.extraction.items import Item, classes_of, names_by_row
from featlab.extraction.manifest import read_manifest

__all__ = ["Item", "classes_of", "names_by_row", "read_source"]


def read_source(source: Path) -> list[Item]:
    """List the images of a manifest (``.csv``) or of a folder laid out subject/label/[video/]image.

    Args:
        source: The manifest, or the folder.

    Returns:
        The items, sorted by subject, video and frame; at least one.

    Raises:
        InputError: Nothing is there, or it is neither of the two, or it doesn't fit; one line.
    """
    if source.is_dir():
        return read_folder(source)
    if not source.exists():
        raise InputError(f"{source}: no such file or folder")
    if source.suffix.lower() != ".csv":
        raise InputError(f"{source}: expected a manifest (.csv with path,subject,...) or a folder laid out {EXPECTED}")
    return read_manifest(source)
