"""The carried share: found again where it was planted, and learned from source people alone."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
import torch

from featlab.methods import make_method
from featlab.model import linear
from featlab.model.linear import CANDIDATES, LEAST_SUBJECTS, largest_alike, learn_share, person_folds
from featlab.model.style_bank import CarriedShare, SourceRows, shares_sentence
from featlab.protocol.splits import target_of


def planted(people, share, subjects=24):
    """People whose offset at rest is there in their expressions by a share."""
    table = people(subjects=subjects, frames=6, dim=6, identity=0.0, resting=0.0, noise=0.3)
    rng = np.random.default_rng(0)
    offsets = 3 * rng.normal(size=(subjects, 6))
    neutral = table.label == table.neutral_code
    table.embeddings[neutral] += offsets[table.subject[neutral]].astype(np.float32)
    table.embeddings[~neutral] += share * offsets[table.subject[~neutral]].astype(np.float32)
    return table


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_share_that_was_planted_is_found(share, people):
    """Rows of expressions are aligned best by it, and neutral rows by all of the offset: the best is near or above."""
    table = planted(people, share)
    found = learn_share(SourceRows.of(table, torch.from_numpy(table.embeddings)), 2, 4.0, seed=0)
    assert found.people == 24
    assert len(found.losses) == len(CANDIDATES)
    assert found.value >= CANDIDATES[int(np.argmin(found.losses))]
    assert abs(found.value - share) <= 0.5
    if share == 1.0:
        assert found.value >= 0.95


def test_the_largest_share_is_taken_that_cant_be_told_from_the_best():
    rng = np.random.default_rng(1)
    for _ in range(20):
        losses = rng.normal(size=(12, 5)) + np.linspace(1.0, 0.0, 5)
        best = losses.mean(axis=0).argmin()
        for place in range(5):
            worse = losses[:, place] - losses[:, best]
            if place == best or worse.mean() <= scipy.stats.sem(worse):
                break
        assert largest_alike(torch.from_numpy(losses)) == place
    assert largest_alike(torch.ones(3, 4)) == 0
    # Every person is a little worse with all of it: that is told from the best, however small.
    assert largest_alike(torch.tensor([[1.01, 1.0], [2.01, 2.0]], dtype=torch.float64)) == 1


def test_of_many_rows_an_even_selection_tells_the_share(people, monkeypatch):
    table, fit, rows = planted(people, 1.0), linear.fit_classifier, []
    monkeypatch.setattr(linear, "MOST_ROWS", len(table) // 2)
    monkeypatch.setattr(linear, "fit_classifier", lambda *given: rows.append(len(given[1])) or fit(*given))
    found = learn_share(SourceRows.of(table, torch.from_numpy(table.embeddings)), 2, 4.0, seed=0)
    assert (found.people, found.value) == (24, pytest.approx(1, abs=0.1))
    assert 0 < max(rows) <= len(table) // 2


def test_every_person_is_held_out_once_and_only_the_seed_of_that_changes_what_is_learnt(people):
    folds = person_folds(13, 0)
    assert sorted(torch.cat(folds).tolist()) == list(range(13))
    table = planted(people, 0.5, subjects=10)
    features = torch.from_numpy(table.embeddings)
    found = learn_share(SourceRows.of(table, features), 2, 4.0, seed=0)
    assert found == learn_share(SourceRows.of(table, features), 2, 4.0, seed=0)
    assert found.losses != learn_share(SourceRows.of(table, features), 2, 4.0, seed=1).losses


def test_with_too_few_people_all_of_the_offset_is_taken_and_said(people):
    table = people(subjects=LEAST_SUBJECTS - 1)
    found = learn_share(SourceRows.of(table, torch.from_numpy(table.embeddings)), 2, 4.0, seed=0)
    assert found == CarriedShare()
    assert "not learned" in found.sentence()
    assert "95 % of how a face differs at rest" in CarriedShare(0.95, 52).sentence()
    assert "52 people" in CarriedShare(0.95, 52).sentence()
    several = shares_sentence([CarriedShare(0.95, 52), CarriedShare(0.8, 51), CarriedShare(0.9, 52)])
    assert several == CarriedShare(0.95, 52).sentence().replace("95", "80 to 95").replace("52", "51 to 52")


def test_a_bundle_takes_the_share_that_it_learned_and_the_offset_is_that_share(people, small_bundle):
    table = people(subjects=9)
    known, mine = table.without("s08"), table.rows_of("s08")
    rows = mine.take(mine.label == mine.neutral_code)
    offsets = []
    for values in (
        {},
        {"pretrain.learn_share": False, "pretrain.share": 1.0},
        {"pretrain.learn_share": False, "pretrain.share": 0.25},
    ):
        bundle = small_bundle(known, values | {"pretrain.validation": False}, methods=["pft"])
        assert bundle.share.people == (0 if values else 8)
        model = make_method("pft", {"pft": {"weighting": "mean"}}).adapt(bundle, target_of(rows))
        offsets.append(model.model.translator.offset / bundle.share.value)
    for offset in offsets[1:]:
        torch.testing.assert_close(offset, offsets[0], atol=1e-4, rtol=1e-4)


def test_where_a_clip_tells_nothing_of_the_next_adapt_says_that_it_does_not_help(people, small_bundle):
    """What a clip looks like is its own: nothing of it is there in other clips of the person."""
    table = people(subjects=24, frames=6, dim=6, identity=0.0, resting=0.0, noise=0.3)
    clip = table.subject.astype(int) * len(table.videos) + table.video
    offsets = 2 * np.random.default_rng(0).normal(size=(clip.max() + 1, 6))
    table = replace(table, embeddings=(table.embeddings + offsets[clip]).astype(np.float32))
    bundle = small_bundle(table.without("s23"), {"pretrain.epochs": 5, "head.epochs": 20}, methods=["pft"])
    assert bundle.share.value <= 0.25
    mine = table.rows_of("s23")
    adapted = make_method("pft").adapt(bundle, target_of(mine.take(mine.label == mine.neutral_code)))
    assert any("source people who were held out" in line for line in adapted.warnings)
