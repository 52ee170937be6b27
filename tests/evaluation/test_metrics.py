import subprocess
import sys

import numpy as np
import pytest
from sklearn import metrics as oracle

from featlab.errors import InputError
from featlab.evaluation.metrics import confusion_matrix, subject_metrics

CLASSES = ("neutral", "anger", "fear", "joy", "sadness", "surprise", "disgust")


def scored(labels, predicted, **changes):
    options = {"classes": CLASSES, "neutral_code": 0, **changes}
    return subject_metrics(np.array(labels), np.array(predicted), **options)


def test_the_label_set_of_macro_f1_is_the_classes_present_in_the_labels():
    labels, predictions = [0, 0, 0], [0, 0, 1]
    metrics = scored(labels, predictions)
    assert metrics.macro_f1 == pytest.approx(0.8)
    assert metrics.macro_f1_all == pytest.approx(0.8 / 7)
    assert round(metrics.macro_f1_all, 4) == 0.1143
    assert oracle.f1_score(labels, predictions, average="macro") == pytest.approx(0.4)


@pytest.mark.parametrize("seed", range(5))
def test_every_number_equals_scikit_learns(seed):
    rng = np.random.default_rng(seed)
    labels = rng.choice([0, 2, 3, 6], size=60)
    probabilities = rng.dirichlet(np.ones(7), size=60)
    predictions = probabilities.argmax(axis=1)
    present = np.unique(labels)
    recall = oracle.recall_score(labels, predictions, labels=range(7), average=None, zero_division=0)
    metrics = subject_metrics(labels, probabilities, classes=CLASSES, neutral_code=0)
    assert metrics.macro_f1 == pytest.approx(
        oracle.f1_score(labels, predictions, labels=present, average="macro", zero_division=0)
    )
    assert metrics.macro_f1_all == pytest.approx(
        oracle.f1_score(labels, predictions, labels=range(7), average="macro", zero_division=0)
    )
    assert metrics.accuracy == pytest.approx(oracle.accuracy_score(labels, predictions))
    assert metrics.balanced_accuracy == pytest.approx(recall[present].mean())
    assert metrics.neutral_recall == pytest.approx(recall[0])
    assert metrics.non_neutral_recall == pytest.approx(recall[[2, 3, 6]].mean())
    assert metrics.histogram == tuple(np.bincount(predictions, minlength=7))
    assert metrics.frames == 60
    assert np.array_equal(
        confusion_matrix(labels, predictions, 7), oracle.confusion_matrix(labels, predictions, labels=range(7))
    )


def test_codes_and_their_probabilities_score_the_same():
    rng = np.random.default_rng(1)
    labels, probabilities = rng.integers(0, 7, 40), rng.dirichlet(np.ones(7), size=40)
    assert repr(scored(labels, probabilities)) == repr(scored(labels, probabilities.argmax(axis=1)))


def test_rows_without_a_label_change_nothing():
    known, mixed = scored([0, 1, 1], [0, 1, 0]), scored([-1, 0, 1, -1, 1], [6, 0, 1, 6, 0])
    assert repr(mixed) == repr(known)


def test_recalls_are_nan_where_there_is_nothing_to_recall():
    assert np.isnan(scored([0, 0], [0, 1]).non_neutral_recall)
    assert np.isnan(scored([1, 1], [0, 1]).neutral_recall)


def test_one_predicted_class_is_a_collapse_and_two_are_not():
    assert scored([0, 1, 2], [0, 0, 0]).collapsed
    assert not scored([0, 1, 2], [0, 0, 1]).collapsed


@pytest.mark.parametrize(
    ("labels", "predicted", "said"),
    [
        ([-1, -1], [0, 0], "no labelled test row"),
        ([], np.zeros((0, 7)), "integer"),
        ([0, 7], [0, 0], "outside -1..6"),
        ([0, -2], [0, 0], "outside -1..6"),
        ([0, 1], [0, 7], "outside 0..6"),
        ([0, 1], [0, -1], "outside 0..6"),
        ([0.0, 1.0], [0, 0], "integer"),
        ([0, 1], [0.0, 1.0], "integer"),
        ([0, 1], [0], "shape"),
        ([0, 1], np.full((2, 3), 0.5), "shape"),
        ([0, 1], np.full((2, 7), np.nan), "NaN"),
    ],
)
def test_rows_that_do_not_fit_are_refused_in_one_line(labels, predicted, said):
    with pytest.raises(InputError, match=said) as caught:
        scored(labels, predicted)
    assert "\n" not in str(caught.value)


def test_a_neutral_code_that_does_not_fit_is_refused():
    with pytest.raises(InputError, match="neutral code 7"):
        scored([0], [0], neutral_code=7)


def test_the_result_modules_import_no_heavy_library():
    script = (
        "import sys, featlab.evaluation.metrics, featlab.evaluation.results;"
        "import featlab.evaluation.statistics, featlab.evaluation.summary;"
        "print([name for name in ('torch', 'sklearn', 'scipy', 'matplotlib', 'faiss') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
