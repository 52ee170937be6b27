import json

import numpy as np
import pytest
from scipy import stats

from featlab.errors import InputError
from featlab.evaluation.results import (
    EvaluationRow,
    common_subject_means,
    pooled_reliability,
    shared_scores,
    subject_means,
)
from featlab.evaluation.statistics import bootstrap_interval, holm, wilcoxon
from featlab.evaluation.summary import summarise


def row(method, subject, score, *, draw=0, seed=0, selection="source-free", **changes):
    """A finished run with one value for all scores."""
    who = {"method": method, "subject": subject, "draw": draw, "seed": seed, "selection": selection}
    scores = dict.fromkeys(("macro_f1", "accuracy", "balanced_accuracy", "neutral_recall", "non_neutral_recall"), score)
    counts = {"histogram": (5, 5), "frames": 10, "adapt_frames": 4, "seconds": 1.0, "iterations": 10, "trainable": 100}
    return EvaluationRow(**(who | scores | counts | {"macro_f1_all": score / 2} | changes))


def failed(method, subject, **changes):
    return row(method, subject, float("nan"), error="needs a style bank", **changes)


def named(rows):
    return {summary.method: summary for summary in summarise(rows)}


def rows_of(method, scores, **changes):
    return [row(method, f"s{number:02d}", score, **changes) for number, score in enumerate(scores)]


SOURCE = [0.60, 0.55, 0.70, 0.65, 0.40, 0.52, 0.61, 0.58, 0.47, 0.66]
BETTER = [0.70, 0.66, 0.82, 0.78, 0.54, 0.67, 0.77, 0.75, 0.65, 0.60]
WORSE = [0.55, 0.56, 0.60, 0.58, 0.40, 0.50, 0.50, 0.49, 0.41, 0.59]
ORACLE = [0.90] * 10
TABLE = (
    rows_of("source-only", SOURCE)
    + rows_of("pft", BETTER)
    + rows_of("shot", WORSE)
    + rows_of("oracle", ORACLE, selection="oracle")
)


def test_methods_come_in_input_order_and_are_compared_with_source_only_over_subjects():
    summary = named(TABLE)
    assert list(summary) == ["source-only", "pft", "shot", "oracle"]
    pft, shot = summary["pft"], summary["shot"]
    assert pft.subjects == pft.runs == 10
    assert pft.macro_f1 == pytest.approx(np.mean(BETTER))
    assert pft.sd == pytest.approx(np.std(BETTER, ddof=1))
    assert pft.ci95 == bootstrap_interval(BETTER)
    assert pft.macro_f1_all == pytest.approx(np.mean(BETTER) / 2)
    assert (pft.seconds, pft.iterations, pft.trainable) == (1.0, 10.0, 100.0)
    difference = np.subtract(BETTER, SOURCE)
    assert pft.difference_vs_source == pytest.approx(difference.mean())
    assert pft.difference_ci95 == pytest.approx(bootstrap_interval(difference))
    assert (pft.wins, pft.ties, pft.losses, pft.negative_transfer) == (9, 0, 1, 1)
    assert (shot.wins, shot.ties, shot.losses) == (1, 1, 8)
    # The gap is taken between means.
    assert pft.gap_closed == pytest.approx(difference.mean() / (0.9 - np.mean(SOURCE)))
    assert (summary["source-only"].gap_closed, summary["oracle"].gap_closed) == (0, pytest.approx(1))
    # Holm runs over the methods but the one compared with and the oracle.
    scores = {"source-only": SOURCE, "pft": BETTER, "shot": WORSE}
    for name, field in (("source-only", "p_vs_source"), ("pft", "p_vs_pft")):
        others = [other for other in scores if other != name]
        expected = holm([wilcoxon(np.subtract(scores[other], scores[name])) for other in others])
        assert [getattr(summary[other], field) for other in others] == pytest.approx(expected)
        assert np.isnan([getattr(summary[other], field) for other in (name, "oracle")]).all()
    assert shot.difference_vs_pft == pytest.approx(np.mean(WORSE) - np.mean(BETTER))
    # Nothing is compared with what isn't there.
    alone = summarise([row("shot", "a", 0.5), row("shot", "b", 0.6)])[0]
    assert alone.negative_transfer is None
    assert np.isnan([alone.gap_closed, alone.p_vs_source, alone.difference_vs_source, alone.p_vs_pft]).all()


def test_seeds_and_draws_are_averaged_within_a_subject_and_smoothed_scores_of_their_own():
    rows = [
        row("pft", "a", score, draw=draw, seed=seed) for draw, seed, score in [(0, 0, 0.2), (0, 1, 0.4), (1, 0, 0.9)]
    ]
    rows.append(row("pft", "b", 0.0))
    assert subject_means(rows) == pytest.approx({"a": 0.6, "b": 0.0})
    (summary,) = summarise(rows)
    assert summary.macro_f1 == pytest.approx(0.3)
    rows = [row("pft", f"s{n}", 0.5, macro_f1_smoothed=score) for n, score in enumerate(BETTER)]
    rows.append(row("pft", "s0", 0.5, seed=1, macro_f1_smoothed=BETTER[0] + 0.2))
    expected = [BETTER[0] + 0.1, *BETTER[1:]]
    (summary,) = summarise(rows)
    assert summary.macro_f1_smoothed == pytest.approx(np.mean(expected))
    assert summary.ci95_smoothed == pytest.approx(bootstrap_interval(expected))
    assert summary.macro_f1 == 0.5


def test_comparisons_use_only_the_subjects_and_draws_that_both_have():
    rows = [row("source-only", "a", 0.5), row("source-only", "b", 0.1), row("source-only", "a", 0.9, draw=1)]
    rows += [row("pft", "a", 0.6), row("pft", "c", 0.0), row("oracle", "a", 0.7, selection="oracle")]
    pft = named(rows)["pft"]
    assert pft.subjects == 2
    assert pft.macro_f1 == pytest.approx(0.3)
    assert pft.difference_vs_source == pytest.approx(0.1)
    assert pft.gap_closed == pytest.approx(0.5)
    assert (pft.wins, pft.ties, pft.losses) == (1, 0, 0)


def test_failed_and_collapsed_runs_are_counted_and_failed_ones_are_in_no_mean():
    rows = [row("pft", "a", 0.5, collapsed=True), failed("pft", "b"), failed("pft", "a"), row("source-only", "a", 0.4)]
    summary = named([*rows, failed("shot", "a")])
    pft, shot = summary["pft"], summary["shot"]
    assert (pft.macro_f1, pft.subjects, pft.runs, pft.failed, pft.collapsed) == (0.5, 1, 1, 2, 1)
    assert pft.reasons == ("needs a style bank",)
    assert pft.scope == "person"
    # A method that always failed is still listed.
    assert (shot.subjects, shot.runs, shot.failed) == (0, 0, 1)
    assert np.isnan([shot.macro_f1, shot.p_vs_source]).all()


def test_numbers_are_averaged_over_the_runs_that_have_them():
    nan = float("nan")
    rows = [row("pft", "a", 0.5, flops=2e6, class_recall=(0.2, 1.0))]
    rows.append(row("pft", "b", 0.7, non_neutral_recall=nan, class_recall=(nan, 0.5)))
    summary = named([*rows, row("shot", "a", 0.5)])
    pft, shot = summary["pft"], summary["shot"]
    assert (pft.non_neutral_recall, pft.flops) == (0.5, 2e6)
    assert np.isnan([shot.flops, shot.macro_f1_smoothed, *shot.ci95_smoothed, shot.ece]).all()
    assert pooled_reliability(rows) is None
    # Any number can be read from each row.
    assert subject_means(rows, lambda line: line.class_recall[0]) == {"a": 0.2}
    assert common_subject_means(rows, rows) == {"a": (0.5, 0.5), "b": (0.7, 0.7)}


def test_rows_that_contradict_each_other_are_refused_and_nothing_gives_nothing_in_strict_json(refused):
    one = row("pft", "a", 0.5)
    for other, words in (
        (one, "pft finished twice on subject a, draw 0, seed 0"),
        (row("pft", "b", 0.5, selection="oracle"), "oracle and source-free"),
        (row("pft", "b", 0.5, scope="dataset"), "scope dataset and person"),
    ):
        with refused(InputError, words):
            summarise([one, other])
    assert summarise([failed("pft", "a"), one])[0].runs == 1
    assert summarise([]) == []
    text = json.dumps([summary.to_dict() for summary in summarise(TABLE)], allow_nan=False)
    assert json.loads(text)[0]["p_vs_source"] is None
    assert len(json.loads(text)[1]["ci95"]) == 2


def test_ranks_are_averaged_over_shared_subjects_and_leave_out_oracles():
    names, scores = ("source-only", "pft", "shot"), np.array([SOURCE, BETTER, WORSE])
    fewer = [line for line in TABLE if line.method != "shot" or line.subject in ("s00", "s09")]
    for rows, shared in ((TABLE, range(10)), ([*fewer, failed("broken", "s00")], [0, 9])):
        summary = named(rows)
        expected = stats.rankdata(-scores[:, shared], axis=0).mean(axis=1)
        assert [summary[name].rank for name in names] == pytest.approx(list(expected))
        assert {summary[name].rank_subjects for name in names} == {len(shared)}
        assert summary["oracle"].rank_subjects == 0
        assert np.isnan([item.rank for name, item in summary.items() if name not in names]).all()
    # Methods without a subject in common have none, nor has one method alone.
    for rows in ([row("pft", "a", 0.5), row("shot", "b", 0.6)], [row("pft", "a", 0.5)]):
        assert np.isnan([item.rank for item in summarise(rows)]).all()
    rows = [row("pft", "a", 0.5), row("pft", "a", 0.9, draw=1), row("pft", "b", 0.1), row("shot", "b", 0.3)]
    rows += [row("shot", "a", 0.4), row("oracle", "c", 1.0, selection="oracle")]
    assert shared_scores(rows) == {"pft": (0.5, 0.1), "shot": (0.4, 0.3)}
    assert shared_scores([row("pft", "a", 0.5), row("shot", "b", 0.6)]) == {"pft": (), "shot": ()}
    assert shared_scores([]) == {}


def counts(*bins):
    """Reliability of a row: (bin, rows, sum of confidence, right), the other bins empty."""
    table = np.zeros((15, 3))
    for place, *values in bins:
        table[place] = values
    return tuple(table.ravel().tolist())


def test_every_subject_weighs_the_same_in_the_calibration_error():
    rows = [row("pft", "a", 0.5, frames=1000, reliability=counts((14, 1000, 1000, 1000)))]
    rows.append(row("pft", "b", 0.5, frames=10, reliability=counts((14, 5, 5, 0), (9, 5, 3, 3))))
    # The last bin holds 3/4 of the weight, sure of all of it and right in 1/2: wrong by 1/4 of the frames.
    assert summarise(rows)[0].ece == pytest.approx(0.25)
    assert pooled_reliability(rows)[14].tolist() == pytest.approx([0.75, 0.75, 0.5])
    # Seeds and draws are averaged within a subject, and failures left out.
    sure, wrong = ({"frames": 4, "reliability": counts((14, 4, 4, right))} for right in (4, 0))
    rows = [row("pft", "a", 0.5, seed=seed, **wrong) for seed in range(2)]
    rows += [row("pft", "a", 0.5, draw=1, **sure), row("pft", "b", 0.5, **sure), failed("pft", "c")]
    assert summarise(rows)[0].ece == pytest.approx(0.25)
    # Opposite errors of two subjects in one bin are pooled before they are measured.
    rows = [row("pft", name, 0.5, reliability=counts((14, 10, 9.5, right))) for name, right in (("a", 10), ("b", 9))]
    assert summarise(rows)[0].ece == pytest.approx(0.0)
