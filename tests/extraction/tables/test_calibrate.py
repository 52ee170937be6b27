"""A person's resting face against SciPy and NumPy, what must change nothing, and what little data gives."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from featlab.analysis.calibration import resting_rows
from featlab.errors import InputError
from featlab.extraction.tables.calibrate import (
    DRIFT,
    GROUP,
    MAD,
    MEAN_DEVIATION,
    RANGE,
    Recordings,
    calibrate,
    cautions,
    densest_half,
    drifts,
    mixed_clips,
)
from featlab.extraction.tables.index import RowIndex


def recordings(*clips, names=("AU04", "AU12")):
    """Rows of clips, each (subject, session, video, label, (N, D) values)."""
    counts = [len(clip[4]) for clip in clips]
    subject, session, video, label = (np.repeat(each, counts).tolist() for each in list(zip(*clips, strict=True))[:4])
    frame = np.concatenate([np.arange(n, dtype=np.int32) for n in counts])
    values = np.concatenate([clip[4] for clip in clips]).astype(np.float32)
    return Recordings(values, RowIndex(subject, label, video, frame, None, session), names)


def steady(seed, frames=120, centre=1.0, alike=0.0, width=2):
    """A clip that rests at ``centre`` with a spread of 0.1, neighbouring frames correlated by ``alike``."""
    noise = np.random.default_rng(seed).normal(size=(frames, width))
    for place in range(1, frames):
        noise[place] = alike * noise[place - 1] + np.sqrt(1 - alike**2) * noise[place]
    return centre + 0.1 * noise


@pytest.fixture
def group():
    """Four people, a neutral clip and a smile each; their rests lie apart."""
    return recordings(
        *((f"s{p}", "", "n", "neutral", steady(p, centre=1 + p / 2)) for p in range(4)),
        *((f"s{p}", "", "x", "smile", steady(9 + p, centre=2 + p / 2)) for p in range(4)),
    )


def neutral(rows):
    return resting_rows(rows, "neutral", lambda path: rows)


def test_centres_spreads_and_distances_are_those_of_scipy_and_numpy(group):
    rest = neutral(group)
    found = calibrate(group, rest)
    for who, face in found.people.items():
        mine = rest.features[np.array(rest.index.subject) == who].astype(float)
        centre, spread = np.median(mine, axis=0), stats.median_abs_deviation(mine, scale="normal")
        np.testing.assert_allclose(face.centre, centre)
        np.testing.assert_allclose(face.spread, spread, rtol=1e-5)
        assert set(face.spread_from) == {MAD}
        rows = np.array(group.index.subject) == who
        np.testing.assert_allclose(found.difference[rows], group.features[rows] - centre)
        np.testing.assert_allclose(found.in_spreads[rows], (group.features[rows] - centre) / spread, rtol=1e-4)


def test_the_interval_is_that_of_batch_means_and_alike_frames_count_less():
    independent = recordings(("a", "", "n", "neutral", steady(0, 400, width=40)), names=("f",) * 40)
    rest = calibrate(independent, independent).people["a"]
    blocks = np.median(independent.features.reshape(10, 40, 40), axis=1)
    exact = stats.t.ppf(0.975, 9) * blocks.std(axis=0, ddof=1) / np.sqrt(10)
    whole = rest.effective == 400
    assert whole.any()
    assert (rest.half >= exact * 0.999).all()
    assert 250 < np.median(rest.effective) <= 400
    alike = recordings(("a", "", "n", "neutral", steady(1, 400, alike=0.9, width=40)), names=("f",) * 40)
    rest = calibrate(alike, alike).people["a"]
    assert 12 < np.median(rest.effective) < 36  # 400 (1 - 0.9) / (1 + 0.9) = 21
    assert (np.abs(rest.centre - 1) < rest.half).mean() > 0.85


def test_an_offset_a_scale_and_another_person_change_nothing_of_mine(group):
    mine = np.array(group.index.subject) == "s1"
    before = calibrate(group, neutral(group))
    for change, factor in ((lambda x: x + 3, 1), (lambda x: 4 * x, 4)):
        moved = replace(group, features=np.where(mine[:, None], change(group.features), group.features))
        after = calibrate(moved, neutral(moved))
        np.testing.assert_allclose(after.in_spreads, before.in_spreads, atol=2e-4)
        np.testing.assert_allclose(after.difference[mine], factor * before.difference[mine], atol=1e-5)
    others = group.take(np.flatnonzero(~mine))
    np.testing.assert_array_equal(calibrate(others, neutral(others)).difference, before.difference[~mine])


def test_little_and_constant_data_have_a_floor_that_is_named_and_no_nan():
    often = np.where(np.arange(100) % 5 == 0, 0.4, 0.0)[:, None] * [1, 0]
    people = [(f"s{p}", "", "n", "neutral", steady(p)) for p in range(3)]
    rows = recordings(*people, ("one", "", "n", "neutral", [[0.2, 0.3]]), ("zero", "", "n", "neutral", often))
    found = calibrate(rows, rows)
    middle = np.median([found.people[f"s{p}"].spread for p in range(3)] + [[0.1, 0.1]], axis=0)
    assert found.people["zero"].spread_from.tolist() == [MEAN_DEVIATION, GROUP]
    np.testing.assert_allclose(found.people["zero"].spread, [1.2533141 * 0.08, middle[1] / 2], rtol=0.1)
    assert found.people["one"].spread_from.tolist() == [GROUP, GROUP]
    assert np.isnan(found.people["one"].half).all()
    assert np.isfinite(found.in_spreads).all()
    alone = recordings(("a", "", "n", "neutral", [[1, 5]] * 3), ("a", "", "x", "smile", [[2, 5]] * 3))
    found = calibrate(alone, neutral(alone))
    assert found.people["a"].spread_from.tolist() == [RANGE, RANGE]
    np.testing.assert_allclose(found.in_spreads[3:], [[20, 0]] * 3)
    said = cautions(found, alone, neutral(alone))["features never change: their columns are 0 and say nothing"]
    assert [who for who, _ in said] == ["AU12"]


def test_a_session_is_held_against_its_own_rest_and_drift_is_found():
    moved = steady(2)
    moved[:, 0] += 0.5
    rows = recordings(
        ("a", "1", "n1", "neutral", steady(1)),
        ("a", "2", "n2", "neutral", moved),
        ("a", "3", "x3", "smile", steady(3)),
        ("b", "1", "n1", "neutral", steady(4)),
        ("b", "2", "n2", "neutral", steady(5)),
        ("c", "1", "x", "smile", steady(6)),
    )
    rest = neutral(rows)
    found = calibrate(rows, rest)
    second = (np.array(rows.index.session) == "2") & (np.array(rows.index.subject) == "a")
    np.testing.assert_allclose(np.median(found.difference[second], axis=0), 0, atol=1e-6)
    assert (found.left_out, found.borrowed) == (("c",), (("a", "3"),))
    assert np.isnan(found.difference[-120:]).all()
    ((who, (first, last, size, _)),) = drifts(found.sessions, 1).items()
    assert (who[0], first.who[1], last.who[1], (size > DRIFT).tolist()) == ("a", "1", "2", [True, False])
    said = cautions(found, rows, rest)["people rest otherwise at another time"]
    assert [why.partition(":")[0] for _, why in said] == ["AU04 at rest differs by 0.53 between sessions 1 and 2"]
    # Without sessions the clips are compared.
    rows, rest = (replace(each, index=replace(each.index, session=[""] * len(each.features))) for each in (rows, rest))
    assert list(drifts(calibrate(rows, rest).clips, 2)) == [("a", "")]


@pytest.mark.parametrize(("share", "is_found"), [(0.0, False), (0.05, False), (0.3, True), (0.5, True)])
def test_a_clip_with_a_smile_in_it_is_not_neutral(share, is_found):
    clip = steady(0)
    clip[: int(share * 120)] += 1.5
    rows = recordings(*((f"s{p}", "", "n", "neutral", clip if p == 0 else steady(p)) for p in range(4)))
    found = mixed_clips(calibrate(rows, rows), rows)
    assert [who for who, _ in found] == (["s0, clip n"] if is_found else [])
    assert not is_found or (f"{100 * share:.0f} % of its 120 frames" in found[0][1] and "AU12" in found[0][1])


def test_the_densest_half_is_the_shortest_interval_with_half_of_the_values():
    values = np.random.default_rng(0).gamma(1.0, size=(31, 3))
    middle, scale = densest_half(values)
    for column, centre, width in zip(values.T, middle, scale, strict=True):
        x = np.sort(column)
        length, low = min((x[place + 15] - x[place], x[place]) for place in range(16))
        np.testing.assert_allclose([centre, width], [low + length / 2, length / 2 / stats.norm.ppf(0.75)])


def test_neutral_is_a_label_videos_or_a_table(group):
    assert len(resting_rows(group, "neutral", None).features) == 480
    assert resting_rows(group, "video:n*", None).index.label == ["neutral"] * 480
    assert len(resting_rows(group, "smile,neutral", None).features) == 960
    other = replace(group, features=group.features[:, ::-1], names=("AU12", "AU04"))
    np.testing.assert_array_equal(resting_rows(group, "rest.csv", lambda path: other).features, group.features)
    wrong = {"netral": "did you mean 'neutral'", "video:q": "videos: n, x", "r.csv": "no feature 'AU12'"}
    for words, said in wrong.items():
        with pytest.raises(InputError, match=said):
            resting_rows(group, words, lambda path: replace(other, names=("AU04", "AU45")))
