import numpy as np
import pytest
import torch

import featlab.model.head as head_module
from featlab.config.sections import FeatureConfig
from featlab.errors import InputError
from featlab.model.head import SubjectDeviations, fit_projection


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
    shuffled = np.random.default_rng(0).permutation(len(table))
    rows, subject = table.embeddings[shuffled], 7 * table.subject[shuffled]
    blocks = list(SubjectDeviations(rows, subject))
    assert max(map(len, blocks)) == 7
    expected = deviations_by_loop(rows.astype(np.float64), subject)
    np.testing.assert_allclose(np.concatenate(blocks), expected, atol=1e-12)


# Few rows, many rows, and wide rows: scikit-learn takes another solver for each.
@pytest.mark.parametrize(
    ("shape", "dim"),
    [({"subjects": 4, "dim": 12}, 5), ({"subjects": 30, "dim": 20}, 5), ({"subjects": 8, "dim": 600}, 5)],
    ids=["few", "many", "wide"],
)
def test_within_is_pca_of_the_deviations_within_subjects_and_pca_that_of_all_variation(people, shape, dim):
    table = people(classes=7, **shape)
    deviations = deviations_by_loop(table.embeddings.astype(np.float64), table.subject)
    directions = np.linalg.svd(deviations, full_matrices=False)[2][:dim].T
    assert aligned(fitted(table, dim=dim).components.double().numpy(), directions).min() > 1 - 1e-4
    rows = table.embeddings.astype(np.float64)
    directions = np.linalg.svd(rows - rows.mean(axis=0), full_matrices=False)[2][:4].T
    ours = fitted(table, dim=4, reduce="pca").components.double().numpy()
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

    def directions(dim, reduce, seed=0):
        config = FeatureConfig(dim=dim, reduce=reduce)
        projection = fit_projection(table.embeddings, table.subject, config, seed=seed)
        assert projection.components.dtype == projection.mean.dtype == torch.float32
        return projection.components.numpy()

    for reduce in ("within", "pca", "none", "random"):
        np.testing.assert_array_equal(directions(6, reduce, 1), directions(6, reduce, 1))
    # Fewer are the first of more.
    few, more, other = directions(3, "random", 1), directions(6, "random", 1), directions(6, "random", 2)
    assert few.shape[1] == 3
    np.testing.assert_allclose(aligned(few, more[:, :3]), 1, atol=1e-6)
    assert aligned(more, other).max() < 0.999


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
