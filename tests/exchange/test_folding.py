"""The folded head against the model that it was folded from, for every method of the registry."""

import pytest
import torch
from torch import nn

from featlab.errors import InputError
from featlab.exchange.formats import fold
from featlab.methods import base_model
from featlab.model.networks import PersonalModel, Translator


@pytest.mark.parametrize("residual", [True, False])
def test_a_translator_with_an_offset_folds_exactly_in_float64(bundle, residual):
    # Every tensor of T differs from its default, and the comparison is in float64, where rounding hides nothing.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        translator = Translator(8, 5, residual=residual, dropout=0.5)
        for tensor in translator.parameters():
            nn.init.normal_(tensor)
        rows = torch.randn(50, 12, dtype=torch.float64)
    model = PersonalModel(bundle.projection, translator, bundle.head)
    head = fold(model).to(torch.float64)
    with torch.no_grad():
        features = (rows - model.projection.mean) @ model.projection.components.double()
        shifted = features + translator.offset
        change = torch.relu(shifted @ translator.first.weight.T.double() + translator.first.bias)
        change = change @ translator.last.weight.T.double() + translator.last.bias
        translated = shifted + change if residual else change
        z = translated @ bundle.head.linear.weight.T.double() + bundle.head.linear.bias
        norm = bundle.head.norm
        z = (z - norm.running_mean) / torch.sqrt(norm.running_var.double() + norm.eps) * norm.weight + norm.bias
        expected = z @ bundle.head.classifier.weight.T.double() + bundle.head.classifier.bias
        difference = (head(rows)["logits"] - expected).abs().max()
    assert difference < 1e-4 * expected.abs().max()


def test_what_has_no_hidden_layer_or_one_whose_output_is_zero_folds_to_one_affine_map(bundle):
    with torch.random.fork_rng(devices=[]):
        translator = Translator(8, 5)
    with torch.no_grad():
        translator.offset.fill_(0.5)
    rows = torch.ones(2, 12)
    for model in (base_model(bundle), PersonalModel(bundle.projection, translator, bundle.head)):
        head = fold(model)
        assert set(head.state_dict()) == {"mean", "direct_weight", "direct_bias"}
        assert head.direct_weight.shape == (12, 3)
        with torch.no_grad():
            torch.testing.assert_close(head(rows)["logits"], model(rows), atol=1e-5, rtol=1e-5)


def test_folding_changes_nothing_of_the_model_and_parts_that_no_method_makes_are_refused(adapted, bundle, refused):
    model = adapted("pft")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fold(model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    for translator, head, name in ((nn.Sequential(), bundle.head, "Sequential"), (None, nn.Tanh(), "Tanh")):
        with refused(InputError, name, "can't be exported"):
            fold(PersonalModel(bundle.projection, translator, head))
