"""Text files that people bring: how they are found and read, and the words in them that stand for nothing."""

from __future__ import annotations

import re
from pathlib import Path
from unicodedata import normalize

from featlab.errors import InputError

# As pandas, R, MATLAB, Excel, SPSS, Stata and the C libraries of Windows and Linux print what is missing.
MISSING = (
    r"(?i)^(?:|[.?]|--?|<?n/?\.?a\.?>?|nat|null|none|nil|missing|find_failed|[+-]?nan(?:\(\w*\))?"
    r"|[+-]?1\.#(?:ind|[qs]nan)\w*|#(?:n/?a(?: n/a)?|num!|value!|div/0!|null!|ref!|name\?))$"
)
_MISSES = re.compile(MISSING)


def is_missing(text: str) -> bool:
    """Whether a cell says that there is nothing: empty, NA, nan, -nan(ind), None, #N/A, FIND_FAILED, …"""
    return _MISSES.match(text.strip()) is not None


def file_in(folder: Path, name: str) -> Path:
    """Return where a file of that name is, in whichever Unicode form its own name is."""
    path = folder / name
    if name.isascii() or path.exists():
        return path
    others = (folder / normalize(form, name) for form in ("NFC", "NFD"))
    return next((other for other in others if other.exists()), path)


def read_text(path: Path) -> str:
    """Read a text file, UTF-8 with or without a byte order mark."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path} isn't UTF-8 text (byte {error.start})") from None
    if "\0" in text:
        raise InputError(f"{path} has NUL characters, so it isn't a text file")
    return text


def read_lines(path: Path) -> list[tuple[int, str]]:
    """Return the lines that aren't empty, each with its number from 1."""
    lines = [(number, line.strip()) for number, line in enumerate(read_text(path).split("\n"), 1)]
    filled = [(number, line) for number, line in lines if line]
    if not filled:
        raise InputError(f"{path} is empty")
    return filled
