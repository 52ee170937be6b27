"""The generator's losses against their definitions, and how discriminators and generator take turns."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from featlab.compute import seeded
from featlab.methods.disentanglement import (
    Swap,
    adam,
    generator_losses,
    identity_discriminator_loss,
    new_disentangler,
    take_turns,
)
from featlab.methods.dsfda import DSFDAConfig

HALF = 3
"""Width of an expression code; a feature has twice as many values."""


def random(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=random(seed))


def swap_of(networks, rows, reference, encode, *, drawn=False, labels=None):
    code = encode(reference)
    generated = networks.generate(rows, code, random(1))
    count = len(rows)
    return Swap(
        rows=rows,
        own=encode(rows),
        identity=torch.arange(count) % 2,
        code=code,
        expression=torch.arange(count) % 4 if labels is None else labels,
        reference=None if drawn else reference,
        generated=generated,
        recovered=encode(generated),
    )


def by_hand(networks, swap, weights, seed):
    """The five terms, from their definitions."""
    judge, noise = networks.identity_discriminator, random(seed)

    def hidden(judge, values):
        return F.leaky_relu(judge.first(values), 0.2)

    def entropy(judge, values, codes):
        return F.cross_entropy(judge.last(hidden(judge, values)), codes)

    def generate(rows, code):
        drawn = torch.randn(len(rows), 256, generator=noise)
        return networks.decoder(torch.cat([code, networks.identity_encoder(rows), drawn], dim=1))

    back = generate(swap.generated, swap.own)
    # A code that was drawn belongs to no row: the code has to come back.
    again, wanted = swap.recovered, swap.code
    if swap.reference is not None:
        again, wanted = generate(swap.reference, swap.recovered), swap.reference
    matching = hidden(judge, swap.generated) - hidden(judge, swap.rows)
    return {
        "identity cycle": weights.cycle * (back - swap.rows).abs().mean(),
        "expression cycle": weights.cycle * (again - wanted).abs().mean(),
        "identity": weights.identity * entropy(judge, swap.generated, swap.identity),
        "expression": weights.expression * entropy(networks.expression_discriminator, swap.generated, swap.expression),
        "feature matching": weights.feature_matching * matching.square().mean(),
    }


@pytest.mark.parametrize("drawn", [False, True])
def test_every_term_equals_its_definition_and_all_together_reach_every_tensor_of_encoders_and_decoder(drawn):
    published = DSFDAConfig()
    assert (published.identity, published.expression, published.feature_matching, published.cycle) == (0.2, 0.8, 1, 5)
    networks, encode = new_disentangler(6, HALF, 4, 2, seed=0), nn.Linear(6, HALF)
    swap = swap_of(networks, normal(9, 6), normal(9, 6, seed=1), encode, drawn=drawn)
    weights = DSFDAConfig(identity=0.3, expression=0.7, feature_matching=1.5, cycle=4.0)
    terms = generator_losses(networks, swap, weights, random(7))
    expected = by_hand(networks, swap, weights, 7)
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        assert terms[name].item() == pytest.approx(value.item(), rel=1e-4), name
    torch.stack(list(terms.values())).sum().backward()
    for part in (networks.identity_encoder, networks.decoder, encode):
        for name, value in part.named_parameters():
            assert value.grad.abs().sum() > 0, name


def test_the_judge_of_one_person_tells_two_things_apart_and_the_last_is_generated():
    judge = new_disentangler(6, HALF, 4, 1, seed=0).identity_discriminator
    assert judge.last.out_features == 2
    nn.init.zeros_(judge.last.weight)
    with torch.no_grad():
        judge.last.bias.copy_(torch.tensor([5.0, 0.0]))
    rows, generated = normal(4, 6), normal(3, 6, seed=1).requires_grad_()
    loss = identity_discriminator_loss(judge, rows, torch.zeros(4, dtype=torch.int64), generated)
    # It calls everything real: right on the real ones, wrong by 5 on the generated ones.
    assert loss.item() == pytest.approx(2 * math.log1p(math.exp(-5)) + 5, rel=1e-5)
    loss.backward()
    assert generated.grad is None


def test_each_side_moves_its_own_tensors_and_nobody_elses():
    networks = new_disentangler(6, HALF, 4, 2, seed=0).requires_grad_(False)
    with seeded(0):
        encode = nn.Linear(6, HALF).requires_grad_(False)
    rows, judge = normal(16, 6), networks.identity_discriminator

    def swapped(picked):
        return swap_of(networks, rows[picked], rows[picked.flip(0)], encode, labels=picked % 4)

    def discriminator_losses(picked, swap):
        return {"judge": identity_discriminator_loss(judge, swap.rows, swap.identity, swap.generated)}

    before = {name: value.clone() for name, value in networks.state_dict().items()}
    code = {name: value.clone() for name, value in encode.state_dict().items()}
    take_turns(
        networks,
        ((picked, swapped(picked)) for picked in (torch.arange(8), torch.arange(8, 16), torch.arange(4, 12))),
        discriminator_losses,
        discriminators=adam(1e-3, [judge]),
        generator=adam(1e-3, [networks.decoder, encode], [networks.identity_encoder]),
        weights=DSFDAConfig(identity=1.0, expression=1.0, feature_matching=1.0, cycle=1.0),
        random=random(),
        advice="lower x.lr",
    )
    for name, value in networks.state_dict().items():
        assert torch.equal(value, before[name]) == name.startswith("expression_discriminator."), name
    assert not any(torch.equal(value, code[name]) for name, value in encode.state_dict().items())
