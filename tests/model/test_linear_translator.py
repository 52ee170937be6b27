"""The linear T against scikit-learn's logistic regression, and its algebra."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from featlab.compute import torch_generator
from featlab.config.load import Config
from featlab.errors import InputError
from featlab.model.linear import fit_linear_translator, head_map, linear_translator
from featlab.model.networks import SourceHead
from featlab.model.style_bank import SourceRows

DIM, CLASSES = 5, 3


def random_head(classes=CLASSES, seed=0):
    torch.manual_seed(seed)
    head = SourceHead(DIM, 7, classes)
    head.train()
    head(torch.randn(64, DIM) * 2 + 1)
    return head.eval().requires_grad_(False)


@pytest.fixture
def head():
    return random_head()


@pytest.fixture(scope="module")
def rows(people):
    table = people(subjects=6, frames=6, classes=CLASSES)
    return SourceRows.of(table, torch.from_numpy(table.embeddings[:, :DIM].copy()))


def config_of(**values):
    return Config().with_values({f"pretrain.{key}": value for key, value in values.items()}, "test").pretrain


def test_t_gives_the_wanted_probabilities_through_the_unchanged_head():
    for classes in (2, 3, 5):
        head, features = random_head(classes), torch.randn(50, DIM)
        weight, bias = head_map(head)
        torch.testing.assert_close(features.double() @ weight + bias, head(features).double(), atol=1e-5, rtol=1e-5)
        weight, bias = torch.randn(DIM, classes).double(), torch.randn(classes).double()
        ours = torch.softmax(head(linear_translator(head, weight, bias)(features)), dim=1)
        expected = torch.softmax(features.double() @ weight + bias, dim=1)
        torch.testing.assert_close(ours.double(), expected, atol=1e-4, rtol=0)


def test_t_moves_features_along_the_directions_that_c_tells_apart_alone(head):
    features, bias = torch.randn(50, DIM), torch.zeros(CLASSES).double()
    assert torch.equal(linear_translator(head, *head_map(head))(features), features)
    change = linear_translator(head, torch.randn(DIM, CLASSES).double(), bias)(features) - features
    assert torch.linalg.matrix_rank(change, atol=1e-3) <= CLASSES - 1
    # A head that tells nothing apart leaves T without a move.
    head.classifier.parametrizations.weight.original0.zero_()
    torch.testing.assert_close(linear_translator(head, torch.randn(DIM, CLASSES).double(), bias)(features), features)


@pytest.mark.parametrize("penalty", [1.0, 12.0])
def test_it_is_the_logistic_regression_that_scikit_learn_fits(penalty, rows, head):
    """The same episodes, the same weights, the same penalty: another program, another solver."""
    translator, history = fit_linear_translator(rows, head, config_of(penalty=penalty, episodes=1), share=0.8, seed=3)
    every = torch.arange(len(rows.features))
    centre = rows.subject_mean().mean(dim=0)
    seen = rows.features + 0.8 * (centre - rows.episode_mean(every, torch_generator(3, "linear")))
    share = rows.tested_share(every).double()
    weight = (share / share.sum()).numpy()
    # scikit-learn minimises C · Σ wᵢ lossᵢ + ‖W‖² / 2.
    fitted = LogisticRegression(C=len(np.unique(rows.row_video)) / penalty, tol=1e-10, max_iter=20_000)
    fitted.fit(seen.double().numpy(), rows.labels.numpy(), sample_weight=weight)
    expected = fitted.predict_proba(seen.double().numpy())
    ours = torch.softmax(head(translator(seen)), dim=1).numpy()
    np.testing.assert_allclose(ours, expected, atol=2e-3)
    assert history[-1]["loss"] < history[0]["loss"]
    assert history[-1]["loss"] == pytest.approx(history[-1]["penalty"] + history[-1]["classification"])


def test_rows_without_a_label_change_nothing(rows, head):
    labels = rows.labels.masked_fill(torch.arange(len(rows.labels)) % 5 == 0, -1)
    known = replace(rows, labels=labels)
    spoilt = replace(known, features=torch.where((labels < 0)[:, None], 1e3, rows.features))
    ours, theirs = (fit_linear_translator(item, head, config_of(), seed=1)[0] for item in (known, spoilt))
    assert torch.equal(ours.first.weight, theirs.first.weight)


def test_what_it_can_not_learn_from_is_refused(rows, head, refused):
    for word, given in (
        ("neutral rows", replace(rows, labels=torch.full_like(rows.labels, -1))),
        ("not finite", replace(rows, features=rows.features * torch.nan)),
    ):
        with refused(InputError, word):
            fit_linear_translator(given, head, config_of(), seed=0)
