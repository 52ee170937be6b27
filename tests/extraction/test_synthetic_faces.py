"""What one drawn clip must be: repeatable, true to its landmarks, and hard in the way that people are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from featlab.errors import ConfigError
from featlab.extraction.synthetic import EXPRESSIONS, SyntheticConfig, render_person

Frames = NDArray[np.uint8]
Floats = NDArray[np.float32]
Clip = tuple[Frames, Floats, Floats]

SMALL = SyntheticConfig(people=12, expressions=7, frames=3, size=48)
CROWD = SyntheticConfig(people=16, frames=6, size=64)


@pytest.fixture(scope="module")
def crowd() -> dict[tuple[int, str], Clip]:
    """One neutral and one happy clip of every person."""
    return {
        (person, expression): render_person(CROWD, person, expression, 0)
        for person in range(CROWD.people)
        for expression in CROWD.classes
    }


def same(one: Clip, other: Clip) -> bool:
    return all(np.array_equal(one[part], other[part]) for part in range(3))


def corner_lift(landmarks: Floats) -> Floats:
    """How far the mouth corners lie above the middle of the lips, in distances between the eye centres, (F,)."""
    eyes = np.linalg.norm(landmarks[:, 36:42].mean(axis=1) - landmarks[:, 42:48].mean(axis=1), axis=1)
    lift: Floats = (landmarks[:, [51, 57], 1].mean(axis=1) - landmarks[:, [48, 54], 1].mean(axis=1)) / eyes
    return lift


def test_the_same_config_draws_the_same_clip() -> None:
    assert same(render_person(SMALL, 3, "fear", 1), render_person(SMALL, 3, "fear", 1))


def test_shapes_and_types_are_as_promised() -> None:
    frames, landmarks, intensity = render_person(SMALL, 0, "surprise", 0)
    assert [part.shape for part in (frames, landmarks, intensity)] == [(3, 48, 48, 3), (3, 68, 2), (3,)]
    assert [part.dtype.name for part in (frames, landmarks, intensity)] == ["uint8", "float32", "float32"]


@pytest.mark.parametrize("more", [{"people": 40}, {"expressions": 3}, {"clips": 5}])
def test_more_people_expressions_or_clips_change_nobody_elses_pictures(more: dict[str, int]) -> None:
    config = replace(SMALL, people=3, expressions=2)
    for expression in config.classes:
        larger = replace(config, **more)
        assert same(render_person(config, 2, expression, 1), render_person(larger, 2, expression, 1))


def test_another_person_clip_expression_or_seed_is_another_picture() -> None:
    frames = render_person(SMALL, 0, "anger", 0)[0]
    others = [
        render_person(SMALL, 1, "anger", 0),
        render_person(SMALL, 0, "anger", 1),
        render_person(SMALL, 0, "disgust", 0),
        render_person(replace(SMALL, seed=1), 0, "anger", 0),
    ]
    assert not any(np.array_equal(frames, other[0]) for other in others)


def test_frames_are_pictures_at_every_expression_and_size() -> None:
    for size in (32, 96):
        config = replace(SMALL, frames=1, size=size, occlusion_probability=1.0)
        for person, expression in enumerate(EXPRESSIONS):
            frames, landmarks, _ = render_person(config, person, expression, 0)
            assert frames.std() > 15
            assert np.isfinite(landmarks).all()


def test_nearly_all_frames_hold_every_landmark(crowd: dict[tuple[int, str], Clip]) -> None:
    landmarks = np.concatenate([clip[1] for clip in crowd.values()])
    inside = ((landmarks >= 0) & (landmarks <= CROWD.size - 1)).all(axis=(1, 2))
    assert inside.mean() > 0.95


def test_landmarks_are_in_ibug_order(crowd: dict[tuple[int, str], Clip]) -> None:
    x, y = np.moveaxis(np.concatenate([clip[1] for clip in crowd.values()]), 2, 0)
    for run in (
        [0, 4, 8, 12, 16],
        [17, 19, 21, 22, 24, 26],
        [36, 39, 42, 45],
        [31, 33, 35],
        [48, 51, 54],
        [60, 62, 64],
    ):
        assert (np.diff(x[:, run], axis=1) > 0).all(), f"left to right: {run}"
    for run in ([27, 28, 29, 30, 33, 51, 62], [66, 57, 8], [19, 37], [24, 44]):
        assert (np.diff(y[:, run], axis=1) > 0).all(), f"top to bottom: {run}"
    for upper, lower in ((37, 41), (38, 40), (43, 47), (44, 46), (61, 67), (62, 66), (63, 65)):
        # Closed lids and lips lie on each other; the head is tilted by a few degrees.
        assert (y[:, lower] - y[:, upper] > -0.02 * CROWD.size).all(), f"{upper} above {lower}"


def test_eyes_are_level_and_where_a_crop_has_them(crowd: dict[tuple[int, str], Clip]) -> None:
    landmarks = np.concatenate([clip[1] for clip in crowd.values()]) / CROWD.size
    apart = landmarks[:, 42:48].mean(axis=1) - landmarks[:, 36:42].mean(axis=1)
    assert np.abs(apart[:, 0].mean() - 0.36) < 0.02
    assert np.abs(np.degrees(np.arctan2(apart[:, 1], apart[:, 0]))).max() < 8


def test_landmarks_lie_on_what_they_name_in_the_picture() -> None:
    config = replace(SMALL, size=96, capture_strength=0.0, occlusion_probability=0.0)
    iris_darker, lip_redder = [], []
    for person in range(config.people):
        frames, landmarks, _ = render_person(config, person, "surprise", 0)
        picture, points = frames[1].astype(float), landmarks[1]

        def at(point: Floats, picture: NDArray[np.float64] = picture) -> NDArray[np.float64]:
            x, y = np.round(point).astype(int)
            patch: NDArray[np.float64] = picture[y - 1 : y + 2, x - 1 : x + 2].mean(axis=(0, 1))
            return patch

        iris, cheek = at(points[36:42].mean(axis=0)), at(points[[29, 1]].mean(axis=0))
        lip, nose = at(points[[57, 66]].mean(axis=0)), at(points[29])
        iris_darker.append(iris.mean() < cheek.mean())
        lip_redder.append(lip[0] / lip[1:].sum() > nose[0] / nose[1:].sum())
    assert np.mean(iris_darker) > 0.9
    assert np.mean(lip_redder) > 0.9


def test_an_expression_rises_to_a_peak_and_falls_while_neutral_stays_low() -> None:
    config = replace(SMALL, frames=9, size=32, peak_low=0.6, peak_high=0.6)
    for expression in EXPRESSIONS[1:]:
        course = render_person(config, 0, expression, 0)[2]
        assert 0 < int(course.argmax()) < 8
        assert course.max() > 1.5 * max(course[0], course[-1])
    rest = np.concatenate([render_person(config, person, "neutral", 0)[2] for person in range(config.people)])
    assert 0 < rest.mean() < 0.12


def test_a_smile_lifts_the_corners_of_the_mouth(crowd: dict[tuple[int, str], Clip]) -> None:
    raised = []
    for person in range(CROWD.people):
        _, landmarks, intensity = crowd[person, "happiness"]
        peak = corner_lift(landmarks)[int(intensity.argmax())]
        raised.append(peak > corner_lift(crowd[person, "neutral"][1]).mean())
    assert np.mean(raised) > 0.9


def test_some_resting_mouths_are_above_other_peoples_smiles(
    crowd: dict[tuple[int, str], Clip],
) -> None:
    resting = np.array([corner_lift(crowd[person, "neutral"][1]).mean() for person in range(CROWD.people)])
    mild = []
    for person in range(CROWD.people):
        _, landmarks, intensity = crowd[person, "happiness"]
        mild.append(corner_lift(landmarks)[(intensity > 0.2) & (intensity < 0.5)].mean())
    # Chance that a stranger's rest shows more of a smile than a mild smile does: 0 would be no problem at all.
    assert 0.1 < np.mean(resting[:, None] > np.array(mild)[None, :]) < 0.5


def test_without_identity_and_resting_expression_everybody_rests_alike() -> None:
    config = replace(CROWD, frames=2, size=32)
    plain = replace(config, identity_strength=0.0, resting_strength=0.0)

    def spread(config: SyntheticConfig) -> float:
        rest = [corner_lift(render_person(config, person, "neutral", 0)[1]).mean() for person in range(config.people)]
        return float(np.std(rest))

    assert spread(plain) < 0.6 * spread(config)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"expressions": 1}, "expressions = 1"),
        ({"expressions": 8}, "expressions = 8"),
        ({"people": 0}, "people = 0"),
        ({"clips": 27}, "clips = 27"),
        ({"frames": 0}, "frames = 0"),
        ({"size": 8}, "size = 8"),
        ({"seed": -1}, "seed = -1"),
        ({"people": 2.5}, "people = 2.5"),
        ({"people": True}, "people = True"),
        ({"size": "96"}, "size = '96'"),
        ({"capture_strength": float("nan")}, "capture_strength = nan"),
        ({"occlusion_probability": 1.5}, "occlusion_probability = 1.5"),
        ({"peak_low": 0.9, "peak_high": 0.5}, "peak_low = 0.9"),
    ],
)
def test_a_config_out_of_range_is_refused_by_name(wrong: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        SyntheticConfig(**wrong)  # type: ignore[arg-type]
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("person", "expression", "clip", "said"),
    [
        (0, "hapiness", 0, "'happiness'"),
        (0, "anger", 0, "neutral, happiness"),
        (16, "neutral", 0, "16 people"),
        (-1, "neutral", 0, "person -1"),
        (0, "neutral", 2, "2 clips"),
    ],
)
def test_a_clip_that_does_not_exist_is_refused(person: int, expression: str, clip: int, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        render_person(CROWD, person, expression, clip)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
