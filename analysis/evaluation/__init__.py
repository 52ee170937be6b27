"""What tables and figures of methods share: how a method is called, who competes, and the notes beneath."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from featlab.analysis.table import MISSING
from featlab.errors import ConfigError, listed
from featlab.evaluation.results import EvaluationRow, failure_reasons
from featlab.methods.registry import Facts, facts_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from featlab.methods.base import Method

_MARKS = {"oracle": " [target labels]", "source-access": " [source access]"}
_SETTINGS = {"oracle": "Oracle", "source-access": "Source access"}
_DAGGER = "\u00a0†"
ACCESS_NOTE = "†\u00a0with\u00a0source\u00a0access"


def rows_by_method(rows: Iterable[EvaluationRow]) -> dict[str, list[EvaluationRow]]:
    """Return method to its rows, in the order in which the methods first appear."""
    groups: dict[str, list[EvaluationRow]] = {}
    for row in rows:
        groups.setdefault(row.method, []).append(row)
    return groups


def method_name(method: str, selection: str) -> str:
    """Return the registry name, as flags take it; what saw labels or source rows is marked."""
    return method if method == "oracle" else method + _MARKS.get(selection, "")


def figure_name(method: str, selection: str) -> str:
    """Return the name in a figure; that of a method with source access ends in a dagger, see `ACCESS_NOTE`."""
    return method + (_DAGGER if selection == "source-access" else "")


def note_access(drawn: Figure, selections: Iterable[str]) -> None:
    """Explain the dagger beneath a figure where a method in it has source access."""
    if "source-access" in selections:
        drawn.supxlabel(ACCESS_NOTE, fontsize=6.5, color="#444444", x=0.01, ha="left")


def method_setting(method: str, selection: str) -> str:
    """Return the group of a method in tables; one that is not installed here is grouped by what it saw."""
    known = _registered(method)
    return known.setting if known else _SETTINGS.get(selection, "Baselines")


def method_title(method: str) -> str:
    """Return what a method is called where it was published; a dash for one that is not installed here."""
    known = _registered(method)
    return known.title if known else MISSING


def by_setting(settings: Mapping[str, str]) -> list[str]:
    """Return the methods with those of one setting together: source-only first, oracles last, else as they came."""
    order = list(dict.fromkeys(settings.values()))
    order.sort(key=lambda setting: {"Source-only": -1, "Oracle": 1}.get(setting, 0))
    return sorted(settings, key=lambda method: order.index(settings[method]))


def competes(selection: str) -> bool:
    """Return whether a method may be the best: not with source rows against those without, nor with target labels."""
    return selection == "source-free"


def best_notes(selections: Iterable[str]) -> list[str]:
    """Return what bold means where some methods with source access stand among the others."""
    if "source-access" not in selections:
        return []
    return ["Bold: the best without source rows; methods with source access and oracles do not compete."]


def scope_notes(scopes: Iterable[str]) -> list[str]:
    """Return what was adapted to, where it isn't one person's neutral clip."""
    if "dataset" not in scopes:
        return []
    return ["Adapted to all target subjects together, every class among their rows."]


def failure_notes(groups: Mapping[str, Sequence[EvaluationRow]]) -> list[str]:
    """Return one note a method and reason: how many runs failed, on whom, and why."""
    notes = []
    for name, rows in groups.items():
        for reason, failed in failure_reasons(rows).items():
            subjects = list(dict.fromkeys(row.subject for row in failed))
            few = f"{len(failed)} of {len(rows)} runs failed ({listed(subjects)})"
            notes.append(f"{name}: {'every run failed' if len(failed) == len(rows) else few}: {reason}")
    return notes


def _registered(method: str) -> Facts | type[Method] | None:
    try:
        return facts_of(method)
    except ConfigError:
        return None
