"""The time stamps of many videos, read by worker processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

from featlab.errors import ConfigError, InputError
from featlab.extraction.video.files import import_av
from featlab.extraction.video.times import VideoTimes, probe_video
from featlab.extraction.worker import run_in_order, worker_count

OnVideo = Callable[[int, int], None]

# Starting a worker process takes as long as reading the time stamps of some videos.
_VIDEOS_A_JOB = 8


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
    processes = worker_count(jobs, len(paths) // _VIDEOS_A_JOB)
    read: dict[Path, VideoTimes | str] = {}
    with closing(run_in_order(_probe, paths, jobs=processes, died=_worker_died)) as results:
        for path, times in results:
            read[path] = times
            if on_progress is not None:
                on_progress(len(read), len(paths))
    return read


def _worker_died(path: Path) -> str:
    return f"a worker process died near {path}; is it a whole video?"


def _probe(path: Path) -> VideoTimes | str:
    try:
        return probe_video(path)
    except InputError as error:
        return str(error)
