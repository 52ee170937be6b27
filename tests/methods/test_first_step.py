"""The first step of ten methods equals the step by hand, of loss terms that have oracles of their own."""

import copy

import pytest
import torch
import torch.nn.functional as F

from featlab.methods import make_method
from featlab.methods.base import ordered_features
from featlab.methods.losses.domains import class_weights, exponential_kernel, marginal_weights, maximum_mean_discrepancy
from featlab.methods.losses.target import (
    centre_labels,
    entropies,
    information_loss,
    marginal_entropy,
    mean_entropy,
    neighbour_agreement,
)
from featlab.methods.moment_matching import class_ratios, discriminative_loss, norm_growth_loss
from featlab.methods.neighbourhood import NeighbourBank, confident_rows, destinations, neighbour_walks
from featlab.methods.source_side import locality_loss
from featlab.protocol.splits import target_of

ON_TARGET = {"shot-im": 0.0, "shot": 0.0, "nrc": 1.0, "tpds": 0.1}
"""Rate of C, as a multiple of B's."""
ON_BOTH = {
    "ftdnn": {},
    "lpl": {"locality": 0.3},
    "dfa": {"align": 2.0, "discriminate": 3.0},
    "detn": {"align": 2.0},
    "ecan": {"align": 2.0, "conditional": 3.0},
    "safn": {"norm": 2.0, "entropy": 3.0},
}


def target_terms(name, head, features, bn_mode):
    """The terms of a method that learns from the target alone, on all its rows at once."""
    with torch.no_grad():
        z = head.bottleneck(features)
        p = torch.softmax(head.classify(z), dim=1)
    labels, _ = centre_labels(z, p)
    confident = confident_rows(entropies(p), centre_labels(z, p, rounds=1)[1])
    reached = destinations(neighbour_walks(features), confident)
    head.norm.train(bn_mode == "train")
    z = head.bottleneck(features)
    p = torch.softmax(head.classify(z), dim=1)
    terms = {"diversity": -marginal_entropy(p)}
    if name == "tpds":
        terms["information"] = information_loss(p, torch.softmax(head(features[reached]), dim=1))
    elif name == "nrc":
        # The first half of training: K = 3, M = 2.
        bank = NeighbourBank.of(z, p)
        near, beyond, affinity = bank.around(torch.arange(len(p)), 3, 2)
        terms["neighbours"] = neighbour_agreement(p, bank.scores[near], affinity)
        terms["expanded neighbours"] = neighbour_agreement(p, bank.scores[beyond.flatten(1)], 0.1)
    else:
        terms["entropy"] = mean_entropy(p)
        if name == "shot":
            terms["pseudo-labels"] = 0.3 * F.cross_entropy(head.classify(z), labels)
    return terms


def joint_terms(name, head, source, features, bn_mode):
    """The terms of a method with source access, on all rows of both domains at once."""
    labels, predicted = source.labels, head(features).argmax(dim=1)
    head.norm.train(bn_mode == "train")
    if name in ("ftdnn", "lpl"):
        ours = head.bottleneck(source.features)
    else:
        both = head.bottleneck(torch.cat([source.features, features]))
        ours, theirs = both.split([len(labels), len(features)])
    terms = {"classification": F.cross_entropy(head.classify(ours), labels)}
    if name == "lpl":
        terms["locality"] = 0.3 * locality_loss(ours, labels, 20)
    if name == "dfa":
        terms["alignment"] = 2 * (ours.mean(dim=0) - theirs.mean(dim=0)).square().sum()
        terms["discrimination"] = 3 * discriminative_loss(ours, labels)
    if name == "safn":
        terms |= {f"{side} norm": 2 * norm_growth_loss(z) for side, z in (("source", ours), ("target", theirs))}
        terms["entropy"] = 3 * mean_entropy(torch.softmax(head.classify(theirs), dim=1))
    if name in ("detn", "ecan"):
        kernel, ratios = exponential_kernel(both), class_ratios(labels, predicted, 3)
        weights = marginal_weights(ratios[labels], len(theirs))
        terms["alignment"] = 2 * maximum_mean_discrepancy(kernel, weights)
    if name == "ecan":
        weights = class_weights(labels, predicted, 3)
        terms["alignment by class"] = 3 * maximum_mean_discrepancy(kernel, weights).mean()
    return terms


@pytest.mark.parametrize("bn_mode", ["train", "eval"])
@pytest.mark.parametrize("name", [*ON_TARGET, *ON_BOTH])
def test_the_first_step_equals_the_step_by_hand(name, bn_mode, bundle, source, mine):
    """Loss terms, and every parameter of B and C after a step along their gradient."""
    # Not as many rows of each class.
    target, head = target_of(mine.take(slice(16))), copy.deepcopy(bundle.head).requires_grad_(True)
    features, options = ordered_features(bundle, target), {"bn_mode": bn_mode, "batch": 1000, "lr": 0.05}
    if name in ON_TARGET:
        model = make_method(name, {name: options | {"epochs": 1}}).adapt(bundle, target)
        terms = target_terms(name, head, features, bn_mode)
        # Nesterov's momentum, and a rate that falls, but for NRC.
        size, decay = (0.05 * 1.9, 5e-4) if name == "nrc" else (0.05 * 1.9 * 11**-0.75, 1e-3)
    else:
        options |= {"iterations": 1, **ON_BOTH[name]}
        model = make_method(name, {name: options}).adapt(bundle, target, source=source)
        terms = joint_terms(name, head, source, features, bn_mode)
        size, decay = 0.05, 5e-4
    torch.stack(list(terms.values())).sum().backward()
    (entry,) = model.history
    assert entry.keys() == {*terms, "loss"}
    for term, value in terms.items():
        assert entry[term] == pytest.approx(value.item(), rel=1e-4, abs=1e-5), term
    after = dict(model.model.head.named_parameters())
    for key, parameter in head.named_parameters():
        rate = ON_TARGET.get(name, 1.0) if key.startswith("classifier") else 1.0
        expected = parameter.detach() - size * rate * (parameter.grad + decay * parameter.detach())
        torch.testing.assert_close(after[key], expected, atol=1e-5, rtol=1e-4, msg=key)
