"""Every error that featlab raises on purpose; the CLI prints its one line and exits with 2."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence

# Control characters, ends of lines and paragraphs, signs that turn the direction of what follows, halves of letters.
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""What no name has: a terminal would obey it, and a table be torn apart."""


class FeatlabError(Exception):
    """Something that the user can act on: the message is one line that says what, where and what to do."""


class CacheError(FeatlabError, ValueError):
    """A cache file that can't be trusted or written; names the file, the dataset and what to do."""


class UnreadableError(FeatlabError):
    """The system doesn't let the file be read (rights, drive, too many open files); nothing says it is damaged."""

    def __init__(self, path: object, part: str, reason: str) -> None:
        super().__init__(
            f"{path}: {part}can't be read ({reason}); the file itself may be sound: see to its rights and its drive, "
            "then try again"
        )


class InputError(FeatlabError, ValueError):
    """Bad input: a missing file, an unknown subject, rows that don't fit the task."""


class UnfinishedError(InputError):
    """Some runs are there, and others belong to other shares."""


class ConfigError(FeatlabError, ValueError):
    """A configuration value or key that doesn't exist or doesn't fit."""


class BundleError(FeatlabError, ValueError):
    """A model bundle that can't be read, or that was made for other features."""


def closest(name: str, known: Iterable[str], limit: int = 3) -> str:
    """Return ``"; did you mean 'a' or 'b'?"`` for the known names nearest to ``name``, or an empty string."""
    matches = difflib.get_close_matches(name, list(known), n=limit, cutoff=0.5)
    if not matches:
        return ""
    return "; did you mean " + " or ".join(repr(match) for match in matches) + "?"


def one_line(error: BaseException, limit: int = 200) -> str:
    """Return what a library's error says, without its line breaks and not too long."""
    text = " ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 1] + "…"


def listed(names: Sequence[str], most: int = 6) -> str:
    """Return names with commas; of many the first ones and how many more."""
    shown = (name if name.isprintable() else repr(name)[1:-1] for name in names[:most])
    return ", ".join(shown) + (f" and {len(names) - most} more" if len(names) > most else "")
