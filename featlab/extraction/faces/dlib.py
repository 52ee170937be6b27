"""dlib: its frontal face detector, and a shape predictor from a file (68 or 5 points)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featlab.errors import ConfigError, InputError, one_line
from featlab.extraction.faces.detectors import cut_out, installed, model_file, package_version

# The detector sees faces of 80 pixels and more. A picture up to this many pixels wide is also tried at four times its
# size, in a black frame.
_SMALL = 512


@dataclass(frozen=True)
class DlibDetector:
    """Finds the points of the largest frontal face."""

    name: str  # ``dlib:FILE.dat``
    # What the file's predictor gives: 68 (iBUG) or 5 (corners of the eyes and foot of the nose), in general
    points: int
    info: str  # Library, version and model
    predictor: Path  # The file

    def detect(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Find the largest face; see `Detector.detect`."""
        find, predict = load_models(self.predictor)
        height, width = image.shape[:2]
        attempts = [(np.ascontiguousarray(image), 0, 0, doublings) for doublings in (0, 1)]
        if max(height, width) <= _SMALL:
            attempts.append((*cut_out(image, -(width // 2), -(height // 2), 2 * width, 2 * height), 2))
        for pixels, left, top, doublings in attempts:
            faces = list(find(pixels, doublings))
            if faces:
                face = max(faces, key=lambda box: box.width() * box.height())
                return _points(predict(pixels, face)) + np.array([left, top], dtype=np.float32)
        return np.full((self.points, 2), np.nan, dtype=np.float32)


def make_dlib_detector(spec: str, predictor: Path | None, points: int) -> DlibDetector:
    """Build the detector called ``spec``; the predictor is loaded once to learn its number of points."""
    if predictor is None:
        raise ConfigError("dlib needs the file of a shape predictor: dlib:FILE.dat")
    if points != 68:
        raise ConfigError(f"points = {points}: only mediapipe gives the whole mesh, dlib gives what its file holds")
    installed("dlib", "dlib", f"the detector {spec!r}")
    import dlib

    model = model_file(predictor)
    # A predictor doesn't say how many points it has, but it gives them for any rectangle.
    _, predict = load_models(predictor)
    points = len(_points(predict(np.zeros((32, 32, 3), dtype=np.uint8), dlib.rectangle(0, 0, 31, 31))))
    return DlibDetector(spec, points, f"dlib {package_version('dlib')}, {model}, {points} points", predictor)


@lru_cache(maxsize=1)
def load_models(predictor: Path) -> tuple[Any, Any]:
    """Load dlib's frontal face detector and the shape predictor in this process."""
    import dlib

    try:
        return dlib.get_frontal_face_detector(), dlib.shape_predictor(str(predictor))
    except RuntimeError as error:
        raise InputError(f"{predictor}: isn't a shape predictor that dlib can load ({one_line(error)})") from None


def _points(shape: Any) -> NDArray[np.float32]:
    parts = [shape.part(number) for number in range(shape.num_parts)]
    return np.array([(part.x, part.y) for part in parts], dtype=np.float32).reshape(-1, 2)
