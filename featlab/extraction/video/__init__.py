"""Videos to the frames that are embedded: when each is shown, which are taken."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

from featlab.engine import OnProgress, run_in_order, worker_count
from featlab.errors import ConfigError, InputError
from featlab.extraction.items import Failure, Item
from featlab.extraction.video.frames import (
    ANEW,
    OpenVideo,
    decode_packets,
    import_av,
    is_video,
    on_one_clock,
    open_video,
    read_packets,
)


@dataclass(frozen=True)
class VideoTimes:
    """When every frame of a video is shown."""

    stamps: tuple[int, ...]  # Presentation time stamps, strictly ascending, in units of ``unit``; at least one
    unit: Fraction  # Seconds
    cut_short: str | None = None  # Why the file has fewer frames than it should have; None when it hasn't
    jumps: bool = False  # Whether the file's clock does, so that these are time stamps of `on_one_clock`

    def seconds(self, place: int) -> float:
        """Return when a frame is shown, in seconds after the first one."""
        return float((self.stamps[place] - self.stamps[0]) * self.unit)


def probe_video(path: Path) -> VideoTimes:
    """Read the time stamps of all frames from the packets; a file whose packets don't say it all is decoded once."""
    with open_video(path) as video:
        # Of vp8, packets without a picture to show can't be told from the others by their time stamps.
        if not video.numbered and video.stream.codec_context.name != "vp8" and (times := _from_packets(video)):
            return times
    with open_video(path) as video:
        return _from_frames(video)


def _from_packets(video: OpenVideo) -> VideoTimes | None:
    """Return what the packets say; None when one of them says nothing, or the same as another."""
    stamps: list[int | None] = []
    packets, cut_short = 0, None
    try:
        for packet in on_one_clock(video, read_packets(video)):
            packets += 1
            # Packets outside the edit list are there for the decoder alone.
            if not packet.is_discard:
                stamps.append(packet.pts)
    except InputError as error:
        cut_short = str(error)
    if "mp4" in video.container.format.name and packets < video.stream.frames:
        cut_short = f"the file breaks off: {packets} of its {video.stream.frames} frames are there"
    known = {stamp for stamp in stamps if stamp is not None}
    return None if len(known) < len(stamps) else _times(sorted(known), video, cut_short)


def _from_frames(video: OpenVideo) -> VideoTimes:
    stamps: list[int] = []
    without, cut_short = 0, None
    try:
        for stamp, _, _ in decode_packets(video, on_one_clock(video, read_packets(video))):
            if stamp is None or (stamps and stamp <= stamps[-1]):
                without += 1
            else:
                stamps.append(stamp)
    except InputError as error:
        cut_short = f"after {len(stamps)} frames: {error}" if stamps else str(error)
    if without and cut_short is None:
        cut_short = f"time stamps of {without} frames are missing or repeated, so those are left out; convert it"
    return _times(stamps, video, cut_short)


def _times(stamps: list[int], video: OpenVideo, cut_short: str | None) -> VideoTimes:
    if not stamps:
        raise InputError(cut_short or "the video has no frames")
    named = tuple(stamp + ANEW for stamp in stamps) if video.jumps else tuple(stamps)
    return VideoTimes(named, Fraction(video.stream.time_base), cut_short, video.jumps > 0)


@dataclass(frozen=True)
class Sampling:
    """Which frames of a video are taken: of a window, by rate, every ``stride``-th; time starts at its first frame."""

    # Frames a second: for every moment ``k / fps`` after the window's start, up to the last frame in the window, the
    # frame of the window that is nearest to it (of two that are equally near the earlier one), and none twice, so that
    # a higher rate than the video's takes every frame once. None: every frame.
    fps: float | None = None
    # Seconds from and to, half-open: a frame at the start is taken, one at the end isn't. None: all of it.
    window: tuple[float, float] | None = None
    stride: int = 1  # Every how many-th frame is kept, from the first on.

    def __post_init__(self) -> None:
        if self.fps is not None and not 0 < self.fps < math.inf:
            raise ConfigError(f"video: fps must be more than 0, got {self.fps!r}")
        if self.stride < 1:
            raise ConfigError(f"video: stride must be a whole number from 1, got {self.stride!r}")
        if self.window is not None and not 0 <= self.window[0] < self.window[1] < math.inf:
            raise ConfigError(f"video: a window goes from 0 or more seconds to more than that, got {self.window!r}")


EVERY_FRAME = Sampling()


def refuse_sampling(source: Path) -> InputError:
    """Return the error of a sampling that was asked for where there are no videos."""
    return InputError(f"{source} has no videos, so there are no frames to choose: leave out --fps, --window, --stride")


def parse_window(text: str) -> tuple[float, float]:
    """Read a window as it is written, ``2.0-5.0``."""
    try:
        opening, closing = map(float, text.split("-"))
    except ValueError:
        raise ConfigError(f"video: expected a window FROM-TO in seconds, for example 2.0-5.0, got {text!r}") from None
    return opening, closing


def sample(times: VideoTimes, sampling: Sampling) -> range | list[int]:
    """Return the places of the frames that are taken, 0-based and ascending; none when the window has none."""
    stamps = times.stamps
    first, end = 0, len(stamps)
    start = Fraction(stamps[0])
    if sampling.window is not None:
        # In exact numbers: a frame at 2.1 s of a stream in tenths of a second isn't before the float 2.1.
        opening, closing = (stamps[0] + _exact(second) / times.unit for second in sampling.window)
        first, end = bisect_left(stamps, math.ceil(opening)), bisect_left(stamps, math.ceil(closing))
        start = opening
    if sampling.fps is None:
        return range(first, end, sampling.stride)
    step = 1 / (_exact(sampling.fps) * times.unit)
    # Whole numbers from here on, which are exact too, and fast enough for hours of video.
    scale = math.lcm(start.denominator, step.denominator)
    scaled = [stamp * scale for stamp in stamps[first:end]]
    places: dict[int, None] = {}
    for moment in range(int(start * scale), scaled[-1] + 1 if scaled else 0, int(step * scale)):
        after = bisect_left(scaled, moment)
        before_is_near = after > 0 and 2 * moment <= scaled[after - 1] + scaled[after]
        places[first + after - before_is_near] = None
    return list(places)[:: sampling.stride]


def _exact(value: float) -> Fraction:
    return Fraction(repr(float(value)))


def _probe(path: Path) -> VideoTimes | str:
    """Read when the frames of a video are shown; of one that can't be read, why."""
    try:
        return probe_video(path)
    except InputError as error:
        return str(error)


_Clip = tuple[Path, str, str]


@dataclass(frozen=True)
class Expanded:
    """Items with frames in the place of videos."""

    items: list[Item]
    failures: tuple[Failure, ...]
    jumping: tuple[str, ...]  # Names of the videos whose clock jumps


def expand_videos(
    items: Sequence[Item], sampling: Sampling = EVERY_FRAME, *, jobs: int = 1, on_progress: OnProgress | None = None
) -> Expanded:
    """Put the frames that the sampling takes in the place of videos.

    A clip's only item in a video, with frame 0, stands for all of its frames; others are frames with labels of their
    own, and stay if they are taken. A frame is called ``NAME#t=SECONDS``, counted from the video's first.
    """
    clips = Counter(_clip(item) for item in items if _to_expand(item))
    paths = list(dict.fromkeys(path for path, _, _ in clips))
    if paths:
        import_av()
    read: dict[Path, tuple[VideoTimes | str, Sequence[int]]] = {}
    # Starting a worker process takes as long as reading the time stamps of some videos.
    with closing(run_in_order(_probe, paths, jobs=worker_count(jobs, len(paths) // 8), name=str)) as results:
        for path, times in results:
            read[path] = times, () if isinstance(times, str) else sample(times, sampling)
            if on_progress is not None:
                on_progress(len(read), len(paths))
    expanded: list[Item] = []
    failures: dict[str, str] = {}
    jumping: dict[str, None] = {}
    found: set[_Clip] = set()
    nothing: dict[_Clip, tuple[str, str]] = {}
    for item in items:
        if not _to_expand(item):
            expanded.append(item)
            continue
        times, places = read[item.path]
        if isinstance(times, str):
            failures[item.name] = times
            continue
        if times.jumps:
            jumping[item.name] = None
        if times.cut_short is not None:
            failures[item.name] = times.cut_short
        labelled = item.frame > 0 or clips[_clip(item)] > 1
        if labelled:
            if item.frame >= len(times.stamps):
                failures[f"{item.name}#frame={item.frame}"] = f"the video has {len(times.stamps)} frames"
            near = bisect_left(places, item.frame)
            places = places[near : near + 1] if item.frame in places[near : near + 1] else []
        if places:
            found.add(_clip(item))
        else:
            nothing.setdefault(_clip(item), (item.name, _why_none(times, sampling, labelled)))
        for place in places:
            name = f"{item.name}#t={times.seconds(place):.3f}"
            expanded.append(replace(item, name=name, frame=place, at=times.stamps[place]))
    for clip, (name, why) in nothing.items():
        if clip not in found:
            failures.setdefault(name, why)
    return Expanded(
        [replace(item, row=row) for row, item in enumerate(expanded)],
        tuple(Failure(name, why) for name, why in failures.items()),
        tuple(jumping),
    )


def _to_expand(item: Item) -> bool:
    return item.at is None and is_video(item.path)


def _clip(item: Item) -> _Clip:
    return item.path, item.subject, item.video


def _why_none(times: VideoTimes, sampling: Sampling, labelled: bool) -> str:
    if labelled or sampling.window is None:
        return "none of its labelled frames is among the sampled ones"
    opening, closing = sampling.window
    last = times.seconds(len(times.stamps) - 1)
    return f"no frame from {opening:g} to {closing:g} s; its last frame is at {last:.3f} s"
