"""Which files are videos, how one is opened, and how its packets become frames."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from types import ModuleType
from typing import Any

from featlab.errors import ConfigError, InputError

# An animation (.gif, .webp) is an image: its first frame is taken.
VIDEO_SUFFIXES = frozenset(
    [
        *(".3g2", ".3gp", ".asf", ".avi", ".dv", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg"),
        *(".mts", ".mxf", ".ogv", ".ts", ".vob", ".webm", ".wmv"),
    ]
)


def is_video(path: PurePath) -> bool:
    """Whether the suffix, in any case, is a video's."""
    return path.suffix.lower() in VIDEO_SUFFIXES


@dataclass(frozen=True)
class OpenVideo:
    """A video file that is open.

    Attributes:
        container: PyAV's container.
        stream: The first video stream that isn't a cover picture.
        numbered: A frame's time stamp is its number in the order of decoding, since the file stores none: AVI has no
            place for them, and where frames are stored in another order than shown, ffmpeg's guesses are wrong.
    """

    container: Any
    stream: Any
    numbered: bool


def import_av() -> ModuleType:
    """Import PyAV, which leaves ffmpeg's own messages unprinted.

    Raises:
        ConfigError: It isn't installed; names the extra.
    """
    try:
        import av
    except ImportError:
        raise ConfigError("video frames need PyAV: pip install 'featlab[video]'") from None
    module: ModuleType = av
    return module


@contextmanager
def open_video(path: Path) -> Iterator[OpenVideo]:
    """Open a video file for reading; closed on leaving.

    It decodes on one thread: there are as many worker processes as cores.

    Raises:
        ConfigError: PyAV isn't installed.
        InputError: The file can't be read or has no video in it; the reason alone, without the path.
    """
    av = import_av()
    try:
        if path.is_dir():
            raise InputError("a folder, not a video")
        if path.stat().st_size == 0:
            raise InputError("the file is empty")
        # An absolute path is never taken for a URL, and a playlist that pretends to be a video reaches no server. Not
        # `options`: PyAV up to 15 also hands those to streams that it finds later, and crashes.
        container = av.open(
            str(path.absolute()), mode="r", container_options={"protocol_whitelist": "file"}, metadata_errors="replace"
        )
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError("no such file") from None
    except (av.FFmpegError, OSError, ValueError) as error:
        raise InputError(f"not a video that can be read: {_one_line(error)}") from None
    with container:
        stream = _stream(container, av)
        numbered = container.format.name == "avi" and bool(stream.codec_context.has_b_frames)
        yield OpenVideo(container, stream, numbered)


def _stream(container: Any, av: ModuleType) -> Any:
    for stream in container.streams.video:
        if stream.disposition & av.stream.Disposition.attached_pic:
            continue
        if stream.codec_context is None:
            raise InputError("its video is in a format that this build of PyAV can't decode")
        stream.codec_context.thread_count = 1
        return stream
    raise InputError("there is no video in it")


def read_packets(video: OpenVideo) -> Iterator[Any]:
    """Yield the stream's packets from where the file stands, without empty ones.

    Raises:
        InputError: The file can't be read any further.
    """
    av = import_av()
    packets = video.container.demux(video.stream)
    while True:
        try:
            packet = next(packets, None)
        except (av.FFmpegError, OSError) as error:
            raise InputError(f"the file can't be read to its end: {_one_line(error)}") from None
        if packet is None:
            return
        if packet.size:
            yield packet


def decode_packets(video: OpenVideo, packets: Iterable[Any]) -> Iterator[tuple[int | None, Any, str | None]]:
    """Decode packets, the last frames of the decoder included.

    After a packet that can't be decoded, frames may be made of what was lost, up to the next key frame. That is so
    wherever the decoding started, so a frame is whole or broken whatever else is read.

    Yields:
        Time stamp (None when there is none), PyAV's frame, and why the frame is broken (None when it isn't).
    """
    av = import_av()
    broken: str | None = None
    # Time stamps of the key frames that were read after the last damage; the decoder may hand out older ones yet.
    keys: set[int | None] = set()
    count = 0
    for packet in _and_end(packets):
        if packet is not None and packet.is_keyframe:
            keys.add(packet.pts)
        try:
            frames = video.stream.codec_context.decode(packet)
        except (av.FFmpegError, ValueError) as error:
            broken = f"the video is damaged here: {_one_line(error)}"
            keys.clear()
            continue
        for frame in frames:
            if frame.is_corrupt:
                broken = "the video is damaged here"
            elif frame.key_frame and frame.pts in keys:
                broken = None
            keys.discard(frame.pts)
            yield (count if video.numbered else frame.pts), frame, broken
            count += 1


def _and_end(packets: Iterable[Any]) -> Iterator[Any]:
    yield from packets
    # PyAV's sign for the decoder to hand out what it still holds.
    yield None


def _one_line(error: Exception) -> str:
    text = getattr(error, "strerror", None) or " ".join(str(error).split())
    return str(text) or type(error).__name__
