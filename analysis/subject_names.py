"""Subjects in names of files and in sentences: any name in a cache, also one that no file can have."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from featlab.adaptation_files import adaptation_folder
from featlab.seeding import stable_hash

__all__ = ["folder_name", "safe_name"]


def safe_name(subject: str) -> str:
    """Return a subject's name, or a hash where it is no safe name of a file."""
    return adaptation_folder(Path(), subject).name


def folder_name(command: str, subjects: Sequence[str]) -> str:
    """Return the folder of a command's results on some subjects: the same subjects give the same.

    Args:
        command: What it begins with, e.g. ``plot-tsne``.
        subjects: One or more.
    """
    if len(subjects) == 1:
        return f"{command}-{safe_name(subjects[0])}"
    return f"{command}-{len(subjects)}-targets-{stable_hash(*sorted(subjects))[:8]}"
