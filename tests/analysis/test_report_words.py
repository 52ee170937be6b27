"""What an evaluation says in words, against numbers that NumPy and SciPy compute."""

import numpy as np
import pytest
from scipy.stats import wilcoxon

from featlab.analysis.evaluation.words import evaluation_words, percent
from featlab.evaluation.results import EvaluationRow
from featlab.evaluation.summary import summarise

SUBJECTS = [f"s{number}" for number in range(10)]
SOURCE = np.linspace(0.4, 0.58, 10)
SETTINGS = {
    "source-only": ("Source-only", "Source model"),
    "neutral-shift": ("Baselines", "Shift"),
    "referenced": ("Baselines", "Referenced"),
    "pft": ("SFDA-PFT", "PFT"),
    "shot": ("SFDA (model-based)", "SHOT"),
    "safn": ("UDA (source access)", "SAFN"),
    "oracle": ("Oracle", "Fine-tuned"),
}


@pytest.fixture
def words(result):
    """Return the words of {method: one score a subject}."""

    def say(scores, **changes):
        access = {"safn": {"selection": "source-access"}}
        rows = [
            result(method, subject, float(score), **access.get(method, {}), **changes)
            for method, values in scores.items()
            for subject, score in zip(SUBJECTS, values, strict=False)
        ]
        return evaluation_words(rows, summarise(rows), settings=SETTINGS)

    return say


def holm(p_values):
    """Holm (1979), written down once more."""
    order = np.argsort(p_values)
    steps = [p_values[place] * (len(p_values) - rank) for rank, place in enumerate(order)]
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(steps))
    return adjusted


def test_size_means_counts_and_differences_are_those_of_the_scores(words):
    pft = SOURCE + np.array([0.2, 0.21, 0.22, 0.23, 0.24, 0.25, 0.26, 0.27, -0.01, 0.0])
    shift = SOURCE + 0.1 + np.arange(10) / 1000
    said = words({"source-only": SOURCE, "neutral-shift": shift, "pft": pft, "oracle": SOURCE + 0.4})
    assert said[0] == "4 methods on 10 target subjects, in 1 draw with 1 seed: 40 runs."
    for name, scores in (("Source model", SOURCE), ("PFT", pft), ("Shift", shift), ("Fine-tuned", SOURCE + 0.4)):
        assert f"{name} {100 * scores.mean():.1f} [" in said[1]
    against = [wilcoxon(shift - SOURCE).pvalue, wilcoxon(pft - SOURCE, method="exact", zero_method="wilcox").pvalue]
    assert f"PFT is {100 * (pft - SOURCE).mean():.1f} points above source-only [" in said[2]
    assert "8 of 10 subjects gained, 1 lost, 1 unchanged" in said[2]
    assert f"p = {holm(against)[1]:.3f}" in said[2]
    assert "closes 0.47 of the gap" in " ".join(said)


def test_a_method_below_a_baseline_is_said_to_be(words):
    better = SOURCE + 0.2 + np.arange(10) / 500
    said = words({"source-only": SOURCE, "neutral-shift": SOURCE, "referenced": better, "pft": SOURCE + 0.1})
    line = next(line for line in said if "Referenced, the largest mean of 2 baselines;" in line)
    assert line.startswith("PFT is 10.9 points below Referenced")
    assert "the difference is significant (p = " in line


def test_a_difference_within_noise_is_said_to_be(words):
    noise = np.array([0.1, -0.1, 0.05, -0.06, 0.02, -0.03, 0.04, -0.01, 0.07, -0.05])
    said = words({"source-only": SOURCE, "referenced": SOURCE + noise, "pft": SOURCE})
    assert "PFT is less than 0.05 points from source-only [0.0, 0.0]: 0 of 10 subjects gained, 0 lost" in said[2]
    assert "10 unchanged; the difference is within noise (not significant, p = 1.000)" in said[2]
    assert "within noise" in said[3]


def test_methods_of_other_kinds_are_compared_and_named_by_what_they_see(words):
    others = {"shot": SOURCE - 0.2, "safn": SOURCE + 0.2, "oracle": SOURCE + 0.05}
    said = words({"source-only": SOURCE, "pft": SOURCE + 0.1, **others})
    assert any(line.startswith("PFT is 30.0 points above SHOT;") for line in said)
    assert any(line.startswith("PFT is 10.0 points below SAFN;") for line in said)
    assert any(line.startswith("Fine-tuned, the oracle, stays below PFT") for line in said)
    assert not any("gap between" in line for line in said)


def test_without_pft_the_largest_mean_is_shown(words):
    said = words({"source-only": SOURCE, "neutral-shift": SOURCE + 0.1, "referenced": SOURCE + 0.2})
    assert f"Referenced {percent(SOURCE.mean() + 0.2)} [" in said[1]
    assert "the largest mean of 2 methods without source rows" in said[1]
    assert said[2] == "pft is not among the methods."
    assert said[3].startswith("Referenced is 20.0 points above source-only")


def test_without_source_only_no_gain_is_claimed(words):
    said = words({"pft": SOURCE, "referenced": SOURCE + 0.1})
    assert "source-only is not among the methods." in said
    assert not any("gained" in line for line in said)
    both = words({"referenced": SOURCE})
    assert "pft and source-only are not among the methods." in both


def test_few_subjects_can_not_be_significant_and_one_has_no_interval(words):
    few = words({"source-only": SOURCE[:4], "pft": SOURCE[:4] + 0.3})
    assert any("smallest p value that the test can give is 0.125" in line for line in few)
    assert not any("smallest p value" in line for line in words({"source-only": SOURCE[:6], "pft": SOURCE[:6] + 0.3}))
    one = words({"source-only": SOURCE[:1], "pft": SOURCE[:1] + 0.3})
    assert one[1] == "Mean macro F1 in percent: Source model 40.0; PFT 70.0."
    assert any("With 1 subject the smallest p value that the test can give is 1:" in line for line in one)


def test_methods_without_a_subject_in_common_are_not_compared(result):
    rows = [result("source-only", "a", 0.5), result("pft", "b", 0.6)]
    said = evaluation_words(rows, summarise(rows), settings=SETTINGS)
    assert "not to be compared, for want of a common subject, with source-only" in said[2]


def test_collapsed_and_failed_runs_are_counted(result):
    rows = [result(method, subject, 0.5) for method in ("source-only", "pft") for subject in SUBJECTS]
    rows[0] = result("source-only", SUBJECTS[0], 0.5, collapsed=True)
    rows += [EvaluationRow.failure("shot", name, 0, 0, selection="source-free", error="no") for name in SUBJECTS]
    said = evaluation_words(rows, summarise(rows), settings=SETTINGS)
    assert said[-2:] == (
        "Runs that predicted one class for every test row: Source model 1 of 10.",
        "Runs that failed, and are in no mean: SHOT 10 of 10.",
    )
    clean = [result("pft", "a", 0.5)]
    assert evaluation_words(clean, summarise(clean))[-2:] == (
        "No run predicted one class for every test row.",
        "No run failed.",
    )


def test_only_failures_have_no_score():
    rows = [EvaluationRow.failure("pft", name, 0, 0, selection="source-free", error="no") for name in SUBJECTS]
    said = evaluation_words(rows, summarise(rows))
    assert said[1] == "Every run failed, so there is no score."
    assert said[-1].endswith("SFDA-PFT 10 of 10.")
    assert evaluation_words([], []) == ("0 methods on 0 target subjects, in 0 draws with 0 seeds: 0 runs.",)


def test_a_data_set_adapted_to_as_a_whole_is_said_to_be(words):
    assert "adapted to all of them together" in words({"pft": SOURCE}, scope="dataset")[0]
