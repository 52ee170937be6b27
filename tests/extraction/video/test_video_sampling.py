"""Which frames are taken, against the rules spelled out in exact numbers; no video is needed."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from featlab.errors import ConfigError
from featlab.extraction.video.times import Sampling, VideoTimes, parse_window, sample


def steady(frames: int, unit: Fraction = Fraction(1, 25), first: int = 0) -> VideoTimes:
    return VideoTimes(tuple(range(first, first + frames)), unit)


def by_the_rules(times: VideoTimes, sampling: Sampling) -> list[int]:
    """The slow way: every moment against every frame."""
    seconds = [(stamp - times.stamps[0]) * times.unit for stamp in times.stamps]
    start, end = (Fraction(str(bound)) for bound in sampling.window or (0, 10**9))
    inside = [place for place, second in enumerate(seconds) if start <= second < end]
    if sampling.fps is not None and inside:
        step, moment, picked = 1 / Fraction(str(sampling.fps)), start, []
        while moment <= seconds[inside[-1]]:
            picked.append(min(inside, key=lambda place: (abs(seconds[place] - moment), place)))
            moment += step
        inside = sorted(set(picked))
    return inside[:: sampling.stride]


def test_without_a_rule_every_frame_is_taken() -> None:
    assert list(sample(steady(7), Sampling())) == list(range(7))


def test_the_biovid_window_is_half_open() -> None:
    taken = list(sample(steady(138), Sampling(window=(2.0, 5.0))))
    assert (taken[0], taken[-1], len(taken)) == (50, 124, 75)


def test_a_rate_takes_the_frame_nearest_to_each_moment_and_the_earlier_of_two() -> None:
    # 0.1 s is as far from 0.08 s as from 0.12 s.
    assert sample(steady(11), Sampling(fps=10)) == [0, 2, 5, 7, 10]
    assert sample(steady(1500), Sampling(fps=5)) == list(range(0, 1500, 5))


def test_a_rate_above_the_videos_takes_every_frame_once() -> None:
    assert sample(steady(20), Sampling(fps=240)) == list(range(20))


def test_stride_counts_what_window_and_rate_left() -> None:
    assert list(sample(steady(30), Sampling(stride=7))) == [0, 7, 14, 21, 28]
    assert list(sample(steady(100), Sampling(window=(1.0, 2.0), stride=10))) == [25, 35, 45]
    assert sample(steady(100), Sampling(fps=5, window=(1.0, 3.0), stride=4)) == [25, 45, 65]


def test_time_counts_from_the_first_frame() -> None:
    late = steady(138, first=90_000)
    assert list(sample(late, Sampling(window=(2.0, 5.0)))) == list(range(50, 125))
    assert late.seconds(50) == 2.0


def test_a_decimal_bound_is_exact() -> None:
    tenths = VideoTimes(tuple(range(40)), Fraction(1, 10))
    assert list(sample(tenths, Sampling(window=(2.1, 2.3)))) == [21, 22]


def test_a_window_after_the_last_frame_takes_nothing() -> None:
    assert not list(sample(steady(25), Sampling(window=(1.0, 2.0))))
    assert not sample(steady(25), Sampling(fps=5, window=(1.0, 2.0)))


def test_one_frame_is_enough() -> None:
    assert sample(steady(1), Sampling(fps=5)) == [0]


@pytest.mark.parametrize("seed", range(60))
def test_irregular_frames_are_sampled_by_the_same_rules(seed: int) -> None:
    rng = np.random.default_rng(seed)
    stamps = np.cumsum(rng.integers(1, 400 if seed % 2 else 60, 40)) + int(rng.integers(-500, 500))
    times = VideoTimes(tuple(stamps.tolist()), [Fraction(1, 1000), Fraction(1001, 30000), Fraction(1, 90)][seed % 3])
    length = times.seconds(39)
    start = round(float(rng.uniform(0, length)), 2)
    sampling = Sampling(
        fps=[None, 5, 12.5, 29.97, 3][seed % 5],
        window=None if seed % 4 == 0 else (start, round(start + float(rng.uniform(0.1, length)), 2)),
        stride=int(rng.integers(1, 4)),
    )
    assert list(sample(times, sampling)) == by_the_rules(times, sampling)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"fps": 0}, "fps must be more than 0, got 0"),
        ({"fps": float("nan")}, "fps must be more than 0, got nan"),
        ({"fps": float("inf")}, "fps must be more than 0, got inf"),
        ({"fps": True}, "fps must be more than 0, got True"),
        ({"stride": 0}, "stride must be a whole number from 1, got 0"),
        ({"stride": 1.5}, "stride must be a whole number from 1, got 1.5"),
        ({"window": (5.0, 2.0)}, "a window goes from 0 or more seconds to more than that, got (5.0, 2.0)"),
        ({"window": (2.0, 2.0)}, "a window goes from 0"),
        ({"window": (-1.0, 2.0)}, "a window goes from 0"),
        ({"window": (0.0, float("inf"))}, "a window goes from 0"),
        ({"window": (1.0,)}, "a window goes from 0"),
    ],
)
def test_a_value_out_of_range_is_one_line(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Sampling(**given)
    assert str(caught.value).startswith(f"video: {says}")


def test_a_window_is_read_as_it_is_written() -> None:
    assert parse_window("2.0-5.0") == (2.0, 5.0)
    assert parse_window(" 0 - .5 ") == (0.0, 0.5)


@pytest.mark.parametrize("text", ["", "2", "2-", "-2-5", "2.0:5.0", "2-5-7", "two-five", "5-2", "1e3-2e3"])
def test_another_window_is_one_line_that_shows_an_example(text: str) -> None:
    with pytest.raises(
        ConfigError, match=r"video: (expected a window FROM-TO in seconds, for example 2.0-5.0|a window)"
    ):
        parse_window(text)
