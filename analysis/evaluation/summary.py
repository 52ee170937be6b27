"""What an evaluation says, in words: who is above whom, by how much, on how many people, and whether that is noise."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from featlab.analysis.evaluation import competes, method_name, method_setting
from featlab.analysis.table import count_text, p_words
from featlab.evaluation.results import EvaluationRow
from featlab.evaluation.summary import MethodSummary

LEVEL = 0.05  # Largest p value of a difference that is called significant.
_METHOD, _SOURCE, _BASELINES = "pft", "source-only", "Baselines"
_NAMED = 4  # Methods that a sentence about runs names; more of them are counted.

_Spoken = tuple[MethodSummary, str]  # A method, and what it is among those of its kind: nothing where it is alone.


def evaluation_summary(rows: Sequence[EvaluationRow], summaries: Sequence[MethodSummary]) -> tuple[str, ...]:
    """Return what the results say, a sentence each; without `pft` the best source-free method takes its place."""
    if not summaries:
        return (_size(rows),)
    finished = [item for item in summaries if item.subjects]
    words = [_size(rows)]
    if finished:
        words += _comparisons(finished, [item.method for item in summaries])
        words += _small(finished)
        words += _promised(rows, finished)
        words += _shares([row for row in rows if row.share_people])
        collapsed = [(_name(item), item.collapsed, item.runs) for item in finished if item.collapsed]
        one = "predicted one class for every test row"
        words.append(f"Runs that {one}: {_listed(collapsed)}." if collapsed else f"No run {one}.")
    else:
        words.append("Every run failed, so there is no score.")
    failed = [(_name(item), item.failed, item.failed + item.runs) for item in summaries if item.failed]
    words.append(f"Runs that failed, and are in no mean: {_listed(failed)}." if failed else "No run failed.")
    return tuple(words)


def percent(value: float) -> str:
    """Return 78.3 for 0.783."""
    return f"{100 * value:.1f}"


def _name(item: MethodSummary) -> str:
    return method_name(item.method, item.selection)


def _size(rows: Sequence[EvaluationRow]) -> str:
    methods, subjects = ({getattr(row, name) for row in rows} for name in ("method", "subject"))
    draws, seeds = ({getattr(row, name) for row in rows} for name in ("draw", "seed"))
    together = ", adapted to all of them together" if {row.scope for row in rows} == {"dataset"} else ""
    return (
        f"{count_text(len(methods), 'method')} on {count_text(len(subjects), 'target subject')}{together}, "
        f"in {count_text(len(draws), 'draw')} with {count_text(len(seeds), 'seed')}"
        f"{' each' if len(draws) > 1 else ''}: {count_text(len(rows), 'run')}."
    )


def _comparisons(finished: Sequence[MethodSummary], methods: Sequence[str]) -> Iterator[str]:
    """Yield the scores of those who are spoken of, then what each difference is worth."""
    by_name = {item.method: item for item in finished}
    source, pft = by_name.get(_SOURCE), by_name.get(_METHOD)
    oracle = _best([item for item in finished if item.selection == "oracle"], "oracles")
    access = _best([item for item in finished if item.selection == "source-access"], "methods with source rows")
    free = [item for item in finished if competes(item.selection) and item.method not in (_SOURCE, _METHOD)]
    if pft is None:
        method, rivals = _best(free, "methods without source rows"), [access]
    else:
        light = [item for item in free if method_setting(item.method, item.selection) == _BASELINES]
        others = _best([item for item in free if item not in light], "other methods without source rows")
        method, rivals = (pft, ""), [_best(light, "baselines"), others, access]
    spoken = [
        *([(source, "")] if source else []),
        *(each for each in (method, *rivals) if each is not None),
        *([(oracle[0], ", the oracle")] if oracle else []),
    ]
    parts = [f"{_name(item)} {percent(item.macro_f1)}{_interval(item.ci95)}{role}" for item, role in spoken]
    interval = ", with its 95 % interval over target subjects" if any("[" in part for part in parts) else ""
    yield f"Mean macro F1 in percent{interval}: {'; '.join(parts)}."
    missing = [name for name in (_METHOD, _SOURCE) if name not in methods]
    if missing:
        yield f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not among the methods."
    if method is None:
        return
    compared = [_against_source(method[0])] if source else []
    # The summary compares with source-only and with pft, with nobody else; here pft is the subject of the sentence.
    compared += [
        f"{_name(pft)} is {_points(-rival.difference_vs_pft)} {_name(rival)}{role}; {_verdict(rival.p_vs_pft)}."
        for rival, role in filter(None, rivals)
        if pft
    ]
    yield from compared
    if compared:
        yield f"p: Wilcoxon over subjects, Holm-adjusted; below {LEVEL:g} a difference is called significant."
    if oracle:
        yield from _against_oracle(method[0], oracle[0])


def _best(items: Sequence[MethodSummary], kinds: str) -> _Spoken | None:
    """Return the method with the largest mean of several of a kind."""
    if not items:
        return None
    role = f", the largest mean of {len(items)} {kinds}" if len(items) > 1 else ""
    return max(items, key=lambda item: item.macro_f1), role


def _against_source(method: MethodSummary) -> str:
    people = f"{method.wins} of {count_text(method.wins + method.ties + method.losses, 'subject')} gained, "
    people += f"{method.losses} lost" + (f", {method.ties} unchanged" if method.ties else "")
    return (
        f"{_name(method)} is {_points(method.difference_vs_source)} source-only{_interval(method.difference_ci95)}: "
        f"{people}; {_verdict(method.p_vs_source)}."
    )


def _against_oracle(method: MethodSummary, oracle: MethodSummary) -> Iterator[str]:
    if oracle.macro_f1 < method.macro_f1:
        yield (
            f"{_name(oracle)}, the oracle, stays below {_name(method)}: it marks no upper bound here, and “gap closed” "
            "says little."
        )
    elif not math.isnan(method.gap_closed):
        yield (
            f"{_name(method)} closes {method.gap_closed:.2f} of the gap between source-only and the oracle, which has "
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
    return f"the difference is {'significant (' if p < LEVEL else 'within noise (not significant, '}{p_words(p)})"


def _interval(bounds: tuple[float, float]) -> str:
    if any(math.isnan(bound) for bound in bounds):
        return ""
    return f" [{percent(bounds[0])}, {percent(bounds[1])}]"


def _small(finished: Sequence[MethodSummary]) -> Iterator[str]:
    """Say so where no difference could ever be significant."""
    subjects = max(item.subjects for item in finished)
    # Every sign the same: the smallest p that n differences can give.
    least = 2.0 / 2**subjects
    if len(finished) > 1 and least > LEVEL:
        yield (
            f"With {count_text(subjects, 'subject')} the smallest p value that the test can give is "
            f"{min(1.0, least):g}: no difference can be significant."
        )


def _promised(rows: Sequence[EvaluationRow], finished: Sequence[MethodSummary]) -> Iterator[str]:
    """Say what a method knew of its gain before it met a target, and what came of it."""
    for item in finished:
        known = [row.source_gain for row in rows if row.method == item.method and math.isfinite(row.source_gain)]
        if not known:
            continue
        mean, gained = sum(known) / len(known), item.difference_vs_source
        words = (
            f"{_name(item)}: on source people who were held out, adapting gained {100 * mean:+.1f} points of macro F1"
        )
        words += f"; on these subjects {100 * gained:+.1f}" if math.isfinite(gained) else ""
        none = sum(value <= 0 for value in known) / len(known)
        yield f"{words}." + (f" Where it gained nothing there ({none:.0%} of runs) it was not used." if none else "")


def _shares(rows: Sequence[EvaluationRow]) -> list[str]:
    if not rows:
        return []
    from featlab.model.style_bank import CarriedShare, shares_sentence

    shares = [CarriedShare(row.carried_share, row.share_people) for row in rows]
    return [f"Learned on source people: {shares_sentence(shares)}."]


def _listed(many: Sequence[tuple[str, int, int]]) -> str:
    """Return names with their share of runs, the largest share first."""
    ordered = sorted(many, key=lambda item: -item[1] / item[2])
    parts = [f"{name} {number} of {runs}" for name, number, runs in ordered[:_NAMED]]
    rest = ordered[_NAMED:]
    if rest:
        parts.append(f"{count_text(len(rest), 'other method')} together {sum(item[1] for item in rest)}")
    return "; ".join(parts)
