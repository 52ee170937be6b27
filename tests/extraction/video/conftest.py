"""Tiny videos, made here; every frame shows its own number."""

from fractions import Fraction

import numpy as np
import pytest

WIDTH, HEIGHT, BITS, BAR = 128, 64, 12, 10


def draw_number(number):
    """Twelve light or dark bars over their opposites, so that no compression can turn a bit around."""
    picture = np.full((HEIGHT, WIDTH, 3), 90, dtype=np.uint8)
    for bit in range(BITS):
        light, dark = (235, 20) if number >> bit & 1 else (20, 235)
        bar = slice(4 + BAR * bit, 4 + BAR * (bit + 1))
        picture[: HEIGHT // 2, bar], picture[HEIGHT // 2 :, bar] = light, dark
    return picture


@pytest.fixture
def read_number():
    """The number that a decoded frame shows; -1 of a picture that isn't a clear one."""

    def read(image):
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
def make_video():
    """Write a video whose frames, 0, 1, 2, ..., are shown at the given time stamps; the suffix says the container."""
    av = pytest.importorskip("av", reason="needs the extra 'video'")

    def make(path, stamps=range(50), *, codec="libx264", unit=Fraction(1, 25), b_frames=2, group=12, **options):
        if codec not in av.codecs_available:
            pytest.skip(f"this build of PyAV has no {codec}")
        path.parent.mkdir(parents=True, exist_ok=True)
        with av.open(str(path), "w", format=options.get("format"), options=options.get("file", {})) as container:
            stream = container.add_stream(codec, rate=25, options=options.get("stream", {}))
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
            context = stream.codec_context
            context.time_base, context.gop_size, context.max_b_frames = unit, group, b_frames
            context.bit_rate, context.thread_count = 800_000, 1
            container.start_encoding()
            for number, stamp in enumerate(stamps):
                frame = av.VideoFrame.from_ndarray(draw_number(number), format="rgb24")
                frame.pts, frame.time_base = stamp, unit
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        return path

    return make
