"""The relation losses of SFIT: closed forms, explicit Gram matrices as oracle, what they are blind to, gradients."""

import numpy as np
import pytest
import torch

from featlab.errors import InputError
from featlab.methods.sfit import (
    RELATION_LOSSES,
    batch_relation_loss,
    channel_relation_loss,
    vector_relation_loss,
)

NAMES = sorted(RELATION_LOSSES)


def drawn(rows, width, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(rows, width)))


def scaled_rows(matrix):
    """Every row at length 1; rows of zeros stay."""
    length = np.linalg.norm(matrix, axis=1, keepdims=True)
    return np.divide(matrix, length, out=np.zeros_like(matrix), where=length > 0)


def explicit(name, student, teacher):
    """With every Gram matrix written out."""

    def difference(a, b):
        return np.sum((scaled_rows(a) - scaled_rows(b)) ** 2) / len(a)

    if name == "gram":
        return difference(student.T @ student, teacher.T @ teacher)
    if name == "batch":
        return difference(student @ student.T, teacher @ teacher.T)
    return np.mean([difference(np.outer(s, s), np.outer(t, t)) for s, t in zip(student, teacher, strict=True)])


@pytest.mark.parametrize("name", NAMES)
def test_every_relation_equals_explicit_gram_matrices(name):
    for shape in ((5, 3), (2, 6), (1, 4), (4, 1)):
        student, teacher = drawn(*shape), drawn(*shape, seed=1)
        student[0, 0] = 0
        expected = explicit(name, student.numpy(), teacher.numpy())
        assert RELATION_LOSSES[name](student, teacher).item() == pytest.approx(expected, abs=1e-12)


def test_the_published_values():
    identity, ones = torch.eye(2), torch.ones(2, 2)
    assert batch_relation_loss(identity, ones).item() == pytest.approx(0.585786, abs=1e-6)
    assert channel_relation_loss(identity, ones).item() == pytest.approx(2 - np.sqrt(2), abs=1e-6)
    assert vector_relation_loss(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])).item() == 1.0


def test_the_relation_of_one_vector_is_a_cosine_times_the_fraction_of_equal_signs():
    student, teacher = drawn(6, 9), drawn(6, 9, seed=1)
    cosine = torch.nn.functional.cosine_similarity(student, teacher, dim=1)
    expected = (2 - 2 * cosine * torch.sign(student * teacher).mean(dim=1)).mean()
    torch.testing.assert_close(vector_relation_loss(student, teacher), expected)


def test_what_each_relation_is_blind_to():
    features = drawn(5, 4)
    for name in NAMES:
        for scale in (1e-3, 1.0, 1e4):
            assert abs(RELATION_LOSSES[name](scale * features, features).item()) < 1e-12
    rotation = torch.linalg.qr(drawn(4, 4, seed=1)).Q
    mixing = torch.linalg.qr(drawn(5, 5, seed=2)).Q
    assert abs(batch_relation_loss(features @ rotation, features).item()) < 1e-12
    assert channel_relation_loss(features @ rotation, features).item() > 0.1
    assert abs(channel_relation_loss(mixing @ features, features).item()) < 1e-12
    assert batch_relation_loss(mixing @ features, features).item() > 0.1
    assert abs(vector_relation_loss(-features, features).item()) < 1e-12


@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_is_that_of_the_explicit_matrices_and_never_reaches_the_teacher(name):
    # An odd width: where half of the signs agree, the relation of one vector has no slope.
    student, teacher = drawn(4, 3).requires_grad_(True), drawn(4, 3, seed=1).requires_grad_(True)
    RELATION_LOSSES[name](student, teacher).backward()
    assert student.grad.abs().min() > 0
    assert teacher.grad is None
    start, fixed, step = student.detach().numpy(), teacher.detach().numpy(), 1e-6
    numeric = np.zeros_like(start)
    for place in np.ndindex(start.shape):
        move = np.zeros_like(start)
        move[place] = step
        ahead, behind = (explicit(name, start + sign * move, fixed) for sign in (1, -1))
        numeric[place] = (ahead - behind) / (2 * step)
    np.testing.assert_allclose(student.grad.numpy(), numeric, atol=1e-7)


@pytest.mark.parametrize("name", NAMES)
def test_odd_features_give_finite_values_and_gradients(name):
    for student in (torch.zeros(3, 4), torch.ones(3, 4), drawn(1, 4).float(), 1e7 * drawn(3, 4).float()):
        student.requires_grad_(True)
        loss = RELATION_LOSSES[name](student, torch.zeros_like(student))
        loss.backward()
        assert torch.isfinite(loss)
        assert torch.isfinite(student.grad).all()


def test_shapes_that_do_not_fit_are_refused(refused):
    for name in NAMES:
        for student, teacher in (((3, 4), (3, 5)), ((0, 4), (0, 4)), ((4,), (4,))):
            with refused(InputError, "relation loss", str(student), str(teacher)):
                RELATION_LOSSES[name](torch.zeros(student), torch.zeros(teacher))
