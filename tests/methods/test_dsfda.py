"""DSFDA: its losses and turns, what it prepares at the source, what it changes at a target, that a collapse is seen."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.spatial.distance import cdist
from torch import nn

from featlab.config.sections import HeadConfig
from featlab.errors import InputError
from featlab.methods import get_method, make_method
from featlab.methods.disentanglement import Swap, generator_losses, identity_discriminator_loss, new_disentangler
from featlab.methods.dsfda import draw_codes, train_disentangler
from featlab.model.head import train_heads
from featlab.model.networks import SourceHead
from featlab.model.style_bank import SourceRows
from featlab.protocol.splits import target_of

CLASSES = 3


def adapted(bundle, rows, **options):
    return make_method("dsfda", {"dsfda": {"iterations": 4} | options}).adapt(bundle, target_of(rows))


def prepare(table, bundle):
    with torch.no_grad():
        features = bundle.projection(torch.from_numpy(table.embeddings))
    return get_method("dsfda").prepare(SourceRows.of(table, features), bundle)


def test_a_bundle_carries_what_is_declared_and_gaussians_of_the_source_codes_class_by_class(bundle, table):
    source, extras = table.without("s05"), bundle.extras["dsfda"]
    assert {name.partition(".")[0] for name in extras} == {"decoder", "expression_discriminator", "gaussians"}
    with torch.no_grad():
        codes = bundle.head.bottleneck(bundle.projection(torch.from_numpy(source.embeddings))).numpy()
    for code in range(CLASSES):
        mine = codes[source.label == code]
        np.testing.assert_allclose(extras["gaussians.mean"][code], mine.mean(axis=0), atol=1e-5)
        np.testing.assert_allclose(extras["gaussians.std"][code], np.sqrt(mine.var(axis=0) + 1e-6), rtol=1e-4)
    assert extras["gaussians.known"].tolist() == [True] * CLASSES
    assert all(torch.equal(value, extras[name]) for name, value in prepare(source, bundle).items())


def test_a_class_of_a_single_row_has_no_gaussian_because_its_mean_would_be_the_row(bundle, table, rows, refused):
    source = table.without("s05")
    rare = np.flatnonzero(source.label == 2)
    extras = prepare(source.take(np.setdiff1d(np.arange(len(source)), rare[1:])), bundle)
    assert extras["gaussians.known"].tolist() == [True, True, False]
    assert (extras["gaussians.mean"][2] == 0).all()
    assert np.isfinite(adapted(replace(bundle, extras={"dsfda": extras}), rows).history[-1]["loss"])
    with refused(InputError, "dsfda", "label the source rows"):
        prepare(replace(source, label=np.full(len(source), -1, dtype=np.int16)), bundle)


def test_generated_rows_have_the_identity_of_one_row_and_the_expression_of_another():
    """Rows that are who plus how plus noise, turned."""
    rng = np.random.default_rng(0)
    people, classes = 6, 4
    who, how = rng.normal(size=(people, 6)), rng.normal(size=(classes, 6))
    identity = np.tile(np.repeat(np.arange(people), classes), 25)
    label = np.tile(np.tile(np.arange(classes), people), 25)
    turn = np.linalg.qr(rng.normal(size=(16, 16)))[0][:12]
    latent = np.concatenate([who[identity], how[label]], axis=1) + 0.4 * rng.normal(size=(len(label), 12))
    features = torch.tensor(latent @ turn, dtype=torch.float32)
    (head,) = train_heads(features, [label.astype(np.int16)], classes, HeadConfig(bottleneck=8, epochs=20), seed=0)
    networks = train_disentangler(features, torch.from_numpy(label), torch.from_numpy(identity), head, seed=0)
    random = torch.Generator().manual_seed(0)
    other = torch.randperm(len(features), generator=random)
    with torch.no_grad():
        made = networks.generate(features, head.bottleneck(features[other]), random)
        shown = head(made).argmax(dim=1).numpy()
    nearest = cdist(made.numpy() @ turn[:6].T, who).argmin(axis=1)
    # Chance is 1/4 and 1/6; what the row itself shows must not come along.
    different = label != label[other]
    assert np.mean(shown == label[other]) > 0.55
    assert np.mean(shown[different] == label[different]) < 0.3
    assert np.mean(nearest == identity) > 0.7


def test_every_class_with_a_gaussian_is_drawn_and_codes_follow_it(bundle):
    extras = bundle.extras["dsfda"] | {"gaussians.known": torch.tensor([True, False, True])}
    code, expression = draw_codes(extras, 4000, torch.Generator().manual_seed(0))
    assert set(expression.tolist()) == {0, 2}
    assert abs((expression == 0).float().mean().item() - 0.5) < 0.05
    mine = code[expression == 2]
    spread = extras["gaussians.std"][2]
    assert ((mine.mean(dim=0) - extras["gaussians.mean"][2]).abs() < 0.15 * spread).all()
    torch.testing.assert_close(mine.std(dim=0), spread, rtol=0.1, atol=0)


def test_rows_are_labelled_by_the_source_model_or_known_to_be_neutral_and_one_label_is_warned_of(people, small_bundle):
    # People whom the source model gets right.
    clear = people(subjects=8, classes=CLASSES, clips=4, frames=10, dim=16, identity=0.5, resting=0.2)
    values = {"head.epochs": 15, "head.bottleneck": 16}
    clear_bundle = small_bundle(clear.without("s07"), values, methods=["dsfda"])
    mine = clear.rows_of("s07")
    others = mine.take(mine.label == 2)
    guessed = adapted(clear_bundle, others, gaussians="none")
    known = adapted(clear_bundle, others, gaussians="none", known_label=True)
    for model, name in ((guessed, "disgust"), (known, "neutral")):
        drifts = "gaussians = none shows no other class: the result drifts to that one answer"
        assert model.warnings == (f"every row counts as '{name}' and {drifts}",)
    # The source model is right about them, so that its labels cost less than wrong ones.
    assert guessed.history[0]["classification"] < known.history[0]["classification"]
    assert adapted(clear_bundle, others, known_label=True).warnings == ()
    assert adapted(clear_bundle, mine, gaussians="none").warnings == ()


HEAD = SourceHead(6, 3, 4)
"""Codes are half as wide as features."""


def random(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=random(seed))


def swap_of(networks, rows, reference, *, drawn=False):
    code, count = HEAD.linear(reference), torch.arange(len(rows))
    generated = networks.generate(rows, code, random(1))
    given = None if drawn else reference
    return Swap(rows, HEAD.linear(rows), count % 2, code, count % 4, given, generated, HEAD.linear(generated))


def by_hand(networks, swap, seed):
    """The five terms, from their definitions."""
    judge, noise = networks.identity_discriminator, random(seed)

    def generate(rows, code):
        drawn = torch.randn(len(rows), 256, generator=noise)
        return networks.decoder(torch.cat([code, networks.identity_encoder(rows), drawn], dim=1))

    back = generate(swap.generated, swap.own)
    # A code that was drawn belongs to no row: the code has to come back.
    again, wanted = swap.recovered, swap.code
    if swap.reference is not None:
        again, wanted = generate(swap.reference, swap.recovered), swap.reference
    matching = F.leaky_relu(judge.first(swap.generated), 0.2) - F.leaky_relu(judge.first(swap.rows), 0.2)
    return {
        "identity cycle": 5 * (back - swap.rows).abs().mean(),
        "expression cycle": 5 * (again - wanted).abs().mean(),
        "identity": 0.2 * F.cross_entropy(judge(swap.generated), swap.identity),
        "expression": 0.8 * F.cross_entropy(networks.expression_discriminator(swap.generated), swap.expression),
        "feature matching": matching.square().mean(),
    }


@pytest.mark.parametrize("drawn", [False, True])
def test_every_term_equals_its_definition_and_all_together_reach_every_tensor_of_encoders_and_decoder(drawn):
    networks = new_disentangler(HEAD, 2, 0)
    swap = swap_of(networks, normal(9, 6), normal(9, 6, seed=1), drawn=drawn)
    terms, expected = generator_losses(networks, swap, random(7)), by_hand(networks, swap, 7)
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        assert terms[name].item() == pytest.approx(value.item(), rel=1e-4), name
    torch.stack(list(terms.values())).sum().backward()
    for part in (networks.identity_encoder, networks.decoder, HEAD.linear):
        assert all(value.grad.abs().sum() > 0 for value in part.parameters())


def test_the_judge_of_one_person_tells_two_things_apart_and_the_last_is_generated():
    networks = new_disentangler(HEAD, 1, 0)
    judge = networks.identity_discriminator
    assert judge.last.out_features == 2
    nn.init.zeros_(judge.last.weight)
    with torch.no_grad():
        judge.last.bias.copy_(torch.tensor([5.0, 0.0]))
    swap = swap_of(networks, normal(4, 6), normal(4, 6, seed=1))
    swap = replace(swap, identity=0 * swap.identity, generated=swap.generated.detach().requires_grad_())
    loss = identity_discriminator_loss(judge, swap)
    # It calls everything real: right on the real ones, wrong by 5 on the generated ones.
    assert loss.item() == pytest.approx(2 * math.log1p(math.exp(-5)) + 5, rel=1e-5)
    loss.backward()
    assert swap.generated.grad is None
