"""When the frames of a video are shown."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from featlab.errors import InputError
from featlab.extraction.video_files import OpenVideo, decode_packets, open_video, read_packets

# Of these, packets without a picture to show can't be told from the others by their time stamps.
_HIDDEN_FRAMES = frozenset(["vp8"])


@dataclass(frozen=True)
class VideoTimes:
    """When every frame of a video is shown.

    Attributes:
        stamps: Presentation time stamps, strictly ascending, in units of ``unit``; at least one.
        unit: Seconds.
        cut_short: Why the file has fewer frames than it should have; None when it hasn't.
    """

    stamps: tuple[int, ...]
    unit: Fraction
    cut_short: str | None = None

    def seconds(self, place: int) -> float:
        """Return when a frame is shown, in seconds after the first one."""
        return float((self.stamps[place] - self.stamps[0]) * self.unit)


def probe_video(path: Path) -> VideoTimes:
    """Read the time stamps of all frames.

    They come from the packets, without decoding. A file whose packets don't say it all is decoded once.

    Raises:
        ConfigError: PyAV isn't installed.
        InputError: It isn't a video that can be read, or has no frames; the reason alone, without the path.
    """
    times = None
    with open_video(path) as video:
        if not video.numbered and video.stream.codec_context.name not in _HIDDEN_FRAMES:
            times = _from_packets(video)
    if times is None:
        with open_video(path) as video:
            times = _from_frames(video)
    return times


def _from_packets(video: OpenVideo) -> VideoTimes | None:
    """Return what the packets say; None when one of them says nothing, or the same as another."""
    stamps: list[int] = []
    packets = 0
    cut_short = None
    try:
        for packet in read_packets(video):
            packets += 1
            # Packets outside the edit list are there for the decoder alone.
            if packet.is_discard:
                continue
            if packet.pts is None:
                return None
            stamps.append(packet.pts)
    except InputError as error:
        cut_short = str(error)
    if "mp4" in video.container.format.name and packets < video.stream.frames:
        cut_short = f"the file breaks off: {packets} of its {video.stream.frames} frames are there"
    stamps.sort()
    if len(set(stamps)) < len(stamps):
        return None
    return _times(stamps, video, cut_short)


def _from_frames(video: OpenVideo) -> VideoTimes:
    stamps: list[int] = []
    cut_short = None
    try:
        for stamp, _, _ in decode_packets(video, read_packets(video)):
            if stamp is None or (stamps and stamp <= stamps[-1]):
                raise InputError("time stamps are missing or out of order; convert it, for example to .mp4")
            stamps.append(stamp)
    except InputError as error:
        if not stamps:
            raise
        cut_short = f"after {len(stamps)} frames: {error}"
    return _times(stamps, video, cut_short)


def _times(stamps: list[int], video: OpenVideo, cut_short: str | None) -> VideoTimes:
    if not stamps:
        raise InputError(cut_short or "the video has no frames")
    return VideoTimes(tuple(stamps), Fraction(video.stream.time_base), cut_short)
