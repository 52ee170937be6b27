"""What a backbone file says about itself, without its weights."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

from featlab.errors import InputError

__all__ = ["read_card", "read_meta"]


def read_meta(path: Path) -> dict[str, Any]:
    """Return the content of ``featlab.json`` in a ``.pt2`` file.

    Raises:
        InputError: No such file, not a ``.pt2``, or one without ``featlab.json``.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            # The archive's one folder is named by torch, and where extra files lie depends on its version.
            names = [name for name in archive.namelist() if name.rpartition("/")[2] == "featlab.json"]
            if not names:
                raise InputError(f"{path} has no featlab.json: it wasn't written by `featlab backbone train`")
            content = json.loads(archive.read(names[0]).decode("utf-8"))
    except (OSError, zipfile.BadZipFile, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} can't be read as a .pt2 file ({' '.join(str(error).split())})") from error
    if not isinstance(content, dict) or content.get("format") != "featlab-backbone":
        raise InputError(f"{path}: its featlab.json describes no backbone")
    return content


def read_card(path: Path) -> dict[str, Any]:
    """Return the card of a backbone file: people, classes, scores, as whoever made it wrote them.

    Raises:
        InputError: As `read_meta`.
    """
    card = read_meta(path).get("card", {})
    return dict(card) if isinstance(card, dict) else {}
