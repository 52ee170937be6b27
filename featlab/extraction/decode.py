"""The pixels of items: image files, frames of videos, lines of a csv."""

from __future__ import annotations

import math
import warnings
from collections.abc import Generator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from featlab.errors import InputError, one_line
from featlab.extraction.items import Item
from featlab.extraction.video.frames import decode_frames, is_video

Pixels = NDArray[np.uint8] | InputError
# The tag of EXIF that says how a picture is turned.
_TURNED = 0x0112

_HEIF = frozenset(b"ftyp" + brand for brand in (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"))
# As `IMAGE_SUFFIXES`, the usual ones first; one without a mark of its own (TGA) last.
_FORMATS = (
    *("JPEG", "PNG", "BMP", "DIB", "GIF", "TIFF", "WEBP", "AVIF", "JPEG2000", "HEIF"),
    *("MPO", "PCX", "PPM", "PSD", "QOI", "SGI", "SUN", "TGA"),
)
# Pillow takes 8 bytes and more for each row, however short, and JPEG has no longer side.
_LONGEST_SIDE = 65535
_SAMPLE_FORMAT = 339
_BITS = (*range(8, 31, 2), 31, 32)
# Fractions that go up to less than that, and over 1, would be nearly black as shares of 255.
_LEAST_REACH = 16
_LEAST_HALVED = 64
_BLOCK_ROWS = 256


def read_pixels(items: Sequence[Item]) -> Generator[Pixels, None, None]:
    """Read the pixels of items, one after the other; frames that ascend in one video in one pass."""
    runs: list[list[Item]] = []
    for item in items:
        before = runs[-1][-1] if runs else item
        in_order = before.at is not None and item.at is not None and before.at < item.at
        if in_order and before.path == item.path and is_video(item.path):
            runs[-1].append(item)
        else:
            runs.append([item])
    for run in runs:
        # Closed here, so that a caller who stops early leaves no open file behind.
        with closing(_read(run)) as images:
            for item, image in zip(run, images, strict=True):
                yield image if item.box is None or isinstance(image, InputError) else _cut(image, item.box)


def _read(items: Sequence[Item]) -> Generator[Pixels, None, None]:
    """Read the frames of one video, or one picture."""
    path, at = items[0].path, items[0].at
    kind = "video" if is_video(path) else path.suffix.lower()
    try:
        if kind == "video" and at is not None:
            yield from decode_frames(path, [item.at for item in items if item.at is not None])
        elif kind == "video":
            yield InputError("a whole video, not one frame of it; expand_videos turns it into frames")
        elif kind != ".csv":
            yield decode_image(path)
        elif at is None:
            yield InputError("a whole csv, not one image of it")
        else:
            yield decode_csv_pixels(path, at)
    except InputError as error:
        yield error


def _cut(image: NDArray[np.uint8], box: tuple[int, int, int, int]) -> Pixels:
    left, top, right, bottom = box
    part = image[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
    if part.size == 0:
        height, width = image.shape[:2]
        return InputError(f"the box {left},{top},{right},{bottom} has nothing of the image, {width}x{height}")
    return np.ascontiguousarray(part)


def decode_image(path: Path) -> NDArray[np.uint8]:
    """Read an image as upright RGB."""
    try:
        if path.is_dir():
            raise InputError("a folder, not an image")
        if path.stat().st_size == 0:
            raise InputError("the file is empty")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Pillow only warns about an image up to twice its limit; a worker's memory can't rely on a warning.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with _open(path) as image:
                if max(image.size) > _LONGEST_SIDE:
                    raise InputError(f"a side of {max(image.size)} pixels, and {_LONGEST_SIDE} are the most")
                # Of colours of 16 bits Pillow keeps the upper 8: little is left of fewer bits in such a file.
                halved = image.mode.startswith("RGB") and ";16" in str(getattr(image, "tile", ""))
                image.load()
                if halved and np.asarray(image)[..., :3].max() < _LEAST_HALVED:
                    raise InputError("its colours have 16 bits and use few of them; save it with 8 bits")
                # Pillow holds whole numbers of 32 bits with a sign; a TIFF says whether they have one.
                unsigned = getattr(image, "tag_v2", {}).get(_SAMPLE_FORMAT, (1,))[0] == 1
                return np.ascontiguousarray(_to_rgb(_upright(image), unsigned))
    except (InputError, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise InputError(f"more than {Image.MAX_IMAGE_PIXELS} pixels") from None
    except UnidentifiedImageError:
        raise InputError("not an image that Pillow can read") from None
    except OSError as error:
        raise InputError(one_line(error)) from None
    except Exception as error:
        # Pillow's format plugins let through whatever a broken file leads them to (struct.error, zlib.error, ...).
        raise InputError(f"{type(error).__name__}: {one_line(error)}") from None


def picture_size(item: Item) -> tuple[int, int]:
    """Return the width and height of an item's picture, upright; 0 and 0 when it can't be read."""
    if item.at is None and item.box is None:
        # The head of a file is enough.
        with suppress(Exception), _open(item.path) as image:
            return image.size[::-1] if image.getexif().get(_TURNED) in (5, 6, 7, 8) else image.size
    (pixels,) = read_pixels([item])
    return (0, 0) if isinstance(pixels, InputError) else (pixels.shape[1], pixels.shape[0])


def _formats() -> list[str]:
    """Return those of `_FORMATS` that this Pillow reads: any other may start programs (EPS), or reads no pictures."""
    Image.init()
    return [name for name in _FORMATS if name in Image.OPEN]


def _open(path: Path) -> Image.Image:
    try:
        return Image.open(path, formats=_formats())
    except UnidentifiedImageError:
        with path.open("rb") as file:
            if file.read(12)[4:] not in _HEIF:
                raise
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        raise InputError("HEIC pictures need pillow-heif: pip install 'featlab[heic]'") from None
    register_heif_opener()
    return Image.open(path, formats=_formats())


def _upright(image: Image.Image) -> Image.Image:
    try:
        # Pillow copies what needs no turn.
        return image if image.getexif().get(_TURNED, 1) == 1 else ImageOps.exif_transpose(image)
    except Exception:
        # Damaged metadata says nothing about the pixels, which have been read.
        return image


def _to_rgb(image: Image.Image, unsigned: bool) -> NDArray[np.uint8]:
    if image.mode == "F" or image.mode.startswith("I"):
        # Pillow's own conversion clips at 255, which turns a 16-bit photograph white.
        grey = np.asarray(image)
        eight = _eight_bits(grey.view(np.uint32) if unsigned and grey.dtype == np.int32 else grey)
        return np.repeat(eight[:, :, None], 3, axis=2)
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image.convert("RGBA"))
    return np.asarray(image.convert("RGB"), dtype=np.uint8)


def _eight_bits(grey: NDArray[Any]) -> NDArray[np.uint8]:
    """Scale grey values by the smallest usual full scale that holds all of them.

    The full scale of whole numbers is that of 8, 10, 12, … bits, of fractions 1 or one of those. Values that reach well
    below 0 have a sign, and 0 becomes the middle. Fractions may lie a tenth outside, as filters leave them.
    """
    fractions = grey.dtype.kind == "f"
    low, high = float(grey.min()), float(grey.max())
    if not math.isfinite(low) or not math.isfinite(high):
        raise InputError("some pixels are NaN or infinite")
    reach = max(high, -low) / (1.1 if fractions else 1)
    sign = int(low < -0.1 * high)
    if fractions and reach <= 1:
        return _scaled(grey, sign, 1 + sign)
    if fractions and reach < _LEAST_REACH:
        raise InputError(f"fractional pixels from {low:g} to {high:g} have no known range; scale them to 0 to 1")
    bits = next((bits for bits in _BITS if reach < 2 ** (bits - sign) + sign), _BITS[-1])
    return _scaled(grey, sign * 2 ** (bits - 1), 2**bits - 1)


def _scaled(grey: NDArray[Any], shift: int, scale: int) -> NDArray[np.uint8]:
    """Return (values + shift) / scale as shares of 255, in blocks of rows: a large picture is in memory once."""
    eight = np.empty(grey.shape, dtype=np.uint8)
    for top in range(0, len(grey), _BLOCK_ROWS):
        rows = slice(top, top + _BLOCK_ROWS)
        eight[rows] = np.rint(np.clip((grey[rows].astype(np.float64) + shift) / scale, 0, 1) * 255)
    return eight


SIDE = 48


def decode_csv_pixels(path: Path, offset: int) -> NDArray[np.uint8]:
    """Read the image that a line of a csv holds, 48 x 48 values apart by blanks, as three equal channels."""
    try:
        with path.open("rb") as file:
            file.seek(offset)
            line = file.readline(1 << 16)  # Longer than any image
    except OSError as error:
        raise InputError(one_line(error)) from None
    if not line.strip():
        raise InputError("the line is empty, or the file ends before it")
    values = max((cell.strip(b' \t\r\n"').split() for cell in line.split(b",")), key=len)
    if len(values) != SIDE * SIDE:
        raise InputError(f"{len(values)} pixels, expected {SIDE} x {SIDE} = {SIDE * SIDE}")
    # All are looked at before any becomes a number: int() takes more than plain digits.
    if bad := next((value for value in values if not value.isdigit() or len(value) > 6 or int(value) > 255), None):
        raise InputError(f"a pixel is {bad[:12].decode('ascii', 'replace')!r}, expected a whole number from 0 to 255")
    return np.repeat(np.array(list(map(int, values)), dtype=np.uint8).reshape(SIDE, SIDE, 1), 3, axis=2)
