"""One line of a csv of pixels, as FER2013 has them, to an image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featlab.errors import InputError

SIDE = 48
_LONGEST_LINE = 1 << 16
_DIGITS = 6


def decode_csv_pixels(path: Path, offset: int) -> NDArray[np.uint8]:
    """Read the image that a line of a csv holds.

    Of the line's values, the one with several numbers in it is the image: 48 x 48 grey values from 0 to 255, row by
    row, apart by blanks. Where in the line it stands doesn't matter, and neither do quotes around it.

    Args:
        path: The csv.
        offset: The byte at which the line starts.

    Returns:
        uint8 (48, 48, 3), the grey value in all three channels.

    Raises:
        InputError: There is no such image; the message is the reason alone, without the path.
    """
    try:
        with path.open("rb") as file:
            file.seek(offset)
            line = file.readline(_LONGEST_LINE)
    except FileNotFoundError:
        raise InputError("no such file") from None
    except OSError as error:
        raise InputError(error.strerror or "can't be read") from None
    if not line.strip():
        raise InputError("the line is empty, or the file ends before it")
    values = max((cell.strip(b' \t\r\n"').split() for cell in line.split(b",")), key=len)
    if len(values) != SIDE * SIDE:
        raise InputError(f"{len(values)} pixels, expected {SIDE} x {SIDE} = {SIDE * SIDE}")
    # All digits are looked at before any becomes a number: int() takes more than plain ones.
    if b"".join(values).translate(None, b"0123456789") or max(map(len, values)) > _DIGITS:
        bad = next(value for value in values if not value.isdigit() or len(value) > _DIGITS)
        raise InputError(f"a pixel is {bad[:12].decode('ascii', 'replace')!r}, expected a whole number from 0 to 255")
    grey = np.array(list(map(int, values)), dtype=np.int64)
    if grey.max() > 255:
        raise InputError(f"a pixel is {grey.max()}, expected a whole number from 0 to 255")
    return np.repeat(grey.astype(np.uint8).reshape(SIDE, SIDE, 1), 3, axis=2)
