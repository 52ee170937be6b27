"""What is called a picture or a video."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hostile.parts import Made, pickles, png


def pictures(folder: Path, side: int = 80_000_000, text: int = 10**8) -> Made:
    """What is called a picture; two have such a side, and one so many bytes in its texts."""
    canary = folder / "canary"
    good, buffer = Image.fromarray(np.full((40, 40, 3), 90, dtype=np.uint8)), io.BytesIO()
    shapes: dict[str, bytes] = {}
    for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "TGA", "SGI", "PCX", "JPEG2000"):
        buffer = io.BytesIO()
        good.save(buffer, kind)
        shapes[kind] = buffer.getvalue()
        for part in (2, 3, 10):
            yield f"a cut {kind} {part}.png", shapes[kind][: len(shapes[kind]) // part]
    script = (
        b"%%!PS-Adobe-3.0 EPSF-3.0\n%%%%BoundingBox: 0 0 40 40\n%%%%EndComments\n(%s) (w) file closefile\nshowpage\n"
        % os.fsencode(canary)
    )
    for suffix in ("jpg", "png", "tif", "psd"):
        yield f"a script.{suffix}", script
    for name, size in {
        "high": (1, side),
        "wide": (side, 1),
        "as large as may be": (min(9400, side // 8000),) * 2,
        "large": (60_000, 60_000),
        "beyond all": (2**31 - 1, 2**31 - 1),
    }.items():
        yield f"{name}.png", png(size, rows=min(size[1], side) if size[0] * size[1] < 10**8 else 0)
    yield (
        "a bomb in its text.png",
        png(
            (4, 4),
            4,
            [
                (b"iCCP", b"x\0\0" + zlib.compress(bytes(text), 9)),
                (b"zTXt", b"x\0\0" + zlib.compress(bytes(text), 9)),
            ],
        ),
    )
    yield "a chunk too long.png", shapes["PNG"][:33] + b"\x7f\xff\xff\xffIDAT"
    yield "nothing to show.png", png((40, 40), 0)
    for name, start in {
        "HDF5": b"\x89HDF\r\n\x1a\n",
        "GRIB": b"GRIB\0\0\0\1",
        "BUFR": b"BUFR\0\0\0\1",
        "WMF": b"\xd7\xcd\xc6\x9a",
        "FITS": b"SIMPLE  =",
        "ICNS": b"icns",
        "text": b"hello",
        "a page": b"<svg>",
        "MZ": b"MZ",
        "zip": b"PK\3\4",
    }.items():
        yield f"{name}.jpg", start + bytes(400)
    yield "a huge number.ppm", b"P3 " + b"9" * 10**6 + b" 1 255 1"
    yield "a huge promise.ppm", b"P6 9000 9000 255 "
    yield "a huge promise.bmp", shapes["BMP"][:18] + struct.pack("<ii", 9000, 9000) + shapes["BMP"][26:]
    yield "a huge promise.gif", b"GIF89a" + struct.pack("<HH", 65535, 65535) + shapes["GIF"][10:]
    yield "a huge promise.tga", shapes["TGA"][:12] + struct.pack("<HH", 9000, 9000) + shapes["TGA"][16:]
    yield "NaN.tif", _tiff(np.full((40, 40), np.nan, dtype=np.float32))
    yield "infinite.tif", _tiff(np.full((40, 40), np.inf, dtype=np.float32))
    yield "counts of 2**32.tif", shapes["TIFF"].replace(struct.pack("<I", 40), struct.pack("<I", 2**32 - 1))
    yield "a loop.tif", b"II*\0\x08\0\0\0\0\0\x08\0\0\0"


def _tiff(array: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "TIFF")
    return buffer.getvalue()


def videos(folder: Path) -> Made:
    """What is called a video."""
    good = folder / "good.mp4"
    try:
        import av
    except ImportError:
        return
    with av.open(str(good), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 32
        for packet in [p for _ in range(3) for p in stream.encode(av.VideoFrame(32, 32, "yuv420p"))] + stream.encode(
            None
        ):
            container.mux(packet)
    content = good.read_bytes()
    for part in (2, 3, 5, 20):
        yield f"cut {part}.mp4", content[: len(content) // part]
    for number in range(0, len(content), max(1, len(content) // 20)):
        yield f"byte {number} changed.mp4", content[:number] + bytes([content[number] ^ 0xFF]) + content[number + 1 :]
    for suffix in ("mp4", "avi", "mkv", "ts"):
        yield (
            f"a list of streams.{suffix}",
            f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile://{good}\n#EXT-X-ENDLIST\n".encode(),
        )
        yield f"a list of files.{suffix}", f"ffconcat version 1.0\nfile {good.name}\nfile ../../../good.mp4\n".encode()
        yield (
            f"a call.{suffix}",
            b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 96\n",
        )
        yield (
            f"a dash manifest.{suffix}",
            b"<MPD><Period><AdaptationSet><Representation><BaseURL>file:///etc/passwd</BaseURL></Representation></AdaptationSet></Period></MPD>",
        )
        yield f"zeros.{suffix}", bytes(100_000)
        yield f"text.{suffix}", b"hello\n" * 1000
        yield f"a picture.{suffix}", png((40, 40), 40)
        for number, code in enumerate(pickles(folder / "canary")):
            yield f"pickle {number}.{suffix}", code
