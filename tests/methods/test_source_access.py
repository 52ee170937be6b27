"""The losses and parts of the methods with source access against closed forms and NumPy."""

import copy

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from sklearn.cluster import KMeans

from featlab.methods import make_method, moment_matching
from featlab.methods.adversarial import (
    SOURCE,
    TARGET,
    GraphAdaptation,
    SWDConfig,
    cluster_means,
    moved_means,
    normalised,
    normalised_links,
    pair_nodes,
    part_ways,
)
from featlab.methods.losses.domains import (
    random_directions,
    sliced_wasserstein,
)
from featlab.methods.moment_matching import class_ratios, discriminative_loss, norm_growth_loss
from featlab.methods.source_side import locality_loss, pair_labels
from featlab.protocol.splits import target_of


@pytest.fixture(scope="module")
def run(bundle, source, mine):
    """Adapt to all rows of the target by default."""

    def adapt(name, rows=mine, **options):
        return make_method(name, {name: options}).adapt(bundle, target_of(rows), source=source, seed=0)

    return adapt


def random_rows(*shape, seed=0, shift=0.0):
    return torch.from_numpy(np.random.default_rng(seed).normal(shift, size=shape))


def locality_by_loops(z, labels, neighbours):
    value = 0.0
    for i, row in enumerate(z):
        others = np.delete(z, i, axis=0)[np.delete(labels, i) == labels[i]]
        if len(others):
            nearest = others[np.linalg.norm(others - row, axis=1).argsort()[:neighbours]]
            value += 0.5 * np.sum(np.square(row - nearest.mean(axis=0)))
    return value / len(z)


def test_locality_equals_a_loop_over_rows_and_draws_a_row_to_its_neighbours_mean():
    z, labels = random_rows(12, 3), np.random.default_rng(1).integers(0, 3, size=12)
    for neighbours in (1, 2, 20):
        expected = locality_by_loops(z.numpy(), labels, neighbours)
        assert locality_loss(z, torch.from_numpy(labels), neighbours).item() == pytest.approx(expected, rel=1e-9)
    z = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0], [7.0, 7.0]], requires_grad=True)
    locality_loss(z, torch.tensor([0, 0, 0, 1]), 20).backward()
    means = torch.tensor([[1.0, 1.0], [0.0, 1.0], [1.0, 0.0], [7.0, 7.0]])
    torch.testing.assert_close(z.grad, (z.detach() - means) / 4)
    assert locality_loss(z.detach()[:1], torch.tensor([0]), 20).item() == 0


def test_pair_labels_compare_each_row_with_the_next():
    for labels, expected in (([0, 0, 1], [1, 0, 0]), ([2, 2, 2], [1, 1, 1]), ([1], [1])):
        assert pair_labels(torch.tensor(labels)).tolist() == expected


def test_icid_learns_both_channels_and_predicts_by_c_of_their_mean(run, source):
    head, no_pairs = (run("icid", iterations=20, pairs=weight).model.head for weight in (1.0, 0.0))
    assert all((channel.change.weight.abs() > 0).all() for channel in (head.common, head.distinct))
    assert not torch.equal(head.common.change.weight, no_pairs.common.change.weight)
    z = head.head.bottleneck(source.features)
    ours, theirs = (z + channel.change(z) for channel in (head.common, head.distinct))
    torch.testing.assert_close(head(source.features), head.head.classify((ours + theirs) / 2))


def test_the_norm_loss_is_always_one_and_its_gradient_is_the_published_one_at_any_distance():
    z = torch.tensor([[0.0, 0.0], [6.0, 8.0], [1e4, 0.0]], requires_grad=True)
    loss = norm_growth_loss(z)
    loss.backward()
    assert loss.item() == pytest.approx(1, rel=1e-2)
    torch.testing.assert_close(z.grad, -torch.tensor([[0.0, 0.0], [0.4, 1.6 / 3], [2 / 3, 0.0]]), rtol=1e-2, atol=0)


def test_the_discriminative_term_equals_a_loop_over_pairs():
    z, labels = random_rows(8, 3), np.array([0, 0, 0, 1, 1, 2, 2, 2])
    distance = cdist(z.numpy(), z.numpy())
    distance = 1 - np.exp(-distance / distance.mean())
    within = [distance[i, j] for i in range(8) for j in range(8) if i != j and labels[i] == labels[j]]
    between = [distance[i, j] for i in range(8) for j in range(8) if labels[i] != labels[j]]
    expected = 0.5 * (np.mean(within) - np.mean(between))
    assert discriminative_loss(z, torch.from_numpy(labels)).item() == pytest.approx(expected, rel=1e-9)


def test_ratios_are_fractions_of_the_target_over_fractions_of_the_source():
    ratios = class_ratios(torch.tensor([0, 0, 1, 2]), torch.tensor([0, 1, 1, 1, 3]), 4)
    # A class that the source lacks has no weight.
    np.testing.assert_allclose(ratios, [0.2 / 0.5, 0.6 / 0.25, 0.0, 0.0], rtol=1e-6)


def test_pseudo_labels_are_the_models_predictions_and_renewed(run, bundle, features, monkeypatch):
    seen = []

    def record(ours, theirs, classes):
        seen.append(theirs.clone())
        return class_ratios(ours, theirs, classes)

    monkeypatch.setattr(moment_matching, "class_ratios", record)
    # A last third at a hundredth of the rate: the model of the last renewal predicts what the final one does.
    model = run("detn", iterations=30, lr=1e-2)
    assert len(seen) == 3
    assert torch.equal(seen[0], bundle.head(features).argmax(dim=1))
    assert (seen[-1] == model.model.head(features).argmax(dim=1)).float().mean() > 0.8


def test_the_first_step_of_cada_and_a_discriminator_without_weight_are_ftdnn_on_the_joint_batch(run, mine):
    """The reversal starts at 0: what an untrained discriminator says moves nothing."""

    for steps, options, same in ((1, {}, True), (9, {"domain": 0.0}, True), (9, {}, False)):
        plain = run("ftdnn", iterations=steps, bn_mode="eval").predict_proba(mine.embeddings)
        model = run("cada", iterations=steps, bn_mode="eval", **options)
        assert np.allclose(model.predict_proba(mine.embeddings), plain, atol=1e-6) is same
    assert model.history[0]["domain"] == pytest.approx(np.log(2), abs=0.1)


def test_classifiers_part_in_opposite_directions(bundle):
    first, second = (copy.deepcopy(bundle.head.classifier) for _ in range(2))
    part_ways(first, second, 0.1, torch.Generator().manual_seed(0))
    for one, other, before in zip(
        first.parameters(), second.parameters(), bundle.head.classifier.parameters(), strict=True
    ):
        torch.testing.assert_close((one + other) / 2, before)
        size = (one - before).square().mean().sqrt() / before.square().mean().sqrt()
        assert 0.02 < size < 0.3


def test_in_a_step_the_classifiers_pull_apart_and_then_b_makes_them_agree(run, features, monkeypatch):
    """One step without momentum; with weight 0 what is left of it is the classification of the source."""
    monkeypatch.setattr(SWDConfig, "momentum", 0.0)
    monkeypatch.setattr(SWDConfig, "spread", 0.5)
    options = {"iterations": 1, "lr": 1e-2, "bn_mode": "eval", "batch": 48}
    apart, alone = (run("swd", disagreement=value, **options).model.head for value in (1.0, 0.0))
    directions = random_directions(3, 500, torch.Generator().manual_seed(0))

    @torch.no_grad()
    def disagreement(classifiers, bottleneck):
        z = bottleneck.head.bottleneck(features)
        p, q = (torch.softmax(part(z), dim=1) for part in (classifiers.head.classify, classifiers.second))
        return sliced_wasserstein(p, q, directions).item()

    assert disagreement(apart, alone) > 1.0001 * disagreement(alone, alone)
    assert disagreement(apart, apart) < 0.9999 * disagreement(apart, alone)
    # The model averages both.
    z = apart.head.bottleneck(features)
    torch.testing.assert_close(apart(features), (apart.head.classify(z) + apart.second(z)) / 2)


def test_the_graph_equals_numpy_with_links_that_are_never_negative_and_the_nearest_mean_as_the_other_node():
    links = torch.tensor([[2.0, -3.0], [-1.0, -1.0]])
    assert torch.equal(normalised_links(links), torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
    graph = GraphAdaptation(4, 5).double()
    torch.nn.init.normal_(graph.last.weight, generator=torch.Generator().manual_seed(0))
    nodes = random_rows(3, 2, 4)
    across = np.array([[1.0, 0.9], [0.9, 1.0]]) / 1.9
    first, last = ((part.weight.detach().numpy(), part.bias.detach().numpy()) for part in (graph.first, graph.last))
    for row in range(3):
        passed = nodes[row].numpy() @ first[0].T + first[1]
        expected = across @ np.maximum(passed, 0) @ last[0].T + last[1]
        # The links were divided in float32.
        np.testing.assert_allclose(graph(nodes)[row].detach(), expected, rtol=1e-5, atol=1e-6)
    z, means = torch.tensor([[0.0, 0.0], [9.0, 9.0]]), torch.tensor([[1.0, 1.0], [8.0, 8.0]])
    assert torch.equal(pair_nodes(z, means, SOURCE), torch.stack([z, means], dim=1))
    assert torch.equal(pair_nodes(z, means, TARGET), torch.stack([means, z], dim=1))


def test_clusters_equal_scikit_learns_of_rows_normalised_as_in_training(bundle, source):
    rows = torch.cat([random_rows(20, 3), random_rows(20, 3, seed=1, shift=4.0)])
    start = rows[[0, -1]]
    expected = KMeans(2, init=start.numpy(), n_init=1).fit(rows.numpy()).cluster_centers_
    np.testing.assert_allclose(cluster_means(rows, start), expected, rtol=1e-9)
    means, rows = torch.tensor([[0.0], [10.0], [100.0]]), torch.tensor([[1.0], [3.0], [11.0]])
    torch.testing.assert_close(cluster_means(rows, means), torch.tensor([[2.0], [11.0], [100.0]]))
    torch.testing.assert_close(moved_means(means, rows, 0.1), torch.tensor([[0.2], [10.1], [100.0]]))
    values = bundle.head.linear(source.features).detach()
    norm = copy.deepcopy(bundle.head.norm)
    torch.testing.assert_close(normalised(norm, values, "eval"), norm(values))
    torch.testing.assert_close(normalised(norm, values[:1], "train"), norm(values[:1]))
    found = normalised(norm, values, "train")
    assert torch.equal(norm.running_mean, bundle.head.norm.running_mean)
    torch.testing.assert_close(found, norm.train()(values))


def test_agra_has_a_batch_norm_for_each_domain_and_one_target_row_is_no_batch_of_its_own(run, bundle, mine, features):
    # The one that is returned has seen target rows and no source rows.
    model = run("agra", iterations=60, lr=0.0)
    expected = bundle.head.linear(features).mean(dim=0)
    torch.testing.assert_close(model.model.head.head.norm.running_mean, expected, atol=0.1, rtol=0.05)
    assert model.warnings == ()
    model = run("agra", mine.take([0]), iterations=3)
    assert torch.equal(model.model.head.head.norm.running_mean, bundle.head.norm.running_mean)
    (warning,) = model.warnings
    assert "one row is no batch" in warning
    assert run("agra", mine.take([0]), iterations=3, bn_mode="eval").warnings == ()
