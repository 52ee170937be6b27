"""The relation losses of SFIT against explicit Gram matrices, their gradients, odd features."""

import numpy as np
import pytest
import torch

from featlab.errors import InputError
from featlab.methods.sfit import RELATION_LOSSES

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


@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_equals_finite_differences_and_never_reaches_the_teacher(name):
    # An odd width: where half of the signs agree, the relation of one vector has no slope.
    student, teacher = drawn(4, 3).requires_grad_(True), drawn(4, 3, seed=1).requires_grad_(True)
    loss = RELATION_LOSSES[name]
    assert torch.autograd.gradcheck(lambda values: loss(values, teacher), student)
    loss(student, teacher).backward()
    assert student.grad.abs().min() > 0
    assert teacher.grad is None


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
