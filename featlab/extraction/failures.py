"""What could not be embedded, and the list of it beside the cache."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from featlab.cache import atomic_write_text
from featlab.errors import InputError


@dataclass(frozen=True)
class Failure:
    """One image that has no row in the cache.

    Attributes:
        path: The image's name as the source writes it.
        reason: Why, in a few words.
    """

    path: str
    reason: str


def failures_path(out: Path) -> Path:
    """Where the failures of a cache are listed: ``cache.h5`` -> ``cache.failures.jsonl``."""
    return out.with_name(f"{out.stem}.failures.jsonl")


def write_failures(out: Path, failures: Sequence[Failure]) -> None:
    """List the failures beside the cache; see `write_list`."""
    write_list(failures_path(out), failures)


def write_list(path: Path, failures: Sequence[Failure]) -> None:
    """Write failures, one JSON object a line; without any, remove an earlier list."""
    if not failures:
        path.unlink(missing_ok=True)
        return
    lines = [json.dumps(asdict(failure), ensure_ascii=False) for failure in failures]
    atomic_write_text(path, "\n".join(lines) + "\n")


def read_failures(out: Path) -> tuple[Failure, ...]:
    """Read the list beside a cache; empty when there is none.

    Raises:
        InputError: The file isn't such a list.
    """
    path = failures_path(out)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        entries = [json.loads(line) for line in lines]
        return tuple(Failure(str(entry["path"]), str(entry["reason"])) for entry in entries)
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{path} isn't a list of failures; remove it") from None
