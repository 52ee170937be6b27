"""Videos to the frames that are embedded."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from featlab.extraction.items import Failure, Item
from featlab.extraction.video.frames import is_video
from featlab.extraction.video.times import EVERY_FRAME, OnVideo, Sampling, VideoTimes, probe_videos, sample

_Clip = tuple[Path, str, str]


@dataclass(frozen=True)
class Expanded:
    """Items with frames in the place of videos."""

    items: list[Item]
    failures: tuple[Failure, ...]


def expand_videos(
    items: Sequence[Item], sampling: Sampling = EVERY_FRAME, *, jobs: int = 1, on_progress: OnVideo | None = None
) -> Expanded:
    """Put frames in the place of videos.

    A video that one item of a clip names, with frame 0, stands for all of its frames: those that the sampling takes
    come in its place. Several items of a clip in one video, or one with another frame than 0, are frames with labels
    of their own: those that the sampling takes stay, and are looked up in the file. Everything else (images, frames
    that have ``at`` already) stays as it is.

    A frame's ``frame`` is its 0-based place in the video, ``at`` its presentation time stamp, and its name
    ``NAME#t=SECONDS``, counted from the video's first frame.

    Args:
        items: What a source or a layout lists.
        sampling: Which frames are taken.
        jobs: Worker processes that read time stamps; 0 takes all cores, 1 works in this process.
        on_progress: Called with the videos done and all videos, after each.

    Raises:
        ConfigError: There are videos, and PyAV isn't installed; or a negative number of jobs.
        FeatlabError: A worker process died.
    """
    clips = Counter(_clip(item) for item in items if _to_expand(item))
    read = probe_videos(list(dict.fromkeys(path for path, _, _ in clips)), jobs=jobs, on_progress=on_progress)
    sampled = {path: sample(times, sampling) for path, times in read.items() if isinstance(times, VideoTimes)}
    expanded: list[Item] = []
    failures: dict[str, str] = {}
    found: set[_Clip] = set()
    for item in items:
        if not _to_expand(item):
            expanded.append(item)
            continue
        times = read[item.path]
        if isinstance(times, str):
            failures[item.name] = times
            continue
        if times.cut_short is not None:
            failures[item.name] = times.cut_short
        places: Sequence[int] = sampled[item.path]
        if _is_labelled_frame(item, clips):
            if item.frame >= len(times.stamps):
                failures[f"{item.name}#frame={item.frame}"] = f"the video has {len(times.stamps)} frames"
                continue
            near = bisect_left(places, item.frame)
            places = [item.frame] if item.frame in places[near : near + 1] else []
        if places:
            found.add(_clip(item))
        expanded += [_frame(item, times, place) for place in places]
    for item in items:
        if _to_expand(item) and _clip(item) not in found and item.name not in failures:
            failures[item.name] = _why_none(item, read[item.path], sampling, clips)
    return Expanded(
        [replace(item, row=row) for row, item in enumerate(expanded)],
        tuple(Failure(name, why) for name, why in failures.items()),
    )


def _to_expand(item: Item) -> bool:
    return item.at is None and is_video(item.path)


def _clip(item: Item) -> _Clip:
    return item.path, item.subject, item.video


def _is_labelled_frame(item: Item, clips: Counter[_Clip]) -> bool:
    return item.frame > 0 or clips[_clip(item)] > 1


def _frame(item: Item, times: VideoTimes, place: int) -> Item:
    name = f"{item.name}#t={times.seconds(place):.3f}"
    return replace(item, name=name, frame=place, at=times.stamps[place])


def _why_none(item: Item, times: VideoTimes | str, sampling: Sampling, clips: Counter[_Clip]) -> str:
    if isinstance(times, str):
        return times
    if _is_labelled_frame(item, clips) or sampling.window is None:
        return "none of its labelled frames is among the sampled ones"
    opening, closing = sampling.window
    last = times.seconds(len(times.stamps) - 1)
    return f"no frame from {opening:g} to {closing:g} s; its last frame is at {last:.3f} s"
