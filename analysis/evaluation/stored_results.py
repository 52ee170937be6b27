"""Results of an evaluation of before: where they are, what made them, and the names of their classes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from featlab.errors import FeatlabError, InputError
from featlab.evaluation.results import EvaluationRow, read_results
from featlab.workspace.workspace import CONFIG_FILE

RESULTS = "results.jsonl"


@dataclass(frozen=True, eq=False)
class StoredResults:
    """What `featlab.analysis.evaluation.result.evaluation_result` wrote.

    Attributes:
        path: The file of rows.
        rows: Results.
        facts: What made them, see `featlab.evaluation.results.run_facts`; empty where that isn't kept beside them.
    """

    path: Path
    rows: Sequence[EvaluationRow]
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name of the folder that they are in."""
        return self.path.resolve().parent.name


def open_results(root: Path, given: Path | None = None) -> StoredResults:
    """Read results of `featlab evaluate` or `featlab benchmark`."""
    path = newest_results(root) if given is None else given / RESULTS if given.is_dir() else given
    if not path.is_file():
        raise InputError(f"{path}: no results there; give a folder of featlab evaluate or benchmark, or its {RESULTS}")
    rows = read_results(path)
    if not rows:
        raise InputError(f"{path}: holds no results; run the evaluation again")
    return StoredResults(path, rows, _facts(path.parent / "run.json"))


def newest_results(root: Path) -> Path:
    """Return the file of rows that was written last in ``results/`` of a workspace."""
    found = [path for path in (root / "results").glob(f"*/{RESULTS}") if path.is_file()]
    if not found:
        raise InputError(f"{root / 'results'}: no results there; run featlab evaluate first, or name a folder of them")
    return max(found, key=lambda path: (path.stat().st_mtime_ns, path.parent.name))


def class_names(
    stored: StoredResults, count: int, root: Path, cache: Path | None = None
) -> tuple[tuple[str, ...], str]:
    """Return the names of the classes of stored results, and a note if nobody knows them: then they are numbered.

    They are those of a cache that was named; else of the table of classes beside the results; else of the workspace's
    cache, if it is the one that the results were made from.
    """
    if cache is not None:
        names, _ = _cache_classes(cache)
        if len(names) != count:
            raise InputError(
                f"{cache} has {len(names)} classes, the results {count}; name the cache they were made from"
            )
        return names, ""
    names = _table_classes(stored.path.parent / "table_classes.jsonl") or _workspace_classes(stored, root)
    if len(names) == count:
        return names, ""
    numbered = tuple(f"Class {number}" for number in range(1, count + 1))
    return numbered, "the classes are numbered: nothing beside the results names them (--cache does)"


def _facts(path: Path) -> Mapping[str, Any]:
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: can't be read; delete it, or run the evaluation again") from error
    return facts if isinstance(facts, dict) else {}


def _table_classes(path: Path) -> tuple[str, ...]:
    """Return the columns between the method and the average, see `featlab.analysis.evaluation.tables`."""
    try:
        first = json.loads(path.read_text(encoding="utf-8").partition("\n")[0])
    except (OSError, ValueError):
        return ()
    return tuple(first)[1:-1] if isinstance(first, dict) else ()


def _workspace_classes(stored: StoredResults, root: Path) -> tuple[str, ...]:
    from featlab.config.load import load_config

    try:
        names, digest = _cache_classes(root / load_config(root / CONFIG_FILE).cache)
    except FeatlabError:
        return ()
    return names if digest == stored.facts.get("cache_digest") else ()


def _cache_classes(path: Path) -> tuple[tuple[str, ...], str]:
    from featlab.cache.reader import open_cache

    with open_cache(path) as cache:
        return tuple(cache.classes), cache.digest
