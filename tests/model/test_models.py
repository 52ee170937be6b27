import math

import numpy as np
import pytest
import torch

import featlab.model.head as head_module
from featlab.compute import one_cycle
from featlab.config.sections import FeatureConfig
from featlab.errors import InputError
from featlab.model.head import SubjectDeviations, fit_projection
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


def test_logits_equal_the_formula_written_out_in_numpy():
    torch.manual_seed(0)
    head = SourceHead(6, 4, 3)
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


def test_t_equals_the_formula_written_out_in_numpy_and_a_fresh_residual_one_is_the_identity_bitwise(trained_t):
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
    for training in (False, True):
        for dtype in (torch.float16, torch.float32, torch.float64):
            fresh = Translator(6, 5, dropout=0.5).to(dtype).train(training)
            values = (100 * features()).to(dtype)
            assert torch.equal(fresh(values), values)
    assert not torch.allclose(Translator(6, 5, residual=False)(features()), features())


def test_a_personal_model_is_head_of_t_of_projection_row_by_row_in_evaluation_mode(trained_t):
    torch.manual_seed(3)
    projection, head = Projection(torch.ones(8), features(8, 6, seed=4)), SourceHead(6, 4, 3)
    model, values = PersonalModel(projection, trained_t, head), features(9, 8)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert not any(module.training for module in model.modules())
    with torch.no_grad():
        assert torch.equal(model(values), head(trained_t((values - 1) @ projection.components)))
        torch.testing.assert_close(model(values)[:1], model(values[:1]))
        # At step 0 it predicts bitwise as the source model.
        fresh = PersonalModel(projection, Translator(6, 5, dropout=0.5), head)
        assert torch.equal(fresh(values), PersonalModel(projection, None, head)(values))
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


def deviations_by_loop(rows, subject):
    """The oracle: one subject after the other."""
    out = np.empty(rows.shape, dtype=np.float64)
    for code in set(subject.tolist()):
        mine = subject == code
        out[mine] = rows[mine] - rows[mine].mean(axis=0)
    return out


def fitted(table, **config):
    return fit_projection(table.embeddings, table.subject, FeatureConfig(**config))


def aligned(ours, theirs):
    """|cosine| of each pair of columns: directions are known up to their sign."""
    ours, theirs = ours / np.linalg.norm(ours, axis=0), theirs / np.linalg.norm(theirs, axis=0)
    return np.abs((ours * theirs).sum(axis=0))


def test_subject_deviations_are_rows_minus_their_own_subjects_mean(people, monkeypatch):
    monkeypatch.setattr(head_module, "_BLOCK", 7)
    table = people(subjects=4)
    table = table.take(np.random.default_rng(0).permutation(len(table)))
    blocks = list(SubjectDeviations(table.embeddings, 7 * table.subject))
    assert max(map(len, blocks)) == 7
    expected = deviations_by_loop(table.embeddings.astype(np.float64), table.subject)
    np.testing.assert_allclose(np.concatenate(blocks), expected, atol=1e-12)


# Few rows, many rows, and wide rows: scikit-learn takes another solver for each.
@pytest.mark.parametrize("shape", [{"subjects": 4}, {"subjects": 30, "dim": 20}, {"subjects": 8, "dim": 600}])
def test_within_is_pca_of_the_deviations_within_subjects_and_pca_that_of_all_variation(people, shape):
    table = people(classes=7, **shape)
    rows = table.embeddings.astype(np.float64)
    centred = {"within": deviations_by_loop(rows, table.subject), "pca": rows - rows.mean(axis=0)}
    for reduce, values in centred.items():
        directions = np.linalg.svd(values, full_matrices=False)[2][:4].T
        ours = fitted(table, dim=4, reduce=reduce).components.double().numpy()
        assert aligned(ours, directions).min() > 1 - 1e-4


def test_features_vary_by_1_within_subjects_on_average_and_have_mean_0(people):
    table = people()
    for reduce in ("within", "pca", "truncate", "random", "none"):
        for dim in (1, 5, 0):
            projection = fitted(table, dim=dim, reduce=reduce)
            features = projection(torch.from_numpy(table.embeddings)).double().numpy()
            assert (deviations_by_loop(features, table.subject) ** 2).mean() == pytest.approx(1, rel=1e-5)
            np.testing.assert_allclose(features.mean(axis=0), 0, atol=1e-5)
            if reduce in ("within", "pca", "truncate"):
                # Directions are orthogonal and share one scale.
                gram = projection.components.double().T @ projection.components.double()
                np.testing.assert_allclose(gram / gram[0, 0], np.eye(len(gram)), atol=1e-6)


def test_fitting_again_gives_the_same_bits_and_random_directions_follow_the_seed(people):
    table = people(dim=40, subjects=10)

    def directions(dim, reduce, seed=1):
        config = FeatureConfig(dim=dim, reduce=reduce)
        return fit_projection(table.embeddings, table.subject, config, seed=seed).components.numpy()

    for reduce in ("within", "pca", "none", "random"):
        np.testing.assert_array_equal(directions(6, reduce), directions(6, reduce))
    # Fewer are the first of more.
    more = directions(6, "random")
    np.testing.assert_allclose(aligned(directions(3, "random"), more[:, :3]), 1, atol=1e-6)
    assert aligned(more, directions(6, "random", 2)).max() < 0.999


def test_dim_is_a_limit_and_only_what_varies_within_subjects_is_kept(people):
    table = people()
    for dim, kept in ((3, 3), (0, 12), (128, 12)):
        assert fitted(table, dim=dim).components.shape == (12, kept)
    assert fitted(table, dim=5, reduce="none").components.shape == (12, 12)
    rows = table.embeddings.copy()
    rows[:, 9:] = rows[:, :3]
    assert fit_projection(rows, table.subject, FeatureConfig()).components.shape == (12, 9)
    rows = table.embeddings.copy()
    rows[:, 4] = 3.5
    assert fit_projection(rows, table.subject, FeatureConfig(dim=5)).components[4].abs().max() < 1e-6
    # 8 rows of 2 subjects: 6 directions are left when each subject's mean is gone.
    assert fitted(people(subjects=2, clips=1, frames=2, dim=40)).components.shape == (40, 6)


def test_rows_that_teach_nothing_are_refused(people, refused):
    table = people()
    for rows in (0, 1):
        with refused(InputError, "at least 2 source rows", str(rows)):
            fitted(table.take(slice(0, rows)))
    constant = np.repeat(np.array([[1.1, 2.2], [3.3, -4.4]], dtype=np.float32), 3, axis=0)
    with refused(InputError, "nothing to learn"):
        fit_projection(constant, np.repeat(np.arange(2, dtype=np.int32), 3), FeatureConfig())
    rows = table.embeddings.copy()
    rows[:, 0] = table.subject
    with refused(InputError, "features.dim"):
        fit_projection(rows, table.subject, FeatureConfig(dim=1, reduce="truncate"))
