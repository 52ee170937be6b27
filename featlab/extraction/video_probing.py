"""The time stamps of many videos, read by worker processes."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from featlab.errors import ConfigError, FeatlabError, InputError
from featlab.extraction.processes import settle_worker
from featlab.extraction.video_files import import_av
from featlab.extraction.video_times import VideoTimes, probe_video

OnVideo = Callable[[int, int], None]

# Starting a worker process takes as long as reading the time stamps of some videos.
_VIDEOS_A_JOB = 8
# Windows can't wait for more processes than this.
_MAX_JOBS = 61


def probe_videos(
    paths: Sequence[Path], *, jobs: int = 1, on_progress: OnVideo | None = None
) -> dict[Path, VideoTimes | str]:
    """Read when the frames of videos are shown.

    Args:
        paths: Each once.
        jobs: Worker processes; 0 takes all cores, 1 works in this process.
        on_progress: Called with the videos done and all videos, after each.

    Returns:
        The times of each, or the reason why it has none.

    Raises:
        ConfigError: PyAV isn't installed, or a negative number of jobs.
        FeatlabError: A worker process died.
    """
    if jobs < 0:
        raise ConfigError(f"video: jobs must be 0 or more, got {jobs}")
    if not paths:
        return {}
    import_av()
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    processes = min(jobs or cores, len(paths) // _VIDEOS_A_JOB, _MAX_JOBS)
    results = _in_pool(paths, processes) if processes > 1 else map(_probe, paths)
    read: dict[Path, VideoTimes | str] = {}
    for path, times in zip(paths, results, strict=True):
        read[path] = times
        if on_progress is not None:
            on_progress(len(read), len(paths))
    return read


def _probe(path: Path) -> VideoTimes | str:
    try:
        return probe_video(path)
    except InputError as error:
        return str(error)


def _in_pool(paths: Sequence[Path], processes: int) -> Iterator[VideoTimes | str]:
    # "spawn", as for the workers that decode: a fork of a parent with threads can deadlock.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, mp_context=context, initializer=settle_worker)
    try:
        futures = [pool.submit(_probe, path) for path in paths]
        for path, future in zip(paths, futures, strict=True):
            try:
                yield future.result()
            except BrokenProcessPool:
                raise FeatlabError(f"a worker process died near {path}; is it a whole video?") from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
