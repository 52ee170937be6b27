"""The generator's losses against their definitions, and how discriminators and generator take turns."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from featlab.methods.disentanglement import (
    Swap,
    adam,
    generator_losses,
    identity_discriminator_loss,
    new_disentangler,
    take_turns,
)
from featlab.methods.dsfda import DSFDAConfig
from featlab.seeding import seeded

HALF = 3
"""Width of an expression code; a feature has twice as many values."""


def weigh(identity, expression, feature_matching, cycle):
    return DSFDAConfig(identity=identity, expression=expression, feature_matching=feature_matching, cycle=cycle)


ONES = weigh(1.0, 1.0, 1.0, 1.0)


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
    weights = weigh(0.3, 0.7, 1.5, 4.0)
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


def small_game(weights=ONES, generator_lr=1e-3):
    """Networks, an encoder, and a function that plays batches with them."""
    networks = new_disentangler(6, HALF, 4, 2, seed=0).requires_grad_(False)
    with seeded(0):
        encode = nn.Linear(6, HALF).requires_grad_(False)
    rows = normal(16, 6)
    judge = networks.identity_discriminator

    def swapped(picked):
        return swap_of(networks, rows[picked], rows[picked.flip(0)], encode, labels=picked % 4)

    def discriminator_losses(picked, swap):
        return {"judge": identity_discriminator_loss(judge, swap.rows, swap.identity, swap.generated)}

    discriminators = adam(1e-3, [judge])
    generator = adam(generator_lr, [networks.decoder, encode], [networks.identity_encoder])

    def play(batches):
        return take_turns(
            networks,
            ((picked, swapped(picked)) for picked in batches),
            discriminator_losses,
            discriminators=discriminators,
            generator=generator,
            weights=weights,
            random=random(),
            advice="lower x.lr",
        )

    return networks, encode, play


BATCHES = [torch.arange(8), torch.arange(8, 16), torch.arange(4, 12)]


def test_each_side_moves_its_own_tensors_and_nobody_elses():
    networks, encode, play = small_game()
    before = {name: value.clone() for name, value in networks.state_dict().items()}
    code = {name: value.clone() for name, value in encode.state_dict().items()}
    play(BATCHES)
    for name, value in networks.state_dict().items():
        assert torch.equal(value, before[name]) == name.startswith("expression_discriminator."), name
    assert not any(torch.equal(value, code[name]) for name, value in encode.state_dict().items())


def test_what_the_generator_wants_does_not_move_the_discriminators():
    """The generator's loss passes through the discriminators; what it leaves there is not stepped on."""
    judges = []
    for weights in (ONES, weigh(100.0, 100.0, 100.0, 0.0)):
        networks, _, play = small_game(weights, generator_lr=0.0)
        before = networks.identity_discriminator.last.weight.clone()
        play(BATCHES)
        judges.append(networks.identity_discriminator.state_dict())
        assert not torch.equal(judges[-1]["last.weight"], before)
    assert all(torch.equal(value, judges[1][name]) for name, value in judges[0].items())


def test_what_starts_from_nothing_learns_ten_times_as_fast():
    networks, encode, play = small_game()
    before = networks.identity_encoder[2].bias.clone(), encode.bias.clone()
    play(BATCHES[:1])
    # Adam's first step is the rate, whatever the gradient.
    assert (networks.identity_encoder[2].bias - before[0]).abs().max().item() == pytest.approx(1e-2, rel=1e-2)
    assert (encode.bias - before[1]).abs().max().item() == pytest.approx(1e-3, rel=1e-2)
