"""Which files are videos, how one is opened, and how its packets become frames; frames by their time stamps."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import chain, takewhile
from pathlib import Path, PurePath
from types import ModuleType
from typing import TYPE_CHECKING, Any

from featlab.errors import ConfigError, InputError, one_line

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# An animation (.gif, .webp) is an image: its first frame is taken.
_SUFFIXES = "3g2 3gp asf avi dv flv m2ts m4v mkv mov mp4 mpeg mpg mts mxf ogv ts vob webm wmv"
VIDEO_SUFFIXES = frozenset(f".{name}" for name in _SUFFIXES.split())


def is_video(path: PurePath) -> bool:
    """Whether the suffix, in any case, is a video's."""
    return path.suffix.lower() in VIDEO_SUFFIXES


ANEW = 1 << 62
"""Added to the time stamps of a video whose clock jumps: so many units say that they are those of `on_one_clock`."""
# Beyond that a step ahead is a jump, too, in formats whose clocks may start anew; ffmpeg has the same rule.
_LONGEST_STEP = 10.0


class OpenVideo:
    """A video file that is open."""

    def __init__(self, container: Any, av: ModuleType) -> None:
        self.container = container  # PyAV's
        self.stream = _stream(container, av)  # The first video stream that isn't a cover picture
        # A frame's time stamp is its number in the order of decoding, since the file stores none: AVI has no place for
        # them, and where frames are stored in another order than shown, ffmpeg's guesses are wrong
        self.numbered = container.format.name == "avi" and bool(self.stream.codec_context.has_b_frames)
        self.jumps = 0  # How often its clock started anew, as far as `on_one_clock` has come


def on_one_clock(video: OpenVideo, packets: Iterable[Any]) -> Iterator[Any]:
    """Yield packets, read from the file's beginning; where its clock starts anew, one part follows the other."""
    may_jump_ahead = video.container.format.name in ("mpeg", "mpegts")
    longest = _LONGEST_STEP / video.stream.time_base if may_jump_ahead else math.inf
    before: int | None = None
    latest: int | None = None
    offset, step = 0, 0
    for packet in packets:
        if packet.dts is not None:
            if before is not None and before < packet.dts:
                step = min(step, packet.dts - before) if step else packet.dts - before
            before = packet.dts
        if packet.pts is not None:
            # Whatever comes before a key frame is shown before it.
            ahead = 0 if latest is None else packet.pts + offset - latest
            if packet.is_keyframe and not 0 <= ahead <= longest:
                video.jumps += 1
                offset += max(step, 1) - ahead
            packet.pts += offset
            latest = packet.pts if latest is None else max(latest, packet.pts)
            if packet.dts is not None:
                packet.dts += offset
        yield packet


def import_av() -> ModuleType:
    """Import PyAV, which leaves ffmpeg's own messages unprinted."""
    try:
        import av
    except ImportError:
        raise ConfigError("video frames need PyAV: pip install 'featlab[video]'") from None
    module: ModuleType = av
    return module


@contextmanager
def open_video(path: Path) -> Iterator[OpenVideo]:
    """Open a video file for reading; closed on leaving."""
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
    except (av.FFmpegError, OSError, ValueError) as error:
        raise InputError(f"not a video that can be read: {one_line(error)}") from None
    with container:
        yield OpenVideo(container, av)


def _stream(container: Any, av: ModuleType) -> Any:
    cover = av.stream.Disposition.attached_pic
    stream = next((stream for stream in container.streams.video if not stream.disposition & cover), None)
    if stream is None:
        raise InputError("there is no video in it")
    if stream.codec_context is None:
        raise InputError("its video is in a format that this build of PyAV can't decode")
    stream.codec_context.thread_count = 1
    return stream


def read_packets(video: OpenVideo) -> Iterator[Any]:
    """Yield the stream's packets from where the file stands, without empty ones."""
    av = import_av()
    try:
        for packet in video.container.demux(video.stream):
            if packet.size:
                yield packet
    except (av.FFmpegError, OSError) as error:
        raise InputError(f"the file can't be read to its end: {one_line(error)}") from None


def decode_packets(video: OpenVideo, packets: Iterable[Any]) -> Iterator[tuple[int | None, Any, str | None]]:
    """Decode packets, the last frames included: time stamp or None, PyAV's frame, and why it is broken, if it is.

    After a packet that can't be decoded, frames may be made of what was lost, up to the next key frame.
    """
    av = import_av()
    broken: str | None = None
    # Time stamps of the key frames that were read after the last damage; the decoder may hand out older ones yet.
    keys: set[int | None] = set()
    count = 0
    # None is PyAV's sign for the decoder to hand out what it still holds.
    for packet in chain(packets, [None]):
        if packet is not None and packet.is_keyframe:
            keys.add(packet.pts)
        try:
            frames = video.stream.codec_context.decode(packet)
        except (av.FFmpegError, ValueError) as error:
            broken = f"the video is damaged here: {one_line(error)}"
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


# How many seconds before the wanted frame a file is entered, one try after the other; None: read from its beginning.
# A seek may land after the frame (an index by decoding time, leading frames of an open group of pictures). Formats
# without an index are entered by guess, and the first time stamps after that can't be trusted.
_TRIES = (0, 2, 15, None)
_WITHOUT_INDEX = ("mpeg", "mpegts", "ogg")
_LOST = "the frame can't be decoded"


def decode_frames(path: Path, stamps: Sequence[int]) -> Generator[NDArray[np.uint8] | InputError, None, None]:
    """Decode frames of a video in one pass, upright, with one frame in memory."""
    place = 0
    reason = _LOST
    anew = stamps[0] >= ANEW // 2
    stamps = [stamp - ANEW for stamp in stamps] if anew else stamps
    try:
        with open_video(path) as video:
            tries = [None] if anew else _tries(video, stamps[0])
        for back in tries:
            with open_video(path) as video, closing(_decoded_from(video, stamps[place], back, anew)) as decoded:
                upright = _converter()
                for stamp, frame, broken in decoded:
                    if stamp < stamps[place]:
                        continue
                    if back is not None and stamp > stamps[place]:
                        break
                    while place < len(stamps) and stamps[place] < stamp:
                        yield InputError(_LOST)
                        place += 1
                    if place < len(stamps) and stamps[place] == stamp:
                        yield upright(frame) if broken is None else InputError(broken)
                        place += 1
                    if place == len(stamps):
                        return
    except InputError as error:
        reason = str(error)
    for _ in stamps[place:]:
        yield InputError(reason)


def _tries(video: OpenVideo, first: int) -> list[int | None]:
    if video.numbered:
        return [None]
    tries = _TRIES[1:] if video.container.format.name in _WITHOUT_INDEX else _TRIES
    beginning = video.stream.start_time or 0
    return [back for back in tries if back is None or first - back / video.stream.time_base > beginning]


def _decoded_from(
    video: OpenVideo, stamp: int, back: int | None, anew: bool
) -> Generator[tuple[int, Any, str | None], None, None]:
    """Decode from a key frame at least ``back`` seconds before ``stamp``; nothing when there is no such way in."""
    packets = on_one_clock(video, read_packets(video)) if anew else read_packets(video)
    key: int | None = None
    if back is not None:
        av = import_av()
        try:
            video.container.seek(int(stamp - back / video.stream.time_base), stream=video.stream)
        except (av.FFmpegError, OSError):
            return
        # Frames of packets without a time stamp only counting from the beginning can tell.
        packets = takewhile(lambda packet: packet.pts is not None, packets)
        first = next((packet for packet in packets if packet.is_keyframe), None)
        if first is None or first.pts > stamp:
            return
        key = first.pts
        packets = chain([first], packets)
    for shown, frame, broken in decode_packets(video, packets):
        # Frames shown before the key frame may need others that were never read.
        if shown is not None and (key is None or shown >= key):
            yield shown, frame, broken


def _converter() -> Callable[[Any], NDArray[np.uint8] | InputError]:
    """Return what turns frames into upright RGB; it keeps the conversion's tables from one frame to the next."""
    # Not above: a list of layouts needs no NumPy.
    import numpy as np

    av = import_av()
    reformatter = av.video.reformatter.VideoReformatter()
    matrices: dict[int, bytes | None] = {}

    def convert(frame: Any) -> NDArray[np.uint8] | InputError:
        try:
            image: NDArray[np.uint8] = reformatter.reformat(frame, format="rgb24").to_ndarray()
        except (av.FFmpegError, ValueError) as error:
            return InputError(f"the frame can't be turned into RGB: {one_line(error)}")
        # A frame that was asked for its side data refers to itself and stays until the garbage is collected: hundreds
        # of pictures. So ask once for every rotation.
        if frame.rotation not in matrices:
            found = frame.side_data.get("DISPLAYMATRIX")
            matrices[frame.rotation] = None if found is None else bytes(found)
        matrix = matrices[frame.rotation]
        return np.ascontiguousarray(image if matrix is None else _upright(image, matrix))

    return convert


def _upright(image: NDArray[np.uint8], matrix: bytes) -> NDArray[np.uint8]:
    """Turn and mirror an image as its display matrix says; no camera writes other turns than by quarters."""
    # It takes stored (x, y) to shown (a x + c y, b x + d y), y downwards (ISO/IEC 14496-12, 8.3.2).
    a, b, _, c, d, *_ = struct.unpack("=9i", matrix)
    if a == d == 0 and b and c:
        image, across, down = image.swapaxes(0, 1), c, b
    elif b == c == 0 and a and d:
        across, down = a, d
    else:
        return image
    return image[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1]
