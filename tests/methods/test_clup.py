"""CluP: its three stages together, what it keeps, what it changes, and what it refuses."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from featlab.compute import run_seed, seeded
from featlab.evaluation.metrics import subject_metrics
from featlab.methods import clup, make_method
from featlab.methods.losses.target import cluster_rows, label_clusters, purest_rows
from featlab.model.networks import SourceHead
from featlab.protocol.splits import target_of

CLASSES = 3


@pytest.fixture(scope="module")
def table(people):
    """People whom the source model mostly gets right."""
    return people(subjects=6, classes=CLASSES, clips=2, frames=10, identity=0.8, resting=0.3)


@pytest.fixture(scope="module")
def bundle(table, small_bundle):
    return small_bundle(table.without("s05"), {"head.epochs": 20}, methods=[])


@pytest.fixture(scope="module")
def rows(table):
    return table.rows_of("s05")


def adapted(bundle, rows, **options):
    quick = {"epochs": 2, "ssl_iterations": 2} | options
    return make_method("clup-swav", {"clup-swav": quick}).adapt(bundle, target_of(rows))


def source_probabilities(bundle, embeddings):
    with torch.no_grad():
        return torch.softmax(bundle.head(bundle.projection(torch.from_numpy(embeddings))), dim=1).numpy()


@pytest.fixture
def learnt_from(monkeypatch, bundle):
    """Return the features and labels that stage 3 is given."""

    def run(rows, **options):
        seen = []
        monkeypatch.setattr(clup, "_fine_tune", lambda student, trained, *given: seen.append(given[:2]) or [])
        adapted(bundle, rows, **options)
        return seen[0]

    return run


def test_stage_3_is_given_the_purest_rows_with_their_clusters_labels(learnt_from, bundle, rows):
    # So noisy that not every row is labelled as its cluster.
    noise = np.random.default_rng(0).normal(size=rows.embeddings.shape).astype(np.float32)
    noisy = replace(rows, embeddings=rows.embeddings + 3 * noise)
    features, labels = learnt_from(noisy, keep=0.8)
    with torch.no_grad():
        ours = bundle.projection(torch.from_numpy(noisy.embeddings))
        codes = bundle.head.bottleneck(ours)
        predicted = bundle.head.classify(codes).argmax(dim=1).numpy()
    cluster = cluster_rows(codes.numpy(), len(rows) // 4, seed=run_seed(0, "clusters"))
    label, purity = label_clusters(cluster, predicted, clusters=len(rows) // 4, classes=CLASSES)
    kept = purest_rows(label[cluster], purity[cluster], 0.8)
    assert (predicted[kept] != label[cluster][kept]).any()
    assert torch.equal(features, ours[kept])
    assert labels.tolist() == label[cluster][kept].tolist()


def test_by_confidence_the_surest_rows_are_kept_with_their_own_predictions(learnt_from, bundle, rows):
    features, labels = learnt_from(rows, score="confidence")
    chances = source_probabilities(bundle, rows.embeddings)
    kept = purest_rows(chances.argmax(axis=1), chances.max(axis=1), 0.3)
    with torch.no_grad():
        assert torch.equal(features, bundle.projection(torch.from_numpy(rows.embeddings))[kept])
    assert labels.tolist() == chances.argmax(axis=1)[kept].tolist()


def test_the_loss_of_a_mix_equals_numpy(monkeypatch):
    class Share:
        def beta(self, first, second):
            assert (first, second) == (0.2, 0.2)
            return 0.25

    monkeypatch.setattr(clup, "generator", lambda *parts: Share())
    features, labels = torch.randn(2, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([2, 0])
    with seeded(0):
        student = clup.Student(None, SourceHead(4, 5, CLASSES))
    config = clup.CluPConfig(epochs=1, lr=0.0)
    # With this seed the second row comes first, and each is mixed with the other one.
    loss = clup._fine_tune(student, list(student.head.parameters()), features, labels, config, 3)[0]["classification"]
    student.set_mode("train")
    with torch.no_grad():
        logits = student.logits(0.25 * features.flip(0) + 0.75 * features)
    logs = torch.log_softmax(logits.double(), dim=1).numpy()
    expected = 0.25 * (logs[0, 0] + logs[1, 2]) + 0.75 * (logs[0, 2] + logs[1, 0])
    assert loss == pytest.approx(-expected / 2, rel=1e-5)


def test_the_encoder_starts_fresh_or_as_the_sources(bundle):
    fresh, source = (clup._new_student(bundle, start, 0) for start in ("fresh", "source"))
    features = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    for student in (fresh, source):
        student.set_mode("eval")
        assert torch.equal(student.features(features), features)
    expected = bundle.head.bottleneck(features)
    assert torch.equal(source.bottleneck(features), expected)
    assert not torch.allclose(fresh.bottleneck(features), expected)
    assert not torch.allclose(source.logits(features), bundle.head(features))


def test_when_nothing_is_kept_it_is_the_source_model_with_a_warning(bundle, rows, probe):
    for keep in (0.0, 0.01):
        model = adapted(bundle, rows, keep=keep)
        assert np.array_equal(model.predict_proba(probe), source_probabilities(bundle, probe))
        assert model.warnings == ("0 of 60 rows were kept: nothing was learnt; raise adapt.clup-swav.keep",)
        assert model.iterations == 0


def test_a_neutral_clip_teaches_one_answer_and_both_the_warning_and_the_evaluation_say_so(bundle, rows):
    model = make_method("clup-swav").adapt(bundle, target_of(rows.take(rows.label == rows.neutral_code)))
    assert model.warnings == ("no row was kept of anger, disgust: the new classifier does not know them",)
    chances = model.predict_proba(rows.embeddings)
    scores = subject_metrics(rows.label, chances, rows.neutral_code)
    assert scores.collapsed
    assert scores.neutral_recall == 1
