import json
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from featlab.errors import InputError
from featlab.evaluation.results import EvaluationRow
from featlab.evaluation.scores import (
    common_subject_means,
    failure_reasons,
    pooled_reliability,
    shared_scores,
    subject_means,
)
from featlab.evaluation.statistics import bootstrap_interval, holm, paired_wilcoxon
from featlab.evaluation.summary import summarise


def row(method, subject, score, *, draw=0, seed=0, selection="source-free", **changes):
    values = {
        "macro_f1_all": score / 2,
        "accuracy": score,
        "balanced_accuracy": score,
        "neutral_recall": score,
        "non_neutral_recall": score,
        "histogram": (5, 5),
        "frames": 10,
        "adapt_frames": 4,
        "seconds": 1.0,
        "iterations": 10,
        "trainable": 100,
        "collapsed": False,
        **changes,
    }
    return EvaluationRow(
        method=method, subject=subject, draw=draw, seed=seed, macro_f1=score, selection=selection, **values
    )


def failed(method, subject, **changes):
    return EvaluationRow.failure(method, subject, 0, 0, selection="source-free", error="needs a style bank", **changes)


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


def test_methods_come_in_input_order_with_mean_sd_and_interval_over_subjects():
    summaries = summarise(TABLE)
    assert [summary.method for summary in summaries] == ["source-only", "pft", "shot", "oracle"]
    pft = summaries[1]
    assert pft.subjects == pft.runs == 10
    assert pft.macro_f1 == pytest.approx(np.mean(BETTER))
    assert pft.sd == pytest.approx(np.std(BETTER, ddof=1))
    assert pft.ci95 == bootstrap_interval(BETTER)
    assert pft.macro_f1_all == pytest.approx(np.mean(BETTER) / 2)
    assert (pft.seconds, pft.iterations, pft.trainable) == (1.0, 10.0, 100.0)


def test_the_comparison_with_source_only_is_paired_over_subjects():
    summary = named(TABLE)
    difference = np.subtract(BETTER, SOURCE)
    assert summary["pft"].difference_vs_source == pytest.approx(difference.mean())
    assert summary["pft"].difference_ci95 == pytest.approx(bootstrap_interval(difference))
    assert (summary["pft"].wins, summary["pft"].ties, summary["pft"].losses) == (9, 0, 1)
    assert summary["pft"].negative_transfer == 1
    assert (summary["shot"].wins, summary["shot"].ties, summary["shot"].losses) == (1, 1, 8)


def test_the_gap_is_taken_between_means():
    summary = named(TABLE)
    expected = (np.mean(BETTER) - np.mean(SOURCE)) / (0.9 - np.mean(SOURCE))
    assert summary["pft"].gap_closed == pytest.approx(expected)
    assert summary["source-only"].gap_closed == 0.0
    assert summary["oracle"].gap_closed == pytest.approx(1.0)
    assert summary["shot"].gap_closed < 0


def test_holm_runs_over_the_methods_but_source_only_and_the_oracle():
    summary = named(TABLE)
    expected = holm([paired_wilcoxon(BETTER, SOURCE), paired_wilcoxon(WORSE, SOURCE)])
    assert [summary["pft"].p_vs_source, summary["shot"].p_vs_source] == pytest.approx(expected)
    assert np.isnan(summary["source-only"].p_vs_source)
    assert np.isnan(summary["oracle"].p_vs_source)


def test_a_subject_with_more_seeds_or_draws_weighs_no_more():
    rows = [
        row("pft", "a", score, draw=draw, seed=seed) for draw, seed, score in [(0, 0, 0.2), (0, 1, 0.4), (1, 0, 0.9)]
    ]
    rows.append(row("pft", "b", 0.0))
    assert subject_means(rows) == pytest.approx({"a": 0.6, "b": 0.0})
    assert summarise(rows)[0].macro_f1 == pytest.approx(0.3)


def test_the_spread_over_seeds_is_taken_within_a_subject_and_draw():
    rows = [
        row("pft", "a", 0.2, seed=0),
        row("pft", "a", 0.4, seed=1),
        row("pft", "b", 0.5),
        row("pft", "a", 0.9, draw=1),
    ]
    assert summarise(rows)[0].seed_sd == pytest.approx(np.std([0.2, 0.4], ddof=1))
    assert np.isnan(summarise(rows[2:])[0].seed_sd)


def test_comparisons_use_only_the_subjects_and_draws_that_both_have():
    rows = [row("source-only", "a", 0.5), row("source-only", "b", 0.1), row("source-only", "a", 0.9, draw=1)]
    rows += [row("pft", "a", 0.6), row("pft", "c", 0.0), row("oracle", "a", 0.7, selection="oracle")]
    pft = named(rows)["pft"]
    assert pft.subjects == 2
    assert pft.macro_f1 == pytest.approx(0.3)
    assert pft.difference_vs_source == pytest.approx(0.1)
    assert pft.gap_closed == pytest.approx(0.5)
    assert (pft.wins, pft.ties, pft.losses) == (1, 0, 0)


def test_failed_runs_are_counted_and_in_no_mean():
    rows = [row("pft", "a", 0.5), failed("pft", "b"), failed("pft", "a"), row("source-only", "a", 0.4)]
    summary = named(rows)["pft"]
    assert (summary.macro_f1, summary.subjects, summary.runs, summary.failed) == (0.5, 1, 1, 2)


def test_a_method_that_always_failed_is_still_listed():
    summary = named([row("source-only", "a", 0.5), failed("shot", "a")])["shot"]
    assert (summary.subjects, summary.runs, summary.failed) == (0, 0, 1)
    assert np.isnan(summary.macro_f1)
    assert np.isnan(summary.p_vs_source)


def test_without_source_only_nothing_is_compared():
    summary = summarise([row("pft", "a", 0.5), row("pft", "b", 0.6)])[0]
    assert summary.negative_transfer is None
    assert np.isnan([summary.gap_closed, summary.p_vs_source, summary.difference_vs_source]).all()


def test_recalls_are_averaged_over_the_subjects_that_have_them():
    rows = [row("pft", "a", 0.5), row("pft", "b", 0.7, non_neutral_recall=float("nan"))]
    assert summarise(rows)[0].non_neutral_recall == 0.5


def test_collapsed_runs_are_counted():
    assert summarise([row("pft", "a", 0.5, collapsed=True), row("pft", "b", 0.7)])[0].collapsed == 1


def test_results_given_twice_are_refused_and_a_retried_failure_is_not():
    with pytest.raises(InputError, match="pft finished twice on subject a, draw 0, seed 0"):
        summarise([row("pft", "a", 0.5), row("pft", "a", 0.5)])
    assert summarise([failed("pft", "a"), row("pft", "a", 0.5)])[0].runs == 1


def test_one_method_with_two_selections_is_refused():
    with pytest.raises(InputError, match="oracle and source-free"):
        summarise([row("pft", "a", 0.5), row("pft", "b", 0.5, selection="oracle")])


def test_nothing_gives_nothing_and_a_summary_is_strict_json():
    assert summarise([]) == []
    text = json.dumps([summary.to_dict() for summary in summarise(TABLE)], allow_nan=False)
    assert json.loads(text)[0]["p_vs_source"] is None
    assert len(json.loads(text)[1]["ci95"]) == 2


# --- the second comparison, ranks, operations -------------------------------------------------------------------------


def test_the_comparison_with_pft_is_a_family_of_its_own():
    summary = named(TABLE)
    expected = holm([paired_wilcoxon(SOURCE, BETTER), paired_wilcoxon(WORSE, BETTER)])
    assert [summary["source-only"].p_vs_pft, summary["shot"].p_vs_pft] == pytest.approx(expected)
    assert np.isnan([summary["pft"].p_vs_pft, summary["oracle"].p_vs_pft]).all()
    assert summary["shot"].difference_vs_pft == pytest.approx(np.mean(WORSE) - np.mean(BETTER))
    assert summary["pft"].difference_vs_pft == 0.0


def test_without_pft_nothing_is_compared_with_it():
    summary = named([line for line in TABLE if line.method != "pft"])
    assert np.isnan([item.p_vs_pft for item in summary.values()]).all()
    assert np.isnan([item.difference_vs_pft for item in summary.values()]).all()
    assert summary["shot"].p_vs_source == pytest.approx(paired_wilcoxon(WORSE, SOURCE))


def test_another_method_can_stand_in_for_pft():
    summary = {item.method: item for item in summarise(TABLE, reference="shot")}
    expected = holm([paired_wilcoxon(SOURCE, WORSE), paired_wilcoxon(BETTER, WORSE)])
    assert [summary["source-only"].p_vs_pft, summary["pft"].p_vs_pft] == pytest.approx(expected)


def test_ranks_are_averaged_over_subjects_and_leave_out_oracles():
    summary = named(TABLE)
    ranks = stats.rankdata(-np.array([SOURCE, BETTER, WORSE]), axis=0).mean(axis=1)
    assert [summary[name].rank for name in ("source-only", "pft", "shot")] == pytest.approx(list(ranks))
    assert {summary[name].rank_subjects for name in ("source-only", "pft", "shot")} == {10}
    assert np.isnan(summary["oracle"].rank)
    assert summary["oracle"].rank_subjects == 0


def test_ranks_are_taken_on_shared_subjects_and_a_method_that_never_finished_has_none():
    rows = [line for line in TABLE if line.method != "shot" or line.subject in ("s00", "s09")]
    summary = named([*rows, failed("broken", "s00")])
    ranks = stats.rankdata(-np.array([SOURCE, BETTER, WORSE])[:, [0, 9]], axis=0).mean(axis=1)
    assert [summary[name].rank for name in ("source-only", "pft", "shot")] == pytest.approx(list(ranks))
    assert summary["pft"].rank_subjects == 2
    assert np.isnan(summary["broken"].rank)


def test_methods_without_a_subject_in_common_have_no_rank():
    summary = named([row("pft", "a", 0.5), row("shot", "b", 0.6)])
    assert np.isnan([item.rank for item in summary.values()]).all()
    assert np.isnan(summarise([row("pft", "a", 0.5)])[0].rank)


def test_shared_scores_are_those_of_the_same_cells():
    rows = [row("pft", "a", 0.5), row("pft", "a", 0.9, draw=1), row("pft", "b", 0.1), row("shot", "b", 0.3)]
    rows += [row("shot", "a", 0.4), row("oracle", "c", 1.0, selection="oracle")]
    assert shared_scores(rows) == {"pft": (0.5, 0.1), "shot": (0.4, 0.3)}
    assert shared_scores([row("pft", "a", 0.5), row("shot", "b", 0.6)]) == {"pft": (), "shot": ()}
    assert shared_scores([]) == {}


def test_operations_are_averaged_over_the_runs_where_they_were_counted():
    rows = [row("pft", "a", 0.5, flops=2e6), row("pft", "b", 0.5), row("shot", "a", 0.5)]
    summary = named(rows)
    assert summary["pft"].flops == 2e6
    assert np.isnan(summary["shot"].flops)


def test_a_summary_says_why_runs_failed_and_what_was_adapted_to():
    rows = [row("pft", "a", 0.5, scope="dataset")]
    rows += [replace(failed("pft", subject, scope="dataset"), error=f"got {n} rows") for n, subject in enumerate("bc")]
    summary = named(rows)["pft"]
    assert summary.reasons == ("got … rows",)
    assert summary.scope == "dataset"


def test_one_method_with_two_scopes_is_refused():
    with pytest.raises(InputError, match="scope dataset and person"):
        summarise([row("pft", "a", 0.5), row("pft", "b", 0.5, scope="dataset")])


def test_a_number_can_be_read_from_each_row():
    rows = [row("pft", "a", 0.5, class_recall=(0.2, 1.0)), row("pft", "b", 0.5, class_recall=(float("nan"), 0.5))]
    assert subject_means(rows, lambda line: line.class_recall[0]) == {"a": 0.2}
    assert common_subject_means(rows, rows) == {"a": (0.5, 0.5), "b": (0.5, 0.5)}


# --- smoothed scores, calibration -------------------------------------------------------------------------------------


def test_the_smoothed_score_has_a_mean_and_an_interval_of_its_own():
    rows = [row("pft", f"s{n}", 0.5, macro_f1_smoothed=score) for n, score in enumerate(BETTER)]
    rows.append(row("pft", "s0", 0.5, seed=1, macro_f1_smoothed=BETTER[0] + 0.2))
    expected = [BETTER[0] + 0.1, *BETTER[1:]]
    (summary,) = summarise(rows)
    assert summary.macro_f1_smoothed == pytest.approx(np.mean(expected))
    assert summary.ci95_smoothed == pytest.approx(bootstrap_interval(expected))
    assert summary.macro_f1 == 0.5


def test_without_smoothing_and_confidences_there_is_neither():
    (summary,) = summarise([row("pft", "a", 0.5)])
    assert np.isnan([summary.macro_f1_smoothed, *summary.ci95_smoothed, summary.ece]).all()
    assert pooled_reliability([row("pft", "a", 0.5)]) is None


def counts(*bins):
    """Reliability of a row: (bin, rows, sum of confidence, right), the other bins empty."""
    table = np.zeros((15, 3))
    for place, *values in bins:
        table[place] = values
    return tuple(table.ravel().tolist())


def test_every_subject_weighs_the_same_in_the_calibration_error():
    rows = [row("pft", "a", 0.5, frames=1000, reliability=counts((14, 1000, 1000, 1000)))]
    rows.append(row("pft", "b", 0.5, frames=10, reliability=counts((14, 5, 5, 0), (9, 5, 3, 3))))
    (summary,) = summarise(rows)
    # The last bin holds 3/4 of the weight, sure of all of it and right in 1/2: wrong by 1/4 of the frames.
    assert summary.ece == pytest.approx(0.25)
    pooled = pooled_reliability(rows)
    assert pooled[14].tolist() == pytest.approx([0.75, 0.75, 0.5])
    assert pooled[:, 0].sum() == pytest.approx(1.0)


def test_seeds_and_draws_are_averaged_within_a_subject_and_failures_left_out():
    sure = {"frames": 4, "reliability": counts((14, 4, 4, 4))}
    wrong = {"frames": 4, "reliability": counts((14, 4, 4, 0))}
    rows = [row("pft", "a", 0.5, seed=seed, **wrong) for seed in range(2)]
    rows += [row("pft", "a", 0.5, draw=1, **sure), row("pft", "b", 0.5, **sure), failed("pft", "c")]
    (summary,) = summarise(rows)
    assert summary.ece == pytest.approx(0.25)


def test_opposite_errors_of_two_subjects_in_one_bin_are_pooled_before_they_are_measured():
    rows = [row("pft", "a", 0.5, reliability=counts((14, 10, 9.5, 10)))]
    rows.append(row("pft", "b", 0.5, reliability=counts((14, 10, 9.5, 9))))
    assert summarise(rows)[0].ece == pytest.approx(0.0)


# --- reasons of failures ----------------------------------------------------------------------------------------------


def reasons(*errors):
    rows = [replace(failed("shot", subject), error=error) for subject, error in zip("abc", errors, strict=False)]
    return {reason: [row.subject for row in group] for reason, group in failure_reasons(rows).items()}


def test_messages_that_differ_in_numbers_are_one_reason_with_the_numbers_that_do_not():
    found = reasons("needs 8 rows or more, got 5", "no bank", "needs 8 rows or more, got 12")
    assert found == {"needs 8 rows or more, got …": ["a", "c"], "no bank": ["b"]}
    assert reasons(*["lr 0.01 of s041 # 3"] * 2) == {"lr 0.01 of s041 # 3": ["a", "b"]}
    for first, second in (("a 1", "a #"), ("got 1", "got 1 2"), ("a", "b")):
        assert len(reasons(first, second)) == 2
    assert failure_reasons([row("shot", "a", 0.5)]) == {}
