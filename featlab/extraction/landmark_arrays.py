"""Landmarks in NumPy's files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featlab.errors import InputError

# The name under which featlab's own detections lie in a .npz.
ARRAY = "landmarks"


def read_array(path: Path) -> NDArray[np.float32]:
    """Read a ``.npy``, or a ``.npz`` that holds one array or one called ``landmarks``.

    Args:
        path: The file: (rows, P, 2), or (rows, 2P) as x, y, x, y, ...

    Returns:
        float32 (rows, P, 2).

    Raises:
        InputError: It isn't such an array.
    """
    array = _load(path)
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        raise InputError(f"{path} doesn't hold one array of numbers")
    if array.ndim == 2 and array.shape[1] >= 2 and array.shape[1] % 2 == 0:
        array = array.reshape(len(array), -1, 2)
    if array.ndim != 3 or array.shape[1] == 0 or array.shape[2] != 2:
        raise InputError(f"{path} has shape {array.shape}; expected (rows, P, 2) or (rows, 2P)")
    points: NDArray[np.float32] = array.astype(np.float32)
    return points


def read_one_clip(path: Path) -> NDArray[np.float32]:
    """Read the array of one image, (P, 2), or of one clip, as `read_array` takes it.

    Returns:
        float32 (frames, P, 2); an image is a clip of one frame.

    Raises:
        InputError: It isn't such an array.
    """
    array = _load(path)
    if isinstance(array, np.ndarray) and array.dtype.kind in "fiu" and array.ndim == 2 and array.shape[1] == 2:
        return array.astype(np.float32)[None]
    return read_array(path)


def _load(path: Path) -> object:
    kind = path.suffix.lower()
    try:
        loaded = np.load(path, allow_pickle=False)
        if not isinstance(loaded, np.lib.npyio.NpzFile):
            return loaded
        with loaded:
            names = loaded.files
            if ARRAY in names or len(names) == 1:
                return loaded[ARRAY if ARRAY in names else names[0]]
    except Exception:
        # NumPy lets through what zip and its header parser raise on a broken file (BadZipFile, SyntaxError, ...).
        raise InputError(f"{path} isn't a {kind} array of numbers; save it with numpy.save") from None
    raise InputError(f"{path} holds the arrays {', '.join(names[:5]) or 'none'}; one of them must be called {ARRAY!r}")
