"""Methods with source access: what they learn from, and the loop that they share."""

import functools
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from featlab.errors import InputError
from featlab.methods import get_method, make_method, method_names
from featlab.methods.base import SourceFeatures
from featlab.methods.fit import make_student
from featlab.methods.joint import JointConfig, JointObjective, fit_jointly
from featlab.protocol.splits import target_of


@pytest.fixture
def student(bundle):
    return make_student(bundle, "none", 0)


def adapted(name, bundle, source, rows, **options):
    return make_method(name, {name: options}).adapt(bundle, target_of(rows), source=source)


def test_source_features_are_the_labelled_rows_in_the_order_of_subject_video_and_frame(bundle, table):
    labels = table.label.copy()
    labels[::3] = -1
    expected = bundle.projection(torch.from_numpy(table.embeddings[labels >= 0]))
    known = replace(table, label=labels)
    for rows in (known, known.take(np.random.default_rng(0).permutation(len(table)))):
        found = SourceFeatures.of(bundle, rows)
        assert found.labels.tolist() == labels[labels >= 0].tolist()
        torch.testing.assert_close(found.features, expected)


@pytest.mark.parametrize("name", [name for name in method_names() if get_method(name).needs_source])
def test_a_source_of_one_class_or_of_two_equal_rows_is_enough(name, bundle, table, source, rows, probe, refused):
    known = table.without("s05")
    sources = [SourceFeatures.of(bundle, known.take(known.label == code)) for code in range(3)]
    for few in (*sources, SourceFeatures(source.features[[0, 0]], source.labels[[0, 0]])):
        assert np.isfinite(adapted(name, bundle, few, rows, iterations=20).predict_proba(probe)).all()
    for count in (0, 1):
        fewer = SourceFeatures(source.features[:count], source.labels[:count])
        with refused(InputError, "2 labelled source rows", f"got {count}"):
            adapted(name, bundle, fewer, rows)


def test_batches_hold_every_row_as_often_as_every_other_and_both_domains(student, source, features):
    features = features[:7]
    seen, sizes, steps = [], set(), []

    def losses(batch):
        assert torch.equal(batch.target, features[batch.target_rows])
        matches = (batch.source.unsqueeze(1) == source.features).all(dim=2)
        assert torch.equal(source.labels[matches.float().argmax(dim=1)], batch.labels)
        seen.extend(batch.target_rows.tolist())
        sizes.add((len(batch.source), len(batch.labels), len(batch.target)))
        steps.append((batch.step, batch.total))
        return {"size": student.head.classifier.bias.sum()}

    fit = fit_jointly(student, source, features, JointConfig(iterations=6, batch=9), JointObjective(losses), seed=0)
    assert sizes == {(9, 9, 7)}
    assert sorted(seen) == sorted(list(range(7)) * 6)
    assert steps == [(step, 6) for step in range(6)]
    assert fit.iterations == 6


def test_an_update_changes_what_it_is_for_and_nothing_else(student, source, features):
    bottleneck, classifier = student.parameters_of("bottleneck"), student.parameters_of("classifier")
    seen = []

    def everything(batch):
        seen.append([[parameter.detach().clone() for parameter in part] for part in (bottleneck, classifier)])
        z = student.bottleneck(batch.source)
        return {f"size {len(seen)}": student.head.classify(z).square().sum()}

    # With momentum and weight decay, which must not move what an update leaves alone either.
    goal = JointObjective(everything, more=[(everything, classifier), (everything, bottleneck)])
    fit = fit_jointly(student, source, features, JointConfig(iterations=2, bn_mode="eval"), goal, seed=0)
    for place, (before, after) in enumerate(pairwise(seen)):
        same = [all(map(torch.equal, *part)) for part in zip(before, after, strict=True)]
        assert same == [[False, False], [True, False], [False, True]][place % 3]
    assert [len(entry) for entry in fit.history] == [4, 4]


def test_what_is_renewed_is_renewed_from_the_first_step_at_equal_intervals(student, source, features):
    for total, times in ((50, 3), (50, 6), (9, 3), (2, 6), (1, 1)):
        seen = []

        def losses(batch, seen=seen):
            seen.append("step")
            return {"size": student.head.classifier.bias.sum()}

        goal = JointObjective(losses, renew=functools.partial(seen.append, "renewal"), renewals=times)
        fit_jointly(student, source, features, JointConfig(iterations=total), goal, seed=0)
        due = np.array([*np.flatnonzero(np.array(seen) == "renewal"), len(seen)])
        assert due[0] == 0
        assert len(due) == min(times, total) + 1
        assert np.ptp(np.diff(due)) <= 1
