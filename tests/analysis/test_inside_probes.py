"""Linear probes against scikit-learn, and mean cosines against all pairs of rows."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from featlab.analysis.inside.probes import expression_probe, halves_by_video, identity_probe, mean_cosines
from featlab.errors import InputError


def made(seed=0, *, person=1.0, expression=1.0, noise=0.5, subjects=6, classes=2, videos=2, frames=5, dim=8):
    """Rows = a person + an expression + noise, each on directions of their own."""
    random = np.random.default_rng(seed)
    people, faces = random.normal(size=(subjects, dim)), random.normal(size=(classes, dim))
    codes = [
        (who, kind * videos + number, kind)
        for who in range(subjects)
        for kind in range(classes)
        for number in range(videos)
        for _ in range(frames)
    ]
    subject, video, label = np.array(codes).T
    rows = person * people[subject] + expression * faces[label] + noise * random.normal(size=(len(codes), dim))
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
    found = identity_probe(rows, subject, video, label)
    assert found.subject.tolist() == list(range(6))
    assert found.score.tolist() == pytest.approx([(guess == subject)[subject == who].mean() for who in range(6)])
    assert 0.2 < found.score.mean() < 1
    rows, subject, _, label = made(2, expression=0.6, noise=1.0, classes=3)
    kept = ~((subject == 4) & (label == 2)) & ~((label == 1) & (np.arange(len(label)) % 5 > 1))
    rows, subject, label = rows[kept], subject[kept], label[kept]
    guess = np.empty_like(label)
    for number in range(5):
        tested = subject % 5 == number
        guess[tested] = scikit_learn(rows[~tested], label[~tested], rows[tested], class_weight="balanced")
    found = expression_probe(rows, subject, label)
    assert found.chance == pytest.approx(1 / 3)
    expected = [balanced_accuracy_score(label[subject == who], guess[subject == who]) for who in range(6)]
    assert found.score.tolist() == pytest.approx(expected)


def test_a_video_is_never_on_both_sides():
    # The only thing that tells people apart is which video a row is of: what was fitted must not be tested.
    random = np.random.default_rng(0)
    _, subject, video, label = made(videos=4, frames=8)
    codes = subject * 100 + video
    rows = 5 * random.normal(size=(codes.max() + 1, 40))[codes] + 0.01 * random.normal(size=(len(codes), 40))
    assert identity_probe(rows, subject, video, label).score.mean() < 0.6
    half = halves_by_video(subject, video, label)
    assert all(len(np.unique(half[codes == code])) == 1 for code in np.unique(codes))


def test_videos_are_halved_within_subject_and_class_and_one_that_mixes_classes_stays_whole():
    # Subject 0: three videos of class 0, one of class 1. Subject 1 has video 1 too, and two of class 1.
    subject, video = np.array([0, 0, 0, 0, 1, 1, 1]), np.array([1, 4, 6, 5, 1, 7, 7])
    label = np.array([0, 0, 0, 1, 1, 1, 1])
    assert halves_by_video(subject, video, label).tolist() == [0, 1, 0, -1, 0, 1, 1]
    video, label = np.array([0, 0, 0, 1, 1, 1]), np.array([0, 1, 1, 1, 1, 0])
    assert halves_by_video(np.zeros(6, dtype=int), video, label).tolist() == [0, 0, 0, 1, 1, 1]


def test_single_videos_are_left_out_of_the_identity_probe():
    rows, subject, video, label = made(3)

    def probe(kept):
        return identity_probe(rows[kept], subject[kept], video[kept], label[kept])

    assert probe((label == 1) | (video == 0)).score.tolist() == probe(label == 1).score.tolist()
    # A subject with single videos alone is not tested, and no answer either.
    found = probe((subject != 2) | (video % 2 == 0))
    assert (found.subject.tolist(), found.chance) == ([0, 1, 3, 4, 5], pytest.approx(1 / 5))


def test_there_may_be_nothing_to_probe_a_single_answer_or_features_that_never_vary():
    rows, subject, video, label = made()
    one = expression_probe(rows, subject, np.zeros_like(label))
    assert (len(one.score), np.isnan(one.chance)) == (0, True)
    alone = subject == 0
    assert len(expression_probe(rows[alone], subject[alone], label[alone]).score) == 0
    assert len(identity_probe(rows[alone], subject[alone], video[alone], label[alone]).score) == 0
    assert len(identity_probe(rows, subject, np.zeros_like(video), label).score) == 0
    rows, subject, _, _ = made(subjects=2)
    assert expression_probe(rows, subject, subject).score.tolist() == [0, 0]
    rows, subject, video, label = made(4, noise=1.0)
    wider = np.hstack([rows, np.full((len(rows), 2), 3.0)])
    # Constant among the fitted rows of a fold, large elsewhere.
    wider[:, -1] += 1e6 * (subject == 0)
    assert expression_probe(wider, subject, label).score[1:].mean() > 0.6
    constant = np.ones((len(rows), 3))
    assert expression_probe(constant, subject, label).score.tolist() == [0.5] * 6
    assert identity_probe(constant, subject, video, label).score.mean() == pytest.approx(1 / 6)


COSINES = ("fixed_expression", "fixed_subject", "neither")


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
    found = {}
    for person in sorted(set(subject.tolist())):
        values = {name: [] for name in COSINES}
        for mine in cells:
            for other in cells:
                if mine[0] != person or mine == other:
                    continue
                same = (mine[0] == other[0], mine[1] == other[1])
                name = {(False, True): "fixed_expression", (True, False): "fixed_subject"}.get(same, "neither")
                first, second = ((subject == cell[0]) & (label == cell[1]) for cell in (mine, other))
                values[name].append(cosine[np.ix_(first, second)].mean())
        found[person] = {name: np.mean(several) if several else np.nan for name, several in values.items()}
    return found


def test_cosines_equal_the_mean_over_all_pairs_also_where_subjects_lack_classes():
    sets = [cells_of(seed) for seed in range(4)]
    rows, subject, label = cells_of(7)
    kept = ~(((subject == 2) & (label != 3)) | ((subject == 12) & (label == 0)))
    for given in (*sets, (rows[kept], subject[kept], label[kept])):
        found, expected = mean_cosines(*given), by_brute_force(*given)
        assert found.subject.tolist() == list(expected)
        for name in COSINES:
            wanted = [value[name] for value in expected.values()]
            np.testing.assert_allclose(getattr(found, name), wanted, rtol=0, atol=1e-12, err_msg=name)
    rows, subject, label = sets[1]
    scaled = mean_cosines(rows * np.random.default_rng(0).uniform(0.1, 9, size=(len(rows), 1)), subject, label)
    np.testing.assert_allclose(scaled.fixed_subject, mean_cosines(rows, subject, label).fixed_subject, atol=1e-12)


def test_cosines_of_one_class_one_subject_and_rows_without_a_direction(refused):
    rows, subject, label = cells_of(2)
    alone = mean_cosines(rows, subject, np.zeros_like(label))
    assert np.isfinite(alone.fixed_expression).all()
    assert np.isnan(alone.fixed_subject).all()
    assert np.isnan(alone.neither).all()
    single = mean_cosines(rows[:6], np.zeros(6, dtype=int), np.arange(6))
    assert np.isnan(single.fixed_expression).all()
    assert np.isfinite(single.fixed_subject).all()
    still = mean_cosines(np.zeros((4, 3)), np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]))
    assert still.fixed_expression.tolist() == still.fixed_subject.tolist() == [0, 0]
    holed = rows.copy()
    holed[3, 1] = np.nan
    for given, said in (
        ((rows[:0], subject[:0], label[:0]), "need rows"),
        ((rows, subject[:-1], label), "need rows"),
        ((holed, subject, label), "NaN"),
    ):
        with refused(InputError, said):
            mean_cosines(*given)
