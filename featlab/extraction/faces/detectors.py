"""What is asked of a detector, and how one is found by its name."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from featlab.errors import ConfigError, InputError, closest
from featlab.registry import Registry

_NAMES = ("dlib:FILE.dat", "mediapipe", "mediapipe:FILE.task")
_WHOLE_MESH = 478


class Detector(Protocol):
    """Finds the landmarks of the largest face. Picklable: the model is loaded in the process that first detects."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def points(self) -> int: ...  # noqa: D102
    @property
    def info(self) -> str: ...  # noqa: D102

    def detect(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Find the largest face."""
        ...


_HERE = __name__.rpartition(".")[0]
Build = Callable[[str, Path | None, int], Detector]
DETECTORS: Registry[Build] = Registry(
    "detector", {"mediapipe": f"{_HERE}.mesh:make_mesh_detector", "dlib": f"{_HERE}.dlib:make_dlib_detector"}
)


def is_detector(spec: str) -> bool:
    """Tell whether ``spec`` names a detector rather than a file of landmarks."""
    return spec.partition(":")[0] in DETECTORS.names()


def make_detector(spec: str, *, points: int = 68) -> Detector:
    """Build a detector by its name; its library is looked for, but the model isn't loaded yet."""
    kind, colon, argument = spec.partition(":")
    if not is_detector(spec):
        raise ConfigError(f"no detector is called {spec!r} (known: {', '.join(_NAMES)}){closest(spec, _NAMES)}")
    if points not in (68, _WHOLE_MESH):
        raise ConfigError(f"points = {points}: a detector gives 68 landmarks, or mediapipe's {_WHOLE_MESH}")
    if colon and not argument:
        raise ConfigError(f"{spec!r}: a file must follow the colon, as in {_NAMES[0] if kind == 'dlib' else _NAMES[2]}")
    return DETECTORS.get(kind)(spec, Path(argument) if argument else None, points)


def installed(package: str, extra: str, use: str) -> Path:
    """Find a library's folder without importing it."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ConfigError(f"{use} needs {package}: pip install 'featlab[{extra}]'")
    return Path(spec.origin).parent


def package_version(package: str) -> str:
    """Return a library's version, or ``unknown``."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def model_file(path: Path) -> str:
    """Describe a model file by its name and the first 12 hex digits of its sha256."""
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path}: the detector's model can't be read ({error.strerror})") from None
    return f"{path.name} {digest[:12]}"


Window = tuple[NDArray[np.uint8], int, int]


def windows(image: NDArray[np.uint8]) -> Iterator[Window]:
    """Yield where to look for a face, one after the other until one is found."""
    height, width = image.shape[:2]
    yield np.ascontiguousarray(image), 0, 0
    yield cut_out(image, -(width // 2), -(height // 2), 2 * width, 2 * height)
    if max(height, width) >= _LARGE:
        for top in (0, height // 4, height - height // 2):
            for left in (0, width // 4, width - width // 2):
                yield cut_out(image, left, top, width // 2, height // 2)


def cut_out(image: NDArray[np.uint8], left: int, top: int, width: int, height: int) -> Window:
    """Cut a rectangle out of an image, black where it reaches over the edge; overlaps the image, 1 pixel or more."""
    whole = np.zeros((height, width, 3), dtype=np.uint8)
    x0, y0 = max(left, 0), max(top, 0)
    x1, y1 = min(left + width, image.shape[1]), min(top + height, image.shape[0])
    whole[y0 - top : y1 - top, x0 - left : x1 - left] = image[y0:y1, x0:x1]
    return whole, left, top


# Pixels of the longer side from which looking at quarters is worth it: the detectors work on about 128.
_LARGE = 256
