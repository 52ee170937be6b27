"""Linear probes against scikit-learn, and mean cosines against all pairs of rows."""

import math

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from featlab.analysis.inside.branches import COSINES, expression_probe, halves_by_video, identity_probe, mean_cosines


def made(seed=0, *, person=1.0, expression=1.0, noise=0.5, subjects=6, classes=2, videos=2, frames=5, dim=8):
    """Rows = a person + an expression + noise, each on directions of their own."""
    random = np.random.default_rng(seed)
    people, faces = random.normal(size=(subjects, dim)), random.normal(size=(classes, dim))
    codes = np.indices((subjects, classes, videos, frames)).reshape(4, -1)
    subject, label, video = codes[0], codes[1], codes[1] * videos + codes[2]
    rows = person * people[subject] + expression * faces[label] + noise * random.normal(size=(len(subject), dim))
    return rows, subject, video, label


def scikit_learn(fitted, answers, tested, **options):
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=5000, **options))
    return probe.fit(fitted, answers).predict(tested)


def test_the_probes_equal_scikit_learn_on_halves_and_on_people_left_out():
    rows, subject, video, label = made(1, person=0.6, noise=1.0)
    half = video % 2  # videos 0 and 1 are of one class, 2 and 3 of the other
    assert halves_by_video(subject, video, label).tolist() == half.tolist()
    guess = np.empty_like(subject)
    for side in (0, 1):
        guess[half != side] = scikit_learn(rows[half == side], subject[half == side], rows[half != side])
    found, chance = identity_probe(rows, subject, video, label)
    assert found == pytest.approx({who: (guess == subject)[subject == who].mean() for who in range(6)})
    assert 0.2 < np.mean(list(found.values())) < 1
    assert chance == pytest.approx(1 / 6)
    rows, subject, _, label = made(2, expression=0.6, noise=1.0, classes=3)
    kept = ~((subject == 4) & (label == 2)) & ~((label == 1) & (np.arange(len(label)) % 5 > 1))
    rows, subject, label = rows[kept], subject[kept], label[kept]
    guess = np.empty_like(label)
    for number in range(5):
        tested = subject % 5 == number
        guess[tested] = scikit_learn(rows[~tested], label[~tested], rows[tested], class_weight="balanced")
    found, chance = expression_probe(rows, subject, label)
    assert chance == pytest.approx(1 / 3)
    people = {who: subject == who for who in range(6)}
    assert found == pytest.approx({who: balanced_accuracy_score(label[at], guess[at]) for who, at in people.items()})


def test_a_video_is_never_on_both_sides_and_single_ones_are_left_out():
    # The only thing that tells people apart is which video a row is of: what was fitted must not be tested.
    random = np.random.default_rng(0)
    _, subject, video, label = made(videos=4, frames=8)
    codes = subject * 100 + video
    rows = 5 * random.normal(size=(codes.max() + 1, 40))[codes] + 0.01 * random.normal(size=(len(codes), 40))
    assert np.mean(list(identity_probe(rows, subject, video, label)[0].values())) < 0.6
    half = halves_by_video(subject, video, label)
    assert all(len(np.unique(half[codes == code])) == 1 for code in np.unique(codes))
    # Subject 0: three videos of class 0, one of class 1. Subject 1 has video 1 too, and two of class 1.
    subject, video = np.array([0, 0, 0, 0, 1, 1, 1]), np.array([1, 4, 6, 5, 1, 7, 7])
    assert halves_by_video(subject, video, np.array([0, 0, 0, 1, 1, 1, 1])).tolist() == [0, 1, 0, -1, 0, 1, 1]
    # A video that mixes classes stays whole.
    video, label = np.array([0, 0, 0, 1, 1, 1]), np.array([0, 1, 1, 1, 1, 0])
    assert halves_by_video(np.zeros(6, dtype=int), video, label).tolist() == [0, 0, 0, 1, 1, 1]
    given = made(3)
    _, subject, video, label = given

    def probe(kept):
        return identity_probe(*(column[kept] for column in given))

    assert probe((label == 1) | (video == 0)) == probe(label == 1)
    # A subject with single videos alone is not tested, and no answer either.
    found, chance = probe((subject != 2) | (video % 2 == 0))
    assert (list(found), chance) == ([0, 1, 3, 4, 5], pytest.approx(1 / 5))


def cells_of(seed=0, subjects=5, classes=3, dim=4):
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
    values = {name: {person: [] for person, _ in cells} for name in COSINES}
    for mine in cells:
        for other in (cell for cell in cells if cell != mine):
            same = (mine[0] == other[0], mine[1] == other[1])
            name = {(False, True): "fixed_expression", (True, False): "fixed_subject"}.get(same, "neither")
            first, second = ((subject == cell[0]) & (label == cell[1]) for cell in (mine, other))
            values[name][mine[0]].append(cosine[np.ix_(first, second)].mean())
    return {
        name: {person: np.mean(several) if several else math.nan for person, several in found.items()}
        for name, found in values.items()
    }


def test_cosines_equal_the_mean_over_all_pairs_also_where_classes_subjects_or_directions_lack():
    sets = [cells_of(seed) for seed in range(4)]
    rows, subject, label = cells_of(7)
    kept = ~(((subject == 2) & (label != 3)) | ((subject == 12) & (label == 0)))
    one_class = (rows, subject, np.zeros_like(label))
    one_subject = (rows[:6], np.zeros(6, dtype=int), np.arange(6))
    for given in (*sets, (rows[kept], subject[kept], label[kept]), one_class, one_subject):
        found, expected = mean_cosines(*given), by_brute_force(*given)
        assert list(found) == list(COSINES)
        for name in COSINES:
            assert found[name] == pytest.approx(expected[name], abs=1e-12, nan_ok=True), name
    rows, subject, label = sets[1]
    scaled = mean_cosines(rows * np.random.default_rng(0).uniform(0.1, 9, size=(len(rows), 1)), subject, label)
    assert scaled["fixed_subject"] == pytest.approx(mean_cosines(rows, subject, label)["fixed_subject"], abs=1e-12)
    still = mean_cosines(np.zeros((4, 3)), np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]))
    assert list(still["fixed_expression"].values()) == list(still["fixed_subject"].values()) == [0, 0]
