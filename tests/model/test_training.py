import itertools
import math
import subprocess
import sys

import numpy as np
import pytest
import torch

from featlab.analysis.cost import converged_at, iterations_to_converge
from featlab.config.load import Config
from featlab.config.sections import HeadConfig
from featlab.errors import InputError
from featlab.model.head import train_heads
from featlab.model.pretrain import episodic_pairs, pretrain_translators
from featlab.model.style_bank import SourceRows
from featlab.model.training import Adam, Phase, limit_gradients, minimise, shuffled_batches, train
from featlab.pairing.pairs import make_pairs

FAST = HeadConfig(bottleneck=8, epochs=15, batch=16, lr=1e-2)


def toy(rows=96, classes=3, seed=0):
    """Separable classes: (N, 5) float32 rows and (N,) int16 codes."""
    rng = np.random.default_rng(seed)
    labels = np.arange(rows) % classes
    centres = 4 * rng.normal(size=(classes, 5))
    return torch.from_numpy(centres[labels] + rng.normal(size=(rows, 5))).float(), labels.astype(np.int16)


def trained(config=FAST, *, seed=0, data=None, classes=3, **options):
    features, labels = data or toy()
    return train_heads(features, [labels], classes, config, seed=seed, **options)[0]


def same(ours, theirs):
    return all(torch.equal(tensor, theirs.state_dict()[name]) for name, tensor in ours.state_dict().items())


def test_weights_depend_on_the_seed_alone(monkeypatch):
    # No accelerator is needed to see whether its generator would have been seeded.
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail("seeds the accelerator's generator"))
    noisy = HeadConfig(bottleneck=8, epochs=3, batch=16, noise=0.3)
    first = trained(noisy)
    torch.rand(7)
    assert same(first, trained(noisy))
    assert not same(first, trained(noisy, seed=1))


def test_rows_without_a_label_change_nothing():
    features, labels = toy()
    known = torch.arange(len(features)) % 4 != 0
    hidden = np.where(known.numpy(), labels, -1).astype(np.int16)
    assert same(trained(data=(features, hidden)), trained(data=(features[known], labels[known.numpy()])))


def test_the_reported_loss_is_the_cross_entropy_written_out_in_numpy():
    """One step at learning rate 0: what is reported is the loss of the initial weights in training mode."""
    features, labels = toy(32)
    seen = []
    config = HeadConfig(bottleneck=8, epochs=1, batch=32, lr=0, label_smoothing=0)
    head = trained(config, data=(features, labels), on_epoch=lambda *report: seen.append(report[2]))
    with torch.no_grad():
        logits = head.train()(features).double().numpy()
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    assert seen[0] == pytest.approx(-log_p[np.arange(32), labels].mean(), rel=1e-5)


def test_few_or_constant_rows_and_a_class_without_a_row_give_a_finite_frozen_head():
    for features, labels in ((torch.ones(32, 5), toy(32)[1]), *(toy(rows, classes=2) for rows in (2, 3, 17, 96))):
        head = trained(data=(features, labels), classes=4)
        assert torch.isfinite(head(features)).all()
        assert not any(module.training for module in head.modules())
        assert not any(parameter.requires_grad for parameter in head.parameters())


def test_labels_that_can_not_be_learnt_or_do_not_fit_are_refused(refused):
    few, wrong = ("at least 2 classes", "label the source rows"), ("[-1, 3)",)
    for labels, words in (
        ([1, 1, 1, 1], few),
        ([-1, -1, -1, 2], few),
        ([-1, -1, -1, -1], few),
        ([0, 1, 2], wrong),
        ([0, 1, 2, 3], wrong),
    ):
        with refused(InputError, *words):
            trained(data=(torch.zeros(4, 5), np.array(labels, dtype=np.int16)))


def test_an_epoch_sees_each_row_at_most_once_in_full_batches_and_its_own_order():
    random = torch.Generator().manual_seed(0)
    for rows, batch in ((10, 5), (11, 5), (4, 5), (5, 5), (3, 1)):
        batches = [one.tolist() for one in shuffled_batches(rows, batch, batch, random)]
        assert [len(one) for one in batches] == [batch] * (rows // batch)
        seen = set(itertools.chain(*batches))
        assert len(seen) == batch * (rows // batch)
        assert seen <= set(range(rows))
    first, second = (torch.cat(list(shuffled_batches(20, 5, 5, random))).tolist() for _ in range(2))
    assert first != second


def test_the_loop_takes_the_steps_that_torch_takes_and_leaves_everything_frozen():
    """Two updates a step with one optimiser: each moves its own parameters, at the rate of the step."""
    one, two = torch.nn.Parameter(torch.tensor(1.0)), torch.nn.Parameter(torch.tensor(3.0))
    optimiser = torch.optim.SGD([{"params": [one], "lr": 0.1}, {"params": [two], "lr": 0.01}])
    phases = [
        Phase(optimiser, lambda batch: {"first": batch * (one**2 + two)}, [one]),
        Phase(optimiser, lambda batch: {"second": batch * (two**2 + one)}, [two]),
    ]
    fit = train(phases, [1.0, 2.0], advice="lower x", rate=lambda step: 0.5**step)
    # one: 1 − .1 · 2, then .8 − .05 · 2 · 1.6; two: 3 − .01 · 6, then 2.94 − .005 · 2 · 5.88.
    assert one.item() == pytest.approx(0.64)
    assert two.item() == pytest.approx(2.8812)
    assert not one.requires_grad
    assert not two.requires_grad
    assert (fit.iterations, fit.trainable) == (2, 2)
    first = fit.history[0]
    assert first == pytest.approx({"first": 4.0, "second": 9.8, "loss": 13.8})


def test_adam_takes_the_steps_of_torchs_own_and_passes_over_what_has_no_gradient():
    start = [torch.randn(shape, generator=torch.Generator().manual_seed(3)) for shape in ((4, 3), (3,), (2,))]
    found = []
    for make in (Adam, torch.optim.AdamW):
        tensors = [tensor.clone().requires_grad_() for tensor in start]
        groups = [{"params": tensors[:1], "lr": 0.1}, {"params": tensors[1:]}]
        optimiser = make(groups, lr=0.02, weight_decay=0.3)
        for step in range(20):
            optimiser.zero_grad()
            # One of them joins late, one never.
            ((tensors[0] ** 3).sum() + (tensors[1].sum() if step > 9 else 0)).backward()
            optimiser.step()
        found.append(torch.cat([tensor.detach().flatten() for tensor in tensors]))
    assert torch.equal(*found)
    assert torch.equal(found[0][-2:], start[2])


def test_training_and_counting_operations_leave_torchs_compiler_alone():
    code = (
        "import sys, torch\n"
        "from featlab.evaluation.run import count_flops\n"
        "from featlab.model.training import Adam, Phase, train\n"
        "weight = torch.ones(5, 4, requires_grad=True)\n"
        "losses = lambda rows=None: {'a': ((torch.ones(3, 5) @ weight) ** 2).sum()}\n"
        "operations = count_flops(lambda: train([Phase(Adam([weight]), losses)], range(2), advice=''))\n"
        "print(operations, 'torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    # Two steps of a product of (3, 5) and (5, 4), and of its gradient.
    assert done.stdout.split() == [f"{2 * 2 * 2 * 3 * 5 * 4}.0", "False"]


def test_a_gradient_is_no_longer_than_its_limit():
    value = torch.nn.Parameter(torch.tensor([[3.0, 4.0], [0.1, 0.0]]))  # Of two models.
    value.grad = 2 * value.detach()
    limit_gradients([value], 1.0)
    torch.testing.assert_close(value.grad, torch.tensor([[0.6, 0.8], [0.2, 0.0]]), atol=1e-5, rtol=0)


def test_what_is_not_finite_is_refused_with_what_to_do(refused):
    for lr, steps, words in ((1e30, 3, "at step 2"), (1e38, 1, "in its last step")):
        value = torch.nn.Parameter(torch.tensor(3.0))
        phase = Phase(torch.optim.SGD([value], lr=lr), lambda batch, value=value: {"square": value**2})
        with refused(InputError, f"the thing diverged {words}; lower x.lr"):
            train([phase], range(steps), name="the thing", advice="lower x.lr")


def test_minimising_finds_the_minimum_and_counts_iterations():
    place = torch.tensor([2.0, -1.0], dtype=torch.float64)
    values = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    iterations, history = minimise(
        [values], lambda: {"square": (values - place).square().sum()}, message="", iterations=9
    )
    torch.testing.assert_close(values.detach(), place)
    assert 1 <= iterations <= len(history)


def test_an_exponential_decay_settles_after_three_time_constants_whatever_its_size_and_sign():
    # exp(-t / speed) is below 5 % of its fall from t = speed * ln 20 on; t counts from 0, iterations from 1.
    for speed in (4.0, 9.7, 25.0):
        losses = np.exp(-np.arange(400) / speed)
        for scale, start in ((1, 0), (1e-6, 3e-6), (100, -700)):
            assert converged_at(scale * losses + start) == math.ceil(speed * math.log(20)) + 1


def test_a_step_is_found_where_it_is_and_what_does_not_end_low_has_not_converged():
    outliers, zigzag = [4.0] * 10 + [1.0] * 30, [1.0] * 9 + [0.0, 1.0] * 8 + [0.0] * 20
    outliers[25], outliers[32] = 9.0, -9.0
    falling = list(np.exp(-np.arange(20.0)))
    for losses, expected in (
        ([5.0] * 12 + [1.0] * 30, 13),
        ([5.0] + [1.0] * 9, 2),
        (outliers, 11),
        # Two-sided, so that a dip is not taken for the end.
        ([10.0] * 10 + [0.0] * 20 + [2.0] * 20, 31),
        *(([], 0), ([3.0], 1), ([3.0] * 50, 1), ([5.0, 1.0], 2), ([1.0, 2.0], None)),
        *((list(range(40)), None), ([1.0] + [3.0] * 9 + [2.0] * 30, None)),
        *(([*falling[:at], math.nan, *falling[at + 1 :]], None) for at in (0, 7, 19)),
    ):
        assert converged_at(losses) == expected, losses
    assert converged_at(zigzag) < 26


def entries(losses, name="style"):
    return [{name: loss, "loss": loss} for loss in losses]


def test_stages_are_judged_one_by_one_and_added_where_each_iteration_is_logged():
    # Together they would be one loss that jumps up; apart, each falls.
    first, second = [1.0] * 5 + [0.5] * 15, [90.0] * 8 + [80.0] * 12
    for history, steps, expected in (
        (entries(first, "teacher") + entries(second, "generator"), 40, 6 + 9),
        (entries(first + second), 40, None),
        # One stage that has not converged is enough.
        (entries(first, "teacher") + entries([1.0, 2.0, 3.0], "generator"), 23, None),
        *(((), 0, 0), ((), 25, None), (entries([3.0, 2.0, 1.0]), 2, None), ([{"style": 1.0}], 1, None)),
    ):
        assert iterations_to_converge(history, steps) == expected


SMALL = {"hidden": 8, "epochs": 2, "batch": 16, "lr": 0.01}


@pytest.fixture(scope="module")
def source(people):
    table = people(subjects=4, frames=5)
    return SourceRows.of(table, torch.from_numpy(table.embeddings), make_pairs(table, Config().pair, seed=0))


@pytest.mark.parametrize("axis", ["subject", "vector"])
def test_models_that_are_trained_together_are_those_that_are_trained_alone(axis, source):
    rests = [source.without(torch.tensor([person])) for person in (0, 2)]
    labels = [rest.labels.numpy().astype(np.int16) for rest in rests]
    config = HeadConfig(bottleneck=6, epochs=3, batch=16, noise=0.1)
    values = SMALL | {"axis": axis}
    pretrain = Config().with_values({f"pretrain.{key}": value for key, value in values.items()}, "test").pretrain
    heads = train_heads(source.features, labels, 2, config, seed=3)
    together, _ = pretrain_translators(rests, heads, pretrain, share=0.9, seed=0)
    for rest, codes, head, translator in zip(rests, labels, heads, together, strict=True):
        same = train_heads(source.features, [codes], 2, config, seed=3)[0]
        (alone,), _ = pretrain_translators([rest], [head], pretrain, share=0.9, seed=0)
        # Not the tensors: BatchNorm takes away what a bias before it adds, so that rounding alone moves it.
        for one, other in ((same, head), (alone, translator)):
            torch.testing.assert_close(one(source.features), other(source.features), atol=2e-3, rtol=1e-3)
        assert not torch.equal(translator(source.features), together[0](source.features)) or translator is together[0]


def test_of_models_with_unequal_rows_each_takes_as_many_steps_as_the_largest(source):
    few = source.without(torch.tensor([0, 1]))
    assert len(episodic_pairs(few)) < len(episodic_pairs(source))
    labels = [rest.labels.numpy().astype(np.int16) for rest in (source, few)]
    heads = train_heads(source.features, labels, 2, HeadConfig(bottleneck=6, epochs=3, batch=16), seed=0)
    steps = 3 * (int((source.labels >= 0).sum()) // 16)
    assert [int(head.norm.num_batches_tracked) for head in heads] == [steps, steps]
