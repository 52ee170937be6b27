import math

import numpy as np
import pytest
import torch

from featlab.compute import one_cycle
from featlab.model.networks import PersonalModel, Projection, SourceHead, Translator


def features(n=9, dim=6, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(n, dim))).float()


@pytest.fixture
def trained_t():
    """A T with no zero in it, offset included."""
    torch.manual_seed(0)
    made = Translator(6, 5)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter)
    return made


def test_a_projection_centres_and_then_multiplies_with_nothing_to_train():
    embeddings, mean, components = features(9, 6), features(1, 6, seed=1)[0], features(6, 4, seed=2)
    expected = (embeddings.numpy().astype(np.float64) - mean.numpy()) @ components.numpy()
    projection = Projection(mean, components)
    np.testing.assert_allclose(projection(embeddings), expected, rtol=1e-5, atol=1e-5)
    assert not list(projection.parameters())
    assert set(projection.state_dict()) == {"mean", "components"}


def test_logits_equal_the_formula_written_out_in_numpy():
    torch.manual_seed(0)
    head = SourceHead(6, 4, 3)
    assert head.linear.bias.abs().max() == head.classifier.bias.abs().max() == 0
    head(features(50, seed=5))  # in training mode: moves the running statistics off 0 and 1
    head.eval()
    state = {name: tensor.detach().double().numpy() for name, tensor in head.state_dict().items()}
    z = features().double().numpy() @ state["linear.weight"].T + state["linear.bias"]
    z = (z - state["norm.running_mean"]) / np.sqrt(state["norm.running_var"] + head.norm.eps)
    z = z * state["norm.weight"] + state["norm.bias"]
    length, direction = (state[f"classifier.parametrizations.weight.original{i}"] for i in (0, 1))
    weight = length * direction / np.linalg.norm(direction, axis=1, keepdims=True)
    with torch.no_grad():
        np.testing.assert_allclose(head.bottleneck(features()), z, atol=1e-5)
        np.testing.assert_allclose(head(features()), z @ weight.T + state["classifier.bias"], atol=1e-5)
        assert torch.equal(head(features()), head.classify(head.bottleneck(features())))


def test_a_fresh_residual_t_is_the_identity_bitwise_and_a_literal_one_is_not():
    for training in (False, True):
        for dtype in (torch.float16, torch.float32, torch.float64):
            fresh = Translator(6, 5, dropout=0.5).to(dtype).train(training)
            values = (100 * features()).to(dtype)
            assert torch.equal(fresh(values), values)
    assert not torch.allclose(Translator(6, 5, residual=False)(features()), features())


def test_t_equals_the_formula_written_out_in_numpy(trained_t):
    state = {name: tensor.double().numpy() for name, tensor in trained_t.state_dict().items()}
    g = features().double().numpy() + state["offset"]
    change = np.maximum(g @ state["first.weight"].T + state["first.bias"], 0) @ state["last.weight"].T
    change = change + state["last.bias"]
    for residual in (True, False):
        trained_t.residual = residual
        with torch.no_grad():
            np.testing.assert_allclose(trained_t(features()), change + residual * g, atol=1e-4)
    # Dropout acts in training only.
    trained_t.dropout.p = 0.5
    assert torch.equal(trained_t.eval()(features()), trained_t(features()))
    assert not torch.equal(trained_t.train()(features()), trained_t(features()))


@pytest.fixture
def parts():
    torch.manual_seed(3)
    projection = Projection(torch.ones(8), features(8, 6, seed=4))
    return projection, Translator(6, 5, dropout=0.5), SourceHead(6, 4, 3)


def test_a_personal_model_is_head_of_t_of_projection_row_by_row_in_evaluation_mode(parts, trained_t):
    projection, fresh, head = parts
    model = PersonalModel(projection, trained_t, head)
    assert not any(module.training for module in model.modules())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    values = features(9, 8)
    with torch.no_grad():
        assert torch.equal(model(values), head(trained_t(projection(values))))
        assert torch.equal(model.features(values), trained_t(projection(values)))
        torch.testing.assert_close(model(values)[:1], model(values[:1]))
        # At step 0 it predicts bitwise as the source model.
        source = PersonalModel(projection, None, head)
        assert torch.equal(PersonalModel(projection, fresh, head)(values), source(values))
        model(100 + 10 * features(32, 8))
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_one_cycle_rises_in_a_line_and_falls_along_half_a_cosine():
    factors = [one_cycle(step, 100) for step in range(100)]
    np.testing.assert_allclose(factors[:10], np.arange(1, 11) / 10)
    np.testing.assert_allclose(factors[10:], 0.5 * (1 + np.cos(math.pi * np.arange(90) / 90)))
    for total in (1, 2, 3, 9, 10, 1000):
        factors = [one_cycle(step, total) for step in range(total)]
        assert max(factors) == 1.0
        assert min(factors) > 0
