import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from featlab.analysis.inside.probes import expression_probe, halves_by_video, identity_probe


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


def test_what_is_there_is_found_and_what_is_not_is_guessed():
    rows, subject, video, label = made(person=0.0, videos=4, frames=30)
    identity = identity_probe(rows, subject, video, label)
    assert identity.chance == pytest.approx(1 / 6)
    assert identity.score.mean() == pytest.approx(1 / 6, abs=0.06)
    assert expression_probe(rows, subject, label).score.mean() > 0.9
    rows, subject, video, label = made(expression=0.0, videos=4, frames=30)
    assert identity_probe(rows, subject, video, label).score.mean() > 0.9
    expression = expression_probe(rows, subject, label)
    assert expression.chance == 0.5
    assert expression.score.mean() == pytest.approx(0.5, abs=0.06)


def test_the_identity_probe_equals_scikit_learn_on_halves():
    rows, subject, video, label = made(1, person=0.6, noise=1.0)
    half = video % 2  # videos 0 and 1 are of one class, 2 and 3 of the other
    assert halves_by_video(subject, video, label).tolist() == half.tolist()
    right = np.zeros(len(rows))
    for side in (0, 1):
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=5000))
        probe.fit(rows[half == side], subject[half == side])
        right[half != side] = probe.predict(rows[half != side]) == subject[half != side]
    found = identity_probe(rows, subject, video, label)
    assert found.subject.tolist() == list(range(6))
    assert found.score.tolist() == pytest.approx([right[subject == who].mean() for who in range(6)])
    assert 0.2 < found.score.mean() < 1


def test_the_expression_probe_equals_scikit_learn_on_people_left_out():
    rows, subject, _, label = made(2, expression=0.6, noise=1.0, classes=3)
    kept = ~((subject == 4) & (label == 2)) & ~((label == 1) & (np.arange(len(label)) % 5 > 1))
    rows, subject, label = rows[kept], subject[kept], label[kept]
    guess = np.empty_like(label)
    for number in range(5):
        tested = subject % 5 == number
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=5000, class_weight="balanced"))
        guess[tested] = probe.fit(rows[~tested], label[~tested]).predict(rows[tested])
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
    found = identity_probe(rows, subject, video, label)
    assert found.score.mean() < 0.6
    half = halves_by_video(subject, video, label)
    for code in np.unique(codes):
        assert len(np.unique(half[codes == code])) == 1


def test_videos_are_halved_within_subject_and_class():
    # Subject 0: three videos of class 0, one of class 1. Subject 1 has video 1 too, and two of class 1.
    subject = np.array([0, 0, 0, 0, 1, 1, 1])
    video = np.array([1, 4, 6, 5, 1, 7, 7])
    label = np.array([0, 0, 0, 1, 1, 1, 1])
    assert halves_by_video(subject, video, label).tolist() == [0, 1, 0, -1, 0, 1, 1]


def test_a_video_that_mixes_classes_stays_whole():
    video = np.array([0, 0, 0, 1, 1, 1])
    label = np.array([0, 1, 1, 1, 1, 0])
    assert halves_by_video(np.zeros(6, dtype=int), video, label).tolist() == [0, 0, 0, 1, 1, 1]


def test_single_videos_are_left_out_of_the_identity_probe():
    rows, subject, video, label = made(3)
    kept = (label == 1) | (video == 0)
    found = identity_probe(rows[kept], subject[kept], video[kept], label[kept])
    only = label == 1
    assert found.score.tolist() == identity_probe(rows[only], subject[only], video[only], label[only]).score.tolist()
    # A subject with single videos alone is not tested, and no answer either.
    kept = (subject != 2) | (video % 2 == 0)
    found = identity_probe(rows[kept], subject[kept], video[kept], label[kept])
    assert found.subject.tolist() == [0, 1, 3, 4, 5]
    assert found.chance == pytest.approx(1 / 5)


def test_there_may_be_nothing_to_probe():
    rows, subject, video, label = made()
    one = expression_probe(rows, subject, np.zeros_like(label))
    assert (len(one.score), np.isnan(one.chance)) == (0, True)
    alone = subject == 0
    assert len(expression_probe(rows[alone], subject[alone], label[alone]).score) == 0
    assert len(identity_probe(rows[alone], subject[alone], video[alone], label[alone]).score) == 0
    assert len(identity_probe(rows, subject, np.zeros_like(video), label).score) == 0


def test_two_people_of_one_class_each_leave_the_probe_a_single_answer():
    rows, subject, _, _ = made(subjects=2)
    found = expression_probe(rows, subject, subject)
    assert found.score.tolist() == [0, 0]


def test_features_that_never_vary_do_no_harm():
    rows, subject, video, label = made(4, noise=1.0)
    wider = np.hstack([rows, np.full((len(rows), 2), 3.0)])
    # Constant among the fitted rows of a fold, large elsewhere.
    wider[:, -1] += 1e6 * (subject == 0)
    assert expression_probe(wider, subject, label).score[1:].mean() > 0.6
    constant = expression_probe(np.ones((len(rows), 3)), subject, label)
    assert constant.score.tolist() == [0.5] * 6
    constant = identity_probe(np.ones((len(rows), 3)), subject, video, label)
    assert constant.score.mean() == pytest.approx(1 / 6)


def test_it_is_the_same_every_time():
    rows, subject, video, label = made(5, noise=1.5)
    first, second = (identity_probe(rows, subject, video, label).score.tolist() for _ in range(2))
    assert first == second
