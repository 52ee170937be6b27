"""SFIT and SFDA-IT: a generator in front of an unchanged source model, and the retrained teacher of SFIT."""

import numpy as np
import pytest
import scipy.special
import torch

from featlab.methods import make_method
from featlab.methods.losses.target import mean_entropy
from featlab.methods.translation import agreeing_entropy, channel_relation_loss, statistics_loss
from featlab.protocol.splits import target_of

CLASSES = 3


def adapt(name, bundle, rows, **options):
    small = {"iterations": 30} | ({} if name == "sfda-it" else {"teacher_epochs": 5})
    return make_method(name, {name: small | options}).adapt(bundle, target_of(rows))


def test_the_first_step_equals_the_published_objective(bundle, mine, features):
    """All rows in one batch, G still the identity: source model against SHOT-IM's on the same features."""
    entry = next(entry for entry in adapt("sfit", bundle, mine).history if "knowledge" in entry)
    teacher = shot_im(bundle, mine)
    with torch.no_grad():
        source, taught = bundle.head(features), teacher(features)
        related = channel_relation_loss(bundle.head.bottleneck(features), teacher.bottleneck(features)).item()
    p, q = (scipy.special.softmax(logits.double().numpy(), axis=1) for logits in (taught, source))
    divergence = np.sum(scipy.special.rel_entr(p, q)) / (len(mine) * CLASSES)
    assert entry["knowledge"] == pytest.approx(divergence, rel=1e-4)
    assert entry["relation"] == pytest.approx(related, rel=1e-4)


def shot_im(bundle, rows, **options):
    return make_method("shot-im", {"shot-im": {"epochs": 5} | options}).adapt(bundle, target_of(rows)).model.head


def test_a_teacher_is_shot_im_and_retraining_moves_its_bottleneck_by_rows_where_both_agree(bundle, mine, features):
    # A teacher that went far in a few steps, and a translation that took one.
    options = {"bn_mode": "eval", "teacher_lr": 0.3, "iterations": 1}
    teacher = shot_im(bundle, mine, lr=0.3, bn_mode="eval")
    before = adapt("sfit-T", bundle, mine, retrain_epochs=0, **options).model.head
    assert all(torch.equal(tensor, teacher.state_dict()[name]) for name, tensor in before.state_dict().items())
    after = adapt("sfit-T", bundle, mine, retrain_epochs=1, retrain_batch=64, **options)
    assert isinstance(after.model.translator, torch.nn.Identity)
    changed = {
        name
        for name, tensor in before.state_dict().items()
        if not torch.equal(tensor, after.model.head.state_dict()[name])
    }
    assert changed == {"linear.weight", "linear.bias", "norm.weight", "norm.bias"}
    translate = adapt("sfit", bundle, mine, **options).model.translator
    with torch.no_grad():
        p, translated = torch.softmax(teacher(features), dim=1), bundle.head(translate(features)).argmax(dim=1)
    entropy = after.history[-1]["entropy"]
    assert entropy == pytest.approx(agreeing_entropy(p, translated).item(), rel=1e-4)
    assert entropy != pytest.approx(mean_entropy(p).item(), rel=1e-2)


def test_statistics_of_rows_without_spread_have_a_finite_gradient():
    values = torch.ones(4, 3, requires_grad=True)
    statistics_loss(values, torch.zeros(3), torch.ones(3)).backward()
    torch.testing.assert_close(values.grad, torch.full((4, 3), 2 / (3 * 4)))


def test_the_first_steps_of_sfda_it_equal_numpy(table, bundle, mine, features):
    """All rows in one batch; G is the identity at first: no content is lost, style is what the person differs in."""
    carried = bundle.extras["sfda-it"]
    assert carried.keys() == {"mean", "std"}
    source = bundle.projection.of_rows(table.without("s05").embeddings).double().numpy()
    np.testing.assert_allclose(carried["mean"], source.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(carried["std"], source.std(axis=0, ddof=1), rtol=1e-4)
    linear, norm = bundle.head.linear, bundle.head.norm
    before = features.double().numpy() @ linear.weight.double().numpy().T + linear.bias.double().numpy()
    stored = (
        (features.double().numpy(), source.mean(axis=0), source.std(axis=0, ddof=1)),
        (before, norm.running_mean.double().numpy(), np.sqrt(norm.running_var.double().numpy())),
    )
    style = [
        np.mean((values.mean(axis=0) - mean) ** 2) + np.mean((values.std(axis=0, ddof=1) - std) ** 2)
        for values, mean, std in stored
    ]
    first, second = adapt("sfda-it", bundle, mine, iterations=2, content=3.0).history
    assert first["style"] == pytest.approx(np.mean(style), rel=1e-4)
    assert first["content"] == pytest.approx(0, abs=1e-6)
    # The second step's content is from a generator that took the first one.
    once = adapt("sfda-it", bundle, mine, iterations=1).model.translator
    with torch.no_grad():
        apart = (bundle.head.bottleneck(once(features)) - bundle.head.bottleneck(features)).abs().mean().item()
    assert second["content"] == pytest.approx(3 * apart, rel=1e-4) != 0


def drawn(rows, width, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(rows, width)))


def explicit(student, teacher):
    """With every Gram matrix written out, its rows at length 1; rows of zeros stay."""
    scaled = []
    for values in (student, teacher):
        gram = values.T @ values
        length = np.linalg.norm(gram, axis=1, keepdims=True)
        scaled.append(np.divide(gram, length, out=np.zeros_like(gram), where=length > 0))
    return np.sum((scaled[0] - scaled[1]) ** 2) / len(scaled[0])


def test_the_relation_equals_explicit_gram_matrices_and_its_gradient_never_reaches_the_teacher():
    for shape in ((5, 3), (2, 6), (1, 4)):
        student, teacher = drawn(*shape), drawn(*shape, seed=1)
        student[0, 0] = 0
        expected = explicit(student.numpy(), teacher.numpy())
        assert channel_relation_loss(student, teacher).item() == pytest.approx(expected, abs=1e-12)
    student, teacher = drawn(4, 3).requires_grad_(True), drawn(4, 3, seed=1).requires_grad_(True)
    assert torch.autograd.gradcheck(lambda values: channel_relation_loss(values, teacher), student)
    channel_relation_loss(student, teacher).backward()
    assert student.grad.abs().min() > 0
    assert teacher.grad is None
    for odd in (torch.zeros(3, 4), torch.ones(3, 4), 1e7 * drawn(3, 4).float()):
        odd.requires_grad_(True)
        channel_relation_loss(odd, torch.zeros_like(odd)).backward()
        assert torch.isfinite(odd.grad).all()
