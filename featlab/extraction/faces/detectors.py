"""MediaPipe's face mesh (478 points, or 68 of them), dlib's points, and the 68 of uniface's PIPNet.

Two programming interfaces lead to the mesh. The older ("solutions") has its models inside the wheel and works offline;
the last such wheel that we know needs numpy < 2. The newer ("tasks") takes a ``.task`` bundle that is downloaded apart.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featlab.errors import ConfigError, InputError, one_line
from featlab.extraction.faces import to_68
from featlab.extraction.faces.detect import (
    WHOLE_MESH,
    Detector,
    cut_out,
    distinct,
    installed,
    looks,
    model_file,
    package_version,
)

Model = Callable[[NDArray[np.uint8]], list[NDArray[np.float32]]]

_FACES = 8  # At most, in one window
# A face smaller than this fraction of what was looked at is looked at again, cut out: the detector in front of the mesh
# works on 128 x 128 pixels and places a small face only roughly.
_SMALL = 0.25


def _find_meshes(task: Path | None, whole: bool, image: NDArray[np.uint8]) -> Sequence[NDArray[np.float32]]:
    """Find meshes, 478 points, or else the 68 of them nearest to the iBUG points."""
    model = load_model(task)
    for look in looks(image):
        found = [
            _closer(model, image, mesh + corner, max(pixels.shape)) for pixels, corner in look for mesh in model(pixels)
        ]
        if found:
            meshes = distinct(found) if len(look) > 1 else found
            return meshes if whole else [to_68(mesh) for mesh in meshes]
    return []


def make_mesh_detector(spec: str, task: Path | None, points: int) -> Detector:
    """Build the detector called ``spec``; ``task`` is its bundle, None for the models inside the wheel."""
    folder = installed("mediapipe", "landmarks", "finding landmarks")
    found = package_version("mediapipe")
    if task is not None:
        model = model_file(task)
    elif (folder / "python" / "solutions" / "face_mesh.py").is_file():
        model = "face mesh of the wheel"
    else:
        raise ConfigError(
            f"mediapipe {found} has no face mesh inside; either pip install 'mediapipe==0.10.21' (brings numpy < 2), "
            "or download a Face Landmarker bundle and name it: mediapipe:face_landmarker.task"
        )
    find = partial(_find_meshes, task, points == WHOLE_MESH)
    return Detector(spec, points, f"mediapipe {found}, {model}, {points} points", find)


@lru_cache(maxsize=1)
def load_model(task: Path | None) -> Model:
    """Load the model in this process, hushed until it has found a face: from an image to its faces, (478, 2) each."""
    # Read when the library is imported.
    os.environ.setdefault("GLOG_minloglevel", "2")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with quiet_stderr():
        vertices_of = _solutions() if task is None else _tasks(task)
    warm = False

    def run(image: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        nonlocal warm
        side = max(image.shape[:2])
        # Filled up to a square, black on the right or below: of other shapes the library warns that it may be wrong.
        square = image if image.shape[0] == image.shape[1] else cut_out(image, 0, 0, side, side)[0]
        with nullcontext() if warm else quiet_stderr():
            found = vertices_of(square)
        warm = warm or bool(found)
        # Vertices come as fractions of the side.
        meshes = (np.array([(point.x * side, point.y * side) for point in face], dtype=np.float32) for face in found)
        return [mesh for mesh in meshes if mesh.shape == (WHOLE_MESH, 2) and np.isfinite(mesh).all()]

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

    def vertices(square: NDArray[np.uint8]) -> Sequence[Any]:
        picture = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=square)
        faces: Sequence[Any] = landmarker.detect(picture).face_landmarks
        return faces

    return vertices


def _closer(model: Model, image: NDArray[np.uint8], mesh: NDArray[np.float32], seen: int) -> NDArray[np.float32]:
    """Look again at a face that is small in what was ``seen`` pixels wide; the first mesh if none is found then."""
    side = 2 * float(np.ptp(mesh, axis=0).max())
    if side > 2 * _SMALL * seen or side < 2:
        return mesh
    left, top = (int(edge) for edge in (mesh.min(axis=0) + mesh.max(axis=0)) / 2 - side / 2)
    if left + side <= 0 or top + side <= 0 or left >= image.shape[1] or top >= image.shape[0]:
        return mesh
    pixels, corner = cut_out(image, left, top, int(side), int(side))
    # Of several in the part, this one is the nearest.
    again = [found + corner for found in model(pixels)]
    return min(again, key=lambda found: float(np.linalg.norm((found - mesh).mean(axis=0))), default=mesh)


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Send the process's stderr nowhere while the block runs: the library's C++ side logs past Python."""
    try:
        kept = os.dup(2)
    except OSError:
        # A process without a stderr has nothing to quieten.
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
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
    attempts = [(*cut_out(image, 0, 0, width, height), doublings) for doublings in (0, 1)]
    if max(height, width) <= _ENLARGED:
        attempts.append((*cut_out(image, -(width // 2), -(height // 2), 2 * width, 2 * height), 2))
    for pixels, corner, doublings in attempts:
        if faces := [_points(predict(pixels, box)) + corner for box in find(pixels, doublings)]:
            return faces
    return []


def make_dlib_detector(spec: str, predictor: Path | None, points: int) -> Detector:
    """Build the detector called ``spec``; the predictor is loaded once to learn its number of points."""
    if predictor is None:
        raise ConfigError("dlib needs the file of a shape predictor: dlib:FILE.dat")
    if points != 68:
        raise ConfigError(f"points = {points}: only mediapipe gives the whole mesh, dlib gives what its file holds")
    installed("dlib", "dlib", f"the detector {spec!r}")
    import dlib

    info = f"dlib {package_version('dlib')}, {model_file(predictor)}"
    # A predictor doesn't say how many points it has, but it gives them for any rectangle.
    _, predict = load_models(predictor)
    points = len(_points(predict(np.zeros((32, 32, 3), dtype=np.uint8), dlib.rectangle(0, 0, 31, 31))))
    return Detector(spec, points, f"{info}, {points} points", partial(_find_by_dlib, predictor))


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
    for ((pixels, corner),) in islice(looks(image), 2):
        # The library takes blue first.
        pixels = np.ascontiguousarray(pixels[..., ::-1])
        if faces := [points_of(pixels, face.bbox).astype(np.float32) + corner for face in find(pixels)]:
            return faces
    return []


def make_uniface_detector(spec: str, argument: Path | None, points: int) -> Detector:
    """Build the detector; the library fetches its weights here, once for all processes, if it hasn't got them."""
    if argument is not None or points != 68:
        raise ConfigError(f"{spec!r}: uniface takes no file, and gives 68 points; --landmarks uniface")
    installed("uniface", "uniface", f"the detector {spec!r}")
    from uniface.constants import PIPNetWeights, RetinaFaceWeights
    from uniface.model_store import verify_model_weights

    try:
        files = [verify_model_weights(name) for name in (RetinaFaceWeights.MNET_V2, PIPNetWeights.DW300_CELEBA_68)]
    except (OSError, ValueError) as error:
        why = f"uniface has no weights ({one_line(error)})"
        raise InputError(f"{why}; run it once with a network, and bring its folder ~/.uniface/models") from None
    models = ", ".join(model_file(Path(file)) for file in files)
    info = f"uniface {package_version('uniface')}, {models}, {points} points"
    return Detector(spec, points, info, _find_by_uniface)


@lru_cache(maxsize=1)
def load_uniface() -> tuple[Any, Any]:
    """Load uniface's face detector and its 68 points in this process, on the CPU: there may be many processes."""
    from uniface.constants import PIPNetWeights
    from uniface.detection import RetinaFace
    from uniface.landmark import PIPNet

    landmarker = PIPNet(model_name=PIPNetWeights.DW300_CELEBA_68, providers=["CPUExecutionProvider"])
    return RetinaFace(providers=["CPUExecutionProvider"]).detect, landmarker.get_landmarks
