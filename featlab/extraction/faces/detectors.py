"""MediaPipe's face mesh (478 points, or 68 of them), dlib's points, and the 68 of uniface's PIPNet.

Two programming interfaces lead to the mesh. The older ("solutions") has its models inside the wheel and works offline;
the last such wheel that we know needs numpy < 2. The newer ("tasks") takes a ``.task`` bundle that is downloaded apart.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import lru_cache, partial
from importlib.metadata import version
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featlab.cache.atomic import sum_of
from featlab.errors import ConfigError, InputError, one_line
from featlab.extraction.faces import to_68
from featlab.extraction.faces.detect import Detector

Model = Callable[[NDArray[np.uint8]], list[NDArray[np.float32]]]
Window = tuple[NDArray[np.uint8], NDArray[np.float32]]
"""A part of a picture, and x and y of its corner."""

_WHOLE_MESH = 478
_FACES = 8  # At most, in one window
# Pixels of the longer side from which looking at quarters is worth it: the detectors work on about 128.
_LARGE = 256
# A face smaller than this fraction of what was looked at is looked at again, cut out: the detector in front of the mesh
# works on 128 x 128 pixels and places a small face only roughly.
_SMALL = 0.25


def _installed(package: str, extra: str) -> Path:
    """Find a library's folder without importing it."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ConfigError(f"--landmarks {package} needs a package: pip install 'featlab[{extra}]'")
    return Path(spec.origin).parent


def _described(package: str, points: int, *models: Path | str) -> str:
    """Describe a library, its model files by name and the first 12 hex digits of their sha256, and the points."""
    try:
        files = [f"{model.name} {sum_of(model)[:12]}" if isinstance(model, Path) else model for model in models]
    except OSError as error:
        raise InputError(f"{error.filename}: the detector's model can't be read ({error.strerror})") from None
    return ", ".join([f"{package} {version(package)}", *files, f"{points} points"])


def _looks(image: NDArray[np.uint8]) -> Iterator[list[Window]]:
    """Yield where to look for faces, one after the other until any is found; what is in one list is looked at whole."""
    height, width = image.shape[:2]
    yield [_cut_out(image, 0, 0, width, height)]
    yield [_cut_out(image, -(width // 2), -(height // 2), 2 * width, 2 * height)]
    if max(height, width) >= _LARGE:
        tops, lefts = ((0, side // 4, side - side // 2) for side in (height, width))
        yield [_cut_out(image, left, top, width // 2, height // 2) for top in tops for left in lefts]


def _cut_out(image: NDArray[np.uint8], left: int, top: int, width: int, height: int) -> Window:
    """Cut a rectangle out of an image, black where it reaches over the edge."""
    whole = np.zeros((height, width, 3), dtype=np.uint8)
    x0, y0 = max(left, 0), max(top, 0)
    x1, y1 = max(min(left + width, image.shape[1]), x0), max(min(top + height, image.shape[0]), y0)
    whole[y0 - top : y1 - top, x0 - left : x1 - left] = image[y0:y1, x0:x1]
    return whole, np.array([left, top], dtype=np.float32)


def _distinct(faces: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
    """Keep the largest of those (P, 2) that are of one face, or of a part of it: their middles are inside of it."""
    kept: list[NDArray[np.float32]] = []
    for face in sorted(faces, key=lambda face: -float(np.ptp(face, axis=0).prod())):
        middle = (face.min(axis=0) + face.max(axis=0)) / 2
        offs = (np.abs(middle - (other.min(axis=0) + other.max(axis=0)) / 2) / np.ptp(other, axis=0) for other in kept)
        if not any((off < 0.5).all() for off in offs):
            kept.append(face)
    return kept


def make_mesh_detector(task: Path | None, *, whole: bool = False) -> Detector:
    """Build a detector; ``task`` is its bundle, None for the models inside the wheel. ``whole``: all 478 points."""
    folder = _installed("mediapipe", "landmarks")
    if task is None and not (folder / "python" / "solutions" / "face_mesh.py").is_file():
        raise ConfigError(
            f"mediapipe {version('mediapipe')} has no face mesh inside; either pip install 'mediapipe==0.10.21' "
            "(brings numpy < 2), or download a Face Landmarker bundle and name it: mediapipe:face_landmarker.task"
        )
    points = _WHOLE_MESH if whole else 68
    info = _described("mediapipe", points, task or "face mesh of the wheel")
    return Detector(points, info, partial(_find_meshes, task, whole))


def _find_meshes(task: Path | None, whole: bool, image: NDArray[np.uint8]) -> Sequence[NDArray[np.float32]]:
    """Find meshes, 478 points, or else the 68 of them nearest to the iBUG points."""
    model = load_model(task)
    for look in _looks(image):
        found = [
            _closer(model, image, mesh + corner, max(pixels.shape)) for pixels, corner in look for mesh in model(pixels)
        ]
        if found:
            meshes = _distinct(found) if len(look) > 1 else found
            return meshes if whole else [to_68(mesh) for mesh in meshes]
    return []


@lru_cache(maxsize=1)
def load_model(task: Path | None) -> Model:
    """Return the model of this process, hushed until it has found a face: from an image to its faces, (478, 2) each."""
    # Read when the library is imported.
    os.environ.setdefault("GLOG_minloglevel", "2")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    vertices_of: Callable[[NDArray[np.uint8]], Sequence[Any]] | None = None
    warm = False

    def run(image: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        nonlocal vertices_of, warm
        side = max(image.shape[:2])
        # Filled up to a square, black on the right or below: of other shapes the library warns that it may be wrong.
        square = image if image.shape[0] == image.shape[1] else _cut_out(image, 0, 0, side, side)[0]
        with nullcontext() if warm else _quiet_stderr():
            # Here, since threads of the library go on talking after it was loaded.
            vertices_of = vertices_of or (_solutions() if task is None else _tasks(task))
            found = vertices_of(square)
        warm = warm or bool(found)
        # Vertices come as fractions of the side.
        meshes = (np.array([(point.x * side, point.y * side) for point in face], dtype=np.float32) for face in found)
        return [mesh for mesh in meshes if mesh.shape == (_WHOLE_MESH, 2) and np.isfinite(mesh).all()]

    return run


def _solutions() -> Callable[[NDArray[np.uint8]], Sequence[Any]]:
    """Return what gives the vertices of each face in a square picture, by the models inside the wheel."""
    import mediapipe

    mesh = mediapipe.solutions.face_mesh.FaceMesh(
        static_image_mode=True, max_num_faces=_FACES, refine_landmarks=True, min_detection_confidence=0.5
    )
    return lambda square: [face.landmark for face in mesh.process(square).multi_face_landmarks or []]


def _tasks(task: Path) -> Callable[[NDArray[np.uint8]], Sequence[Any]]:
    """Return what gives the vertices of each face in a square picture, by a bundle."""
    import mediapipe
    from mediapipe.tasks.python import BaseOptions, vision

    options = vision.FaceLandmarkerOptions(
        # The content and not the path: the library looks for a relative path in its own folder.
        base_options=BaseOptions(model_asset_buffer=task.read_bytes()),
        running_mode=vision.RunningMode.IMAGE,
        num_faces=_FACES,
        min_face_detection_confidence=0.5,
    )
    try:
        landmarker = vision.FaceLandmarker.create_from_options(options)
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"{task}: isn't a Face Landmarker bundle that mediapipe can load ({one_line(error)})"
        ) from None

    picture_of = partial(mediapipe.Image, image_format=mediapipe.ImageFormat.SRGB)
    return lambda square: landmarker.detect(picture_of(data=square)).face_landmarks


def _closer(model: Model, image: NDArray[np.uint8], mesh: NDArray[np.float32], seen: int) -> NDArray[np.float32]:
    """Look again at a face that is small in what was ``seen`` pixels wide; the first mesh if none is found then."""
    side = 2 * float(np.ptp(mesh, axis=0).max())
    if side > 2 * _SMALL * seen or side < 2:
        return mesh
    left, top = (int(edge) for edge in (mesh.min(axis=0) + mesh.max(axis=0)) / 2 - side / 2)
    pixels, corner = _cut_out(image, left, top, int(side), int(side))
    # Of several in the part, this one is the nearest.
    again = [found + corner for found in model(pixels)]
    return min(again, key=lambda found: float(np.linalg.norm((found - mesh).mean(axis=0))), default=mesh)


@contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Send the process's stderr nowhere while the block runs: the library's C++ side logs past Python."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(nowhere)
        os.close(kept)


# The detector sees faces of 80 pixels and more. A picture up to this many pixels wide is also tried at four times its
# size, in a black frame.
_ENLARGED = 512


def _find_by_dlib(predictor: Path, image: NDArray[np.uint8]) -> Sequence[NDArray[np.float32]]:
    """Find frontal faces, and as many points of each as the predictor's file gives: 68 (iBUG) or 5, in general."""
    find, predict = load_models(predictor)
    height, width = image.shape[:2]
    attempts = [(*_cut_out(image, 0, 0, width, height), doublings) for doublings in (0, 1)]
    if max(height, width) <= _ENLARGED:
        attempts.append((*_cut_out(image, -(width // 2), -(height // 2), 2 * width, 2 * height), 2))
    for pixels, corner, doublings in attempts:
        if faces := [_points(predict(pixels, box)) + corner for box in find(pixels, doublings)]:
            return faces
    return []


def make_dlib_detector(predictor: Path | None) -> Detector:
    """Build a detector; the predictor is loaded once to learn its number of points."""
    if predictor is None:
        raise ConfigError("dlib needs the file of a shape predictor: dlib:FILE.dat")
    _installed("dlib", "dlib")
    import dlib

    # A predictor doesn't say how many points it has, but it gives them for any rectangle.
    _, predict = load_models(predictor)
    points = len(_points(predict(np.zeros((32, 32, 3), dtype=np.uint8), dlib.rectangle(0, 0, 31, 31))))
    return Detector(points, _described("dlib", points, predictor), partial(_find_by_dlib, predictor))


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


def _find_by_uniface(image: NDArray[np.uint8]) -> Sequence[NDArray[np.float32]]:
    """Find faces by RetinaFace, and the 68 points of each by PIPNet."""
    find, points_of = load_uniface()
    for ((pixels, corner),) in islice(_looks(image), 2):
        # The library takes blue first.
        pixels = np.ascontiguousarray(pixels[..., ::-1])
        if faces := [points_of(pixels, face.bbox).astype(np.float32) + corner for face in find(pixels)]:
            return faces
    return []


def make_uniface_detector(argument: Path | None) -> Detector:
    """Build a detector; the library fetches its weights here, once for all processes, if it hasn't got them."""
    if argument is not None:
        raise ConfigError(f"uniface:{argument}: uniface takes no file; --landmarks uniface")
    _installed("uniface", "uniface")
    from uniface.constants import PIPNetWeights, RetinaFaceWeights
    from uniface.model_store import verify_model_weights

    try:
        files = [verify_model_weights(name) for name in (RetinaFaceWeights.MNET_V2, PIPNetWeights.DW300_CELEBA_68)]
    except (OSError, ValueError) as error:
        why = f"uniface has no weights ({one_line(error)})"
        raise InputError(f"{why}; run it once with a network, and bring its folder ~/.uniface/models") from None
    return Detector(68, _described("uniface", 68, *map(Path, files)), _find_by_uniface)


@lru_cache(maxsize=1)
def load_uniface() -> tuple[Any, Any]:
    """Load uniface's face detector and its 68 points in this process, on the CPU: there may be many processes."""
    from uniface.constants import PIPNetWeights
    from uniface.detection import RetinaFace
    from uniface.landmark import PIPNet

    landmarker = PIPNet(model_name=PIPNetWeights.DW300_CELEBA_68, providers=["CPUExecutionProvider"])
    return RetinaFace(providers=["CPUExecutionProvider"]).detect, landmarker.get_landmarks
