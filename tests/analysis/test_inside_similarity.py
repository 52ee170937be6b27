import numpy as np
import pytest

from featlab.analysis.inside.probes import mean_cosines
from featlab.errors import InputError


def rows_of(seed=0, subjects=5, classes=3, dim=4):
    """Cells of 1 to 6 rows in random order, with codes that have gaps."""
    random = np.random.default_rng(seed)
    cells = [(5 * person + 2, 3 * kind) for person in range(subjects) for kind in range(classes)]
    codes = np.array([cell for cell in cells for _ in range(random.integers(1, 7))])
    codes = codes[random.permutation(len(codes))]
    return random.normal(size=(len(codes), dim)), codes[:, 0], codes[:, 1]


def by_brute_force(rows, subject, label):
    """All pairs of rows, then all pairs of cells, one at a time."""
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    cosine = unit @ unit.T
    cells = sorted(set(zip(subject.tolist(), label.tolist(), strict=True)))
    found = {}
    for person in sorted(set(subject.tolist())):
        values = {"fixed_expression": [], "fixed_subject": [], "neither": []}
        for mine in cells:
            for other in cells:
                if mine[0] != person or mine == other:
                    continue
                same = (mine[0] == other[0], mine[1] == other[1])
                name = {(False, True): "fixed_expression", (True, False): "fixed_subject"}.get(same, "neither")
                first = (subject == mine[0]) & (label == mine[1])
                second = (subject == other[0]) & (label == other[1])
                values[name].append(cosine[np.ix_(first, second)].mean())
        found[person] = {name: np.mean(several) if several else np.nan for name, several in values.items()}
    return found


def check(rows, subject, label):
    found, expected = mean_cosines(rows, subject, label), by_brute_force(rows, subject, label)
    assert found.subject.tolist() == list(expected)
    for name in ("fixed_expression", "fixed_subject", "neither"):
        wanted = [value[name] for value in expected.values()]
        np.testing.assert_allclose(getattr(found, name), wanted, rtol=0, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("seed", range(4))
def test_it_equals_the_mean_over_all_pairs(seed):
    check(*rows_of(seed))


def test_it_does_where_subjects_lack_classes():
    rows, subject, label = rows_of(7)
    kept = ~(((subject == 2) & (label != 3)) | ((subject == 12) & (label == 0)))
    check(rows[kept], subject[kept], label[kept])


def test_directions_count_and_lengths_do_not():
    rows, subject, label = rows_of(1)
    scaled = mean_cosines(rows * np.random.default_rng(0).uniform(0.1, 9, size=(len(rows), 1)), subject, label)
    np.testing.assert_allclose(scaled.fixed_subject, mean_cosines(rows, subject, label).fixed_subject, atol=1e-12)


def test_pure_expression_and_pure_identity():
    # Four rows along the axes: two people, two classes, twice.
    subject, label = np.array([0, 0, 1, 1] * 2), np.array([0, 1, 0, 1] * 2)
    by_class = mean_cosines(np.eye(2)[label], subject, label)
    assert by_class.fixed_expression.tolist() == [1, 1]
    assert by_class.fixed_subject.tolist() == by_class.neither.tolist() == [0, 0]
    by_person = mean_cosines(np.eye(2)[subject], subject, label)
    assert by_person.fixed_subject.tolist() == [1, 1]
    assert by_person.fixed_expression.tolist() == by_person.neither.tolist() == [0, 0]


def test_long_clips_weigh_no_more_than_short_ones():
    rows = np.array([[1.0, 0], [1.0, 0], [0, 1.0], [-1.0, 0]])
    subject, label = np.array([0, 1, 2, 0]), np.array([0, 0, 0, 1])
    once = mean_cosines(rows, subject, label)
    many = np.repeat(np.arange(4), [1, 50, 3, 1])
    again = mean_cosines(rows[many], subject[many], label[many])
    np.testing.assert_allclose(again.fixed_expression, once.fixed_expression)
    np.testing.assert_allclose(once.fixed_expression, [0.5, 0.5, 0.0])


def test_one_class_one_subject_and_rows_without_a_direction():
    rows, subject, label = rows_of(2)
    alone = mean_cosines(rows, subject, np.zeros_like(label))
    assert np.isfinite(alone.fixed_expression).all()
    assert np.isnan(alone.fixed_subject).all()
    assert np.isnan(alone.neither).all()
    single = mean_cosines(rows[:6], np.zeros(6, dtype=int), np.arange(6))
    assert np.isnan(single.fixed_expression).all()
    assert np.isfinite(single.fixed_subject).all()
    still = mean_cosines(np.zeros((4, 3)), np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]))
    assert still.fixed_expression.tolist() == still.fixed_subject.tolist() == [0, 0]


def test_what_cannot_be_compared_is_refused(refused):
    rows, subject, label = rows_of()
    with refused(InputError, "need rows"):
        mean_cosines(rows[:0], subject[:0], label[:0])
    with refused(InputError, "need rows"):
        mean_cosines(rows, subject[:-1], label)
    rows[3, 1] = np.nan
    with refused(InputError, "NaN"):
        mean_cosines(rows, subject, label)
