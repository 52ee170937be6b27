"""Tiny videos, made here; every frame shows its own number."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

WIDTH, HEIGHT, BITS, BAR = 128, 64, 12, 10
MakeVideo = Callable[..., Path]
ReadNumber = Callable[[object], int]


def draw_number(number: int) -> NDArray[np.uint8]:
    """Twelve light or dark bars over their opposites, so that no compression can turn a bit around."""
    picture = np.full((HEIGHT, WIDTH, 3), 90, dtype=np.uint8)
    for bit in range(BITS):
        light, dark = (235, 20) if number >> bit & 1 else (20, 235)
        bar = slice(4 + BAR * bit, 4 + BAR * (bit + 1))
        picture[: HEIGHT // 2, bar], picture[HEIGHT // 2 :, bar] = light, dark
    return picture


@pytest.fixture
def read_number() -> ReadNumber:
    """The number that a decoded frame shows; -1 of a picture that isn't a clear one."""

    def read(image: object) -> int:
        assert isinstance(image, np.ndarray), image
        assert (image.dtype, image.shape) == (np.uint8, (HEIGHT, WIDTH, 3))
        number = 0
        for bit in range(BITS):
            bar = slice(4 + BAR * bit + 3, 4 + BAR * (bit + 1) - 3)
            difference = image[8:24, bar].mean() - image[40:56, bar].mean()
            if abs(difference) < 100:
                return -1
            number |= int(difference > 0) << bit
        return number

    return read


@pytest.fixture
def make_video() -> MakeVideo:
    """Write a video whose frames, 0, 1, 2, ..., are shown at the given time stamps; the suffix says the container."""
    av = pytest.importorskip("av", reason="needs the extra 'video'")

    def make(
        path: Path,
        stamps: Iterable[int] = range(50),
        *,
        codec: str = "libx264",
        unit: Fraction = Fraction(1, 25),
        b_frames: int = 2,
        group: int = 12,
        codec_options: dict[str, str] | None = None,
        options: dict[str, str] | None = None,
    ) -> Path:
        if codec not in av.codecs_available:
            pytest.skip(f"this build of PyAV has no {codec}")
        path.parent.mkdir(parents=True, exist_ok=True)
        with av.open(str(path), "w", options=options or {}) as container:
            stream = container.add_stream(codec, rate=25, options=codec_options or {})
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
            context = stream.codec_context
            context.time_base, context.gop_size, context.max_b_frames = unit, group, b_frames
            context.bit_rate, context.thread_count = 800_000, 1
            for number, stamp in enumerate(stamps):
                frame = av.VideoFrame.from_ndarray(draw_number(number), format="rgb24")
                frame.pts, frame.time_base = stamp, unit
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        return path

    return make


@pytest.fixture
def make_video_without_frames() -> MakeVideo:
    """Write a video file that has a header and no frame."""
    av = pytest.importorskip("av", reason="needs the extra 'video'")

    def make(path: Path) -> Path:
        with av.open(str(path), "w", format="avi") as container:
            stream = container.add_stream("mpeg4", rate=25)
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
            container.start_encoding()
        return path

    return make
