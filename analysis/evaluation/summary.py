"""What an evaluation says, in words: who is above whom, by how much, on how many people, and whether that is noise."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from featlab.analysis.evaluation.methods import competes, method_name, method_setting
from featlab.analysis.table import count_text
from featlab.evaluation.results import EvaluationRow
from featlab.evaluation.summary import MethodSummary

LEVEL = 0.05  # Largest p value of a difference that is called significant.
_METHOD, _SOURCE, _BASELINES = "pft", "source-only", "Baselines"
_NAMED = 4  # Methods that a sentence about runs names; more of them are counted.


def evaluation_summary(rows: Sequence[EvaluationRow], summaries: Sequence[MethodSummary]) -> tuple[str, ...]:
    """Return what the results say, a sentence each; without `pft` the best source-free method takes its place."""
    named = [_Named(item) for item in summaries]
    finished = [item for item in named if item.of.subjects]
    words = [_size(rows)]
    if finished:
        words += _comparisons(_Cast.of(finished), [item.of.method for item in named])
        words += _small(finished)
        words += _promised(rows, finished)
        words += _shares([row for row in rows if row.share_people])
    elif named:
        words.append("Every run failed, so there is no score.")
    return (*words, *_collapsed(finished), *_failed(named)) if named else tuple(words)


def percent(value: float) -> str:
    """Return 78.3 for 0.783."""
    return f"{100 * value:.1f}"


def score_words(item: MethodSummary) -> str:
    """Return the mean macro F1 in percent with its interval: ``78.3 [70.1, 81.5]``; one subject has none."""
    return f"{percent(item.macro_f1)}{_interval(item.ci95)}"


@dataclass(frozen=True)
class _Named:
    """A summary, and how its method is called."""

    of: MethodSummary

    @property
    def name(self) -> str:
        return method_name(self.of.method, self.of.selection)

    @property
    def is_baseline(self) -> bool:
        return method_setting(self.of.method, self.of.selection) == _BASELINES


@dataclass(frozen=True)
class _Best:
    """The method with the largest mean of several."""

    item: _Named  # Which.
    kinds: str  # What they are.
    number: int  # How many.

    @property
    def role(self) -> str:
        """Return what it is among them, as an apposition; empty where it is alone."""
        return f", the largest mean of {self.number} {self.kinds}" if self.number > 1 else ""


@dataclass(frozen=True)
class _Cast:
    """Who is spoken of; ``None`` for who is not there."""

    source: _Named | None  # The source model.
    method: _Best | None  # `pft`, or who takes its place.
    rivals: tuple[_Best, ...]  # The best of the other kinds of methods.
    oracle: _Named | None  # Who has seen labels of the same person.

    @classmethod
    def of(cls, finished: Sequence[_Named]) -> _Cast:
        by_name = {item.of.method: item for item in finished}
        source, pft = by_name.get(_SOURCE), by_name.get(_METHOD)
        free = [item for item in finished if competes(item.of.selection) and item not in (source, pft)]
        access = _best([item for item in finished if item.of.selection == "source-access"], "methods with source rows")
        oracle = _best([item for item in finished if item.of.selection == "oracle"], "oracles")
        if pft is None:
            method = _best(free, "methods without source rows")
            kinds: tuple[_Best | None, ...] = (access,)
        else:
            light = [item for item in free if item.is_baseline]
            others = [item for item in free if not item.is_baseline]
            method = _Best(pft, "methods", 1)
            kinds = (_best(light, "baselines"), _best(others, "other methods without source rows"), access)
        return cls(source, method, tuple(kind for kind in kinds if kind), oracle.item if oracle else None)


def _best(items: Sequence[_Named], kinds: str) -> _Best | None:
    return _Best(max(items, key=lambda item: item.of.macro_f1), kinds, len(items)) if items else None


def _size(rows: Sequence[EvaluationRow]) -> str:
    methods, subjects = ({getattr(row, name) for row in rows} for name in ("method", "subject"))
    draws, seeds = ({getattr(row, name) for row in rows} for name in ("draw", "seed"))
    together = ", adapted to all of them together" if {row.scope for row in rows} == {"dataset"} else ""
    return (
        f"{count_text(len(methods), 'method')} on {count_text(len(subjects), 'target subject')}{together}, "
        f"in {count_text(len(draws), 'draw')} with {count_text(len(seeds), 'seed')}"
        f"{' each' if len(draws) > 1 else ''}: {count_text(len(rows), 'run')}."
    )


def _comparisons(cast: _Cast, methods: Sequence[str]) -> Iterable[str]:
    """Return the scores, then what each difference is worth."""
    yield _scores(cast)
    missing = [name for name in (_METHOD, _SOURCE) if name not in methods]
    if missing:
        yield f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not among the methods."
    if cast.method is None:
        return
    method = cast.method.item
    compared = [_against_source(method)] if cast.source is not None else []
    # The summary compares with source-only and with pft, with nobody else.
    if method.of.method == _METHOD:
        compared += [_against_rival(method, rival) for rival in cast.rivals]
    yield from compared
    if compared:
        yield f"p: Wilcoxon over subjects, Holm-adjusted; below {LEVEL:g} a difference is called significant."
    if cast.oracle is not None:
        yield from _against_oracle(method, cast.oracle)


def _scores(cast: _Cast) -> str:
    def shown(item: _Named, role: str = "") -> str:
        return f"{item.name} {score_words(item.of)}{role}"

    parts = [shown(cast.source)] if cast.source else []
    parts += [shown(best.item, best.role) for best in (cast.method, *cast.rivals) if best is not None]
    parts += [shown(cast.oracle, ", the oracle")] if cast.oracle else []
    interval = ", with its 95 % interval over target subjects" if any("[" in part for part in parts) else ""
    return f"Mean macro F1 in percent{interval}: {'; '.join(parts)}."


def _against_source(method: _Named) -> str:
    of = method.of
    people = f"{of.wins} of {count_text(of.wins + of.ties + of.losses, 'subject')} gained, {of.losses} lost"
    people += f", {of.ties} unchanged" if of.ties else ""
    return (
        f"{method.name} is {_points(of.difference_vs_source)} source-only{_interval(of.difference_ci95)}: {people}; "
        f"{_verdict(of.p_vs_source)}."
    )


def _against_rival(method: _Named, rival: _Best) -> str:
    # The summary has the rival's difference to pft; here pft is the subject of the sentence.
    difference, p = -rival.item.of.difference_vs_pft, rival.item.of.p_vs_pft
    return f"{method.name} is {_points(difference)} {rival.item.name}{rival.role}; {_verdict(p)}."


def _against_oracle(method: _Named, oracle: _Named) -> Iterable[str]:
    if oracle.of.macro_f1 < method.of.macro_f1:
        yield (
            f"{oracle.name}, the oracle, stays below {method.name}: it marks no upper bound here, and “gap closed” "
            "says little."
        )
    elif not math.isnan(method.of.gap_closed):
        yield (
            f"{method.name} closes {method.of.gap_closed:.2f} of the gap between source-only and the oracle, which has "
            "seen labels of the same people."
        )


def _points(difference: float) -> str:
    """Return how far one is from the other: as far apart as the tables show it, one decimal."""
    if math.isnan(difference):
        return "not to be compared, for want of a common subject, with"
    size = f"{abs(100 * difference):.1f}"
    if size == "0.0":
        return "less than 0.05 points from"
    return f"{size} points {'above' if difference > 0 else 'below'}"


def _verdict(p: float) -> str:
    if math.isnan(p):
        return "no test could be made"
    shown = "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
    return f"the difference is {'significant (' if p < LEVEL else 'within noise (not significant, '}{shown})"


def _interval(bounds: tuple[float, float]) -> str:
    if any(math.isnan(bound) for bound in bounds):
        return ""
    return f" [{percent(bounds[0])}, {percent(bounds[1])}]"


def _small(finished: Sequence[_Named]) -> Iterable[str]:
    """Say so where no difference could ever be significant."""
    subjects = max(item.of.subjects for item in finished)
    # Every sign the same: the smallest p that n differences can give.
    least = 2.0 / 2**subjects
    if len(finished) > 1 and least > LEVEL:
        yield (
            f"With {count_text(subjects, 'subject')} the smallest p value that the test can give is "
            f"{min(1.0, least):g}: no difference can be significant."
        )


def _promised(rows: Sequence[EvaluationRow], finished: Sequence[_Named]) -> Iterable[str]:
    """Say what a method knew of its gain before it met a target, and what came of it."""
    for item in finished:
        known = [row.source_gain for row in rows if row.method == item.of.method and math.isfinite(row.source_gain)]
        if not known:
            continue
        mean, gained = sum(known) / len(known), item.of.difference_vs_source
        words = f"{item.name}: on source people who were held out, adapting gained {100 * mean:+.1f} points of macro F1"
        words += f"; on these subjects {100 * gained:+.1f}" if math.isfinite(gained) else ""
        none = sum(value <= 0 for value in known) / len(known)
        yield f"{words}." + (f" Where it gained nothing there ({none:.0%} of runs) it was not used." if none else "")


def _shares(rows: Sequence[EvaluationRow]) -> list[str]:
    if not rows:
        return []
    from featlab.model.style_bank import CarriedShare, shares_sentence

    shares = [CarriedShare(row.carried_share, row.share_people) for row in rows]
    return [f"Learned on source people: {shares_sentence(shares)}."]


def _collapsed(finished: Sequence[_Named]) -> Iterable[str]:
    many = [(item.name, item.of.collapsed, item.of.runs) for item in finished if item.of.collapsed]
    if many:
        yield f"Runs that predicted one class for every test row: {_listed(many)}."
    elif finished:
        yield "No run predicted one class for every test row."


def _failed(named: Sequence[_Named]) -> Iterable[str]:
    many = [(item.name, item.of.failed, item.of.failed + item.of.runs) for item in named if item.of.failed]
    yield f"Runs that failed, and are in no mean: {_listed(many)}." if many else "No run failed."


def _listed(many: Sequence[tuple[str, int, int]]) -> str:
    """Return names with their share of runs, the largest share first."""
    ordered = sorted(many, key=lambda item: -item[1] / item[2])
    parts = [f"{name} {number} of {runs}" for name, number, runs in ordered[:_NAMED]]
    rest = ordered[_NAMED:]
    if rest:
        parts.append(f"{count_text(len(rest), 'other method')} together {sum(item[1] for item in rest)}")
    return "; ".join(parts)
