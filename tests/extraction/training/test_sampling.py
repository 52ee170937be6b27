"""An epoch shows each class equally often, and within a class each subject."""

from __future__ import annotations

import numpy as np
import torch

from featlab.extraction.training.data import balanced_epoch, balanced_groups, batches


def test_shares_are_equal_over_classes_and_over_subjects_within_a_class() -> None:
    # Class 0: subject 0 with 90 rows, subject 1 with 10. Class 1: subject 0 alone, 20 rows.
    subject = np.array([0] * 90 + [1] * 10 + [0] * 20)
    label = np.array([0] * 100 + [1] * 20)
    epoch = balanced_epoch(balanced_groups(subject, label), torch.Generator().manual_seed(0)).numpy()
    assert len(epoch) == 120
    counts = {
        (int(c), int(s)): int(((label[epoch] == c) & (subject[epoch] == s)).sum()) for c, s in [(0, 0), (0, 1), (1, 0)]
    }
    assert counts == {(0, 0): 30, (0, 1): 30, (1, 0): 60}


def test_an_image_comes_again_only_after_all_of_its_group() -> None:
    subject, label = np.array([0] * 9 + [1] * 3), np.zeros(12, dtype=np.intp)
    epoch = balanced_epoch(balanced_groups(subject, label), torch.Generator().manual_seed(0))
    assert sorted(torch.bincount(epoch, minlength=12)[9:].tolist()) == [2, 2, 2]
    assert torch.bincount(epoch, minlength=12)[:9].max() == 1


def test_balanced_rows_are_each_seen_once_and_in_a_new_order() -> None:
    subject, label = np.repeat([0, 1, 2], 8), np.tile([0, 1], 12)
    random = torch.Generator().manual_seed(0)
    groups = balanced_groups(subject, label)
    first, second = balanced_epoch(groups, random), balanced_epoch(groups, random)
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(24))
    assert first.tolist() != second.tolist()


def test_batches_are_of_one_size_and_at_least_one() -> None:
    assert [part.tolist() for part in batches(torch.arange(7), 3)] == [[0, 1, 2], [3, 4, 5]]
    assert [part.tolist() for part in batches(torch.arange(2), 3)] == [[0, 1]]
