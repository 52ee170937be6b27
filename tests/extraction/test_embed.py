import numpy as np
import pytest

from featlab.extraction.shards import StorageError, storage_error


def test_the_error_is_the_length_of_what_was_lost_over_the_rows():
    rows = np.random.default_rng(0).normal(size=(50, 64)).astype(np.float32)
    errors = storage_error(rows)
    for row, error in zip(rows, errors, strict=True):
        exact = row.astype(np.float64)
        lost = exact - row.astype(np.float16).astype(np.float64)
        assert error == pytest.approx(np.linalg.norm(lost) / np.linalg.norm(exact), rel=1e-9)
    assert 0 < errors.max() < 2**-11


def test_exact_values_cost_nothing_small_numbers_more_and_large_ones_everything():
    rows = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
    assert (storage_error(rows, "float32") == 0).all()
    assert (storage_error(np.array([[1.5, -2.0], [0.0, 0.0]], dtype=np.float32)) == 0).all()
    errors = storage_error(np.array([[1e-7, 2e-7], [1e5, 1.0], [1e-30, 1e-30]], dtype=np.float32))
    assert 0.01 < errors[0] <= 1
    assert np.isinf(errors[1])
    assert errors[2] == pytest.approx(1)


def test_blocks_are_summed_up_over_their_rows():
    rows = np.random.default_rng(1).normal(size=(31, 8)).astype(np.float32)
    whole = StorageError.of([storage_error(rows)])
    assert StorageError.of([storage_error(rows[:4]), storage_error(rows[4:])]) == whole
    assert whole.rows == 31
    assert whole.median == pytest.approx(np.median(storage_error(rows)))
    assert whole.max == storage_error(rows).max()
    assert StorageError.of([]) == StorageError(0, 0.0, 0.0)
    assert StorageError.of([storage_error(rows[:0])]) == StorageError(0, 0.0, 0.0)
