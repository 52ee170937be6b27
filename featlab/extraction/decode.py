"""One image file to RGB pixels."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from featlab.errors import InputError

# EXIF 2.3, tag 0x0112: what has to be done to the stored pixels to see the picture upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode_image(path: Path) -> NDArray[np.uint8]:
    """Read an image as upright RGB.

    The EXIF orientation is applied, transparency is laid over black, 16-bit grey is scaled to 8 bits, and of an
    animation the first frame is taken.

    Args:
        path: The image file, in any format that Pillow reads.

    Returns:
        uint8 (height, width, 3), C-contiguous.

    Raises:
        InputError: It isn't an image that can be read; the message is the reason alone, without the path.
    """
    if path.is_dir():
        raise InputError("a folder, not an image")
    try:
        if path.stat().st_size == 0:
            raise InputError("the file is empty")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Pillow only warns about an image up to twice its limit; a worker's memory can't rely on a warning.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                image.load()
                return np.ascontiguousarray(_to_rgb(_upright(image)))
    except (InputError, MemoryError):
        raise
    except FileNotFoundError:
        raise InputError("no such file") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise InputError(f"more than {Image.MAX_IMAGE_PIXELS} pixels") from None
    except UnidentifiedImageError:
        raise InputError("not an image that Pillow can read") from None
    except OSError as error:
        raise InputError(error.strerror or _one_line(error)) from None
    except Exception as error:
        # Pillow's format plugins let through whatever a broken file leads them to (struct.error, zlib.error, ...).
        raise InputError(_one_line(error)) from None


def _upright(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:
        # Damaged metadata says nothing about the pixels, which have been read.
        return image
    operation = _UPRIGHT.get(orientation)
    return image if operation is None else image.transpose(operation)


def _to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode == "F":
        raise InputError("floating-point pixels have no known range")
    if image.mode.startswith("I"):
        # Pillow's own conversion clips at 255, which turns a 16-bit photograph white.
        grey = np.clip(np.asarray(image, dtype=np.int64), 0, 65535)
        eight = ((grey + 128) // 257).astype(np.uint8)
        return np.repeat(eight[:, :, None], 3, axis=2)
    if image.has_transparency_data:
        colours = image.convert("RGBA")
        ground = Image.new("RGBA", colours.size, (0, 0, 0, 255))
        image = Image.alpha_composite(ground, colours)
    return np.asarray(image.convert("RGB"), dtype=np.uint8)


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
