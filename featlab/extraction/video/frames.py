"""Frames of a video by their time stamps."""

from __future__ import annotations

import struct
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featlab.errors import InputError
from featlab.extraction.video.files import OpenVideo, decode_packets, import_av, open_video, read_packets

# How many seconds before the wanted frame a file is entered, one try after the other; None: read from its beginning.
# A seek may land after the frame (an index by decoding time, leading frames of an open group of pictures). Formats
# without an index are entered by guess, and the first time stamps after that can't be trusted.
_TRIES = (0, 2, 15, None)
_TRIES_WITHOUT_INDEX = (2, 15, None)
_WITHOUT_INDEX = frozenset(["mpeg", "mpegts", "ogg"])
_LOST = "the frame can't be decoded"


def decode_frames(path: Path, stamps: Sequence[int]) -> Generator[NDArray[np.uint8] | InputError, None, None]:
    """Decode frames of a video in one pass, upright, with one frame in memory.

    The file is entered at a key frame before the first frame. A frame's pixels don't depend on what else is read.

    Args:
        path: The video.
        stamps: Strictly ascending, as `probe_video` gives them; at least one.

    Yields:
        One result a time stamp, in their order: uint8 (height, width, 3), RGB, C-contiguous; or the `InputError` that
        says why there is none (the reason alone, without the path).

    Raises:
        ConfigError: PyAV isn't installed.
    """
    place = 0
    reason = _LOST
    try:
        with open_video(path) as video:
            tries = _tries(video, stamps[0])
        for back in tries:
            with open_video(path) as video, closing(_decoded_from(video, stamps[place], back)) as decoded:
                picture = _Picture()
                for stamp, frame, broken in decoded:
                    if stamp < stamps[place]:
                        continue
                    if back is not None and stamp > stamps[place]:
                        break
                    while place < len(stamps) and stamps[place] < stamp:
                        yield InputError(_LOST)
                        place += 1
                    if place < len(stamps) and stamps[place] == stamp:
                        yield picture(frame) if broken is None else InputError(broken)
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
    tries = _TRIES_WITHOUT_INDEX if video.container.format.name in _WITHOUT_INDEX else _TRIES
    beginning = video.stream.start_time or 0
    return [back for back in tries if back is None or first - back / video.stream.time_base > beginning]


def _decoded_from(video: OpenVideo, stamp: int, back: int | None) -> Generator[tuple[int, Any, str | None], None, None]:
    """Decode from a key frame at least ``back`` seconds before ``stamp``; nothing when there is no such way in."""
    packets = read_packets(video)
    key: int | None = None
    if back is not None:
        av = import_av()
        try:
            video.container.seek(int(stamp - back / video.stream.time_base), stream=video.stream)
        except (av.FFmpegError, OSError):
            return
        packets = _with_stamps(packets)
        first = next((packet for packet in packets if packet.is_keyframe), None)
        if first is None or first.pts > stamp:
            return
        key = first.pts
        packets = _chain(first, packets)
    for shown, frame, broken in decode_packets(video, packets):
        # Frames shown before the key frame may need others that were never read.
        if shown is not None and (key is None or shown >= key):
            yield shown, frame, broken


def _with_stamps(packets: Iterator[Any]) -> Iterator[Any]:
    """Yield packets up to the first without a time stamp, whose frames only counting from the beginning can tell."""
    for packet in packets:
        if packet.pts is None:
            return
        yield packet


def _chain(first: Any, packets: Iterator[Any]) -> Iterator[Any]:
    yield first
    yield from packets


class _Picture:
    """Turns frames into upright RGB; keeps the conversion's tables from one frame to the next."""

    def __init__(self) -> None:
        self._reformatter = import_av().video.reformatter.VideoReformatter()
        self._matrices: dict[int, bytes | None] = {}

    def __call__(self, frame: Any) -> NDArray[np.uint8] | InputError:
        av = import_av()
        try:
            image: NDArray[np.uint8] = self._reformatter.reformat(frame, format="rgb24").to_ndarray()
        except (av.FFmpegError, ValueError) as error:
            return InputError(f"the frame can't be turned into RGB: {' '.join(str(error).split())}")
        matrix = self._matrix(frame)
        return np.ascontiguousarray(image if matrix is None else _upright(image, matrix))

    def _matrix(self, frame: Any) -> bytes | None:
        # A frame that was asked for its side data refers to itself and stays until the garbage is collected: hundreds
        # of pictures. So ask once for every rotation.
        if frame.rotation not in self._matrices:
            matrix = frame.side_data.get("DISPLAYMATRIX")
            self._matrices[frame.rotation] = None if matrix is None else bytes(matrix)
        return self._matrices[frame.rotation]


def _upright(image: NDArray[np.uint8], matrix: bytes) -> NDArray[np.uint8]:
    """Turn and mirror an image as its display matrix says.

    The matrix (ISO/IEC 14496-12, 8.3.2) takes stored (x, y) to shown (a x + c y, b x + d y), y downwards. Of turns by
    other than quarters nothing is done: no camera writes them.
    """
    a, b, _, c, d, *_ = struct.unpack("=9i", matrix)
    if a == d == 0 and b and c:
        image, across, down = image.swapaxes(0, 1), c, b
    elif b == c == 0 and a and d:
        across, down = a, d
    else:
        return image
    return image[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1]
