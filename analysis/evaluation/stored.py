"""Results of an evaluation read again: its rows, its classes, and all of it where nothing is left to do."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from featlab.analysis.page import Result, figure_endings, read_page, read_table
from featlab.cache.atomic import SUMS, check_sum, damages, read_sums
from featlab.errors import InputError
from featlab.evaluation.results import EvaluationRow, read_results
from featlab.evaluation.summary import MethodSummary, summarise

_WIDEST = 6  # Target subjects up to which the per-subject table is printed; the file has it always.
RESULTS = "results.jsonl"


@dataclass(frozen=True, eq=False)
class StoredResults:
    """What `featlab.analysis.evaluation.result.evaluation_result` wrote."""

    path: Path  # The file of rows.
    rows: Sequence[EvaluationRow]  # Results.
    # What made them, see `featlab.evaluation.results.run_facts`; empty where that isn't kept beside them.
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name of the folder that they are in."""
        return self.path.resolve().parent.name


def open_results(root: Path, given: Path | None = None) -> StoredResults:
    """Read results of `featlab evaluate` or `featlab benchmark`; by default those that were written last."""
    if given is None:
        found = [path for path in (root / "results").glob(f"*/{RESULTS}") if path.is_file()]
        if not found:
            where = root / "results"
            raise InputError(f"{where}: no results there; run featlab evaluate first, or name a folder of them")
        path = max(found, key=lambda path: (path.stat().st_mtime_ns, path.parent.name))
    else:
        path = given / RESULTS if given.is_dir() else given
    if not path.is_file():
        raise InputError(f"{path}: no results there; give a folder of featlab evaluate or benchmark, or its {RESULTS}")
    check_sum(path, InputError)
    rows = read_results(path)
    if not rows:
        raise InputError(f"{path}: holds no results; run the evaluation again")
    return StoredResults(path, rows, _facts(path.parent / "run.json"))


def class_names(stored: StoredResults, count: int) -> tuple[tuple[str, ...], str]:
    """Return the classes' names, as the table of classes beside the results has them; else numbers, and a note."""
    path = stored.path.parent / "table_classes.jsonl"
    if path.is_file():
        check_sum(path, InputError)
        # The columns between the method and the average.
        names = tuple(json.loads(path.read_text(encoding="utf-8").partition("\n")[0]))[1:-1]
        if len(names) == count:
            return names, ""
    numbered = tuple(f"Class {number}" for number in range(1, count + 1))
    return numbered, "the classes are numbered: no table beside the results names them"


def _facts(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        return {}
    check_sum(path, InputError)
    try:
        facts: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: can't be read; delete it, or run the evaluation again") from error
    return facts


def printed_tables(rows: Sequence[EvaluationRow], kind: str, tables: Collection[str]) -> list[str]:
    """Return the names of the tables that a terminal shows."""
    few = len({row.draw for row in rows}) == 1 and len({row.subject for row in rows}) <= _WIDEST
    names = [*(["subjects"] if few else []), *(["classes", "costs"] if kind == "benchmark" else []), "summary"]
    return [name for name in names if name in tables]


def evaluation_data(rows: Sequence[EvaluationRow], summaries: Sequence[MethodSummary]) -> dict[str, Any]:
    """Return what ``--json`` prints of an evaluation's rows."""
    return {"results": [row.to_dict() for row in rows], "summary": [item.to_dict() for item in summaries]}


def read_finished(
    folder: Path, facts: Mapping[str, Any], runs: int, *, plots: bool
) -> tuple[Result, list[Path]] | None:
    """Return result and files of an evaluation of the very same ``facts``, if no run and no file of it is missing."""
    try:
        page, rows = read_page(folder), read_results(folder / RESULTS)
        tables = {name: read_table(folder, name) for name in page.tables}
    except InputError:
        return None
    names = read_sums(folder / SUMS) if (folder / SUMS).is_file() else {}
    drawn = {f"{figure.name}.{ending}" for figure in page.figures for ending in figure_endings(facts)}
    same = page.metadata == json.loads(json.dumps(facts)) and bool(page.figures) >= plots and drawn <= names.keys()
    if not same or not names or any(damages(folder / SUMS)) or len(rows) != runs or any(row.error for row in rows):
        return None
    printed = printed_tables(rows, page.kind, tables)
    data = evaluation_data(rows, summarise(rows))
    result = Result(page.kind, page.title, page.summary, tables, metadata=facts, data=data, printed=printed)
    return result, [folder / name for name in (*names, SUMS)]
