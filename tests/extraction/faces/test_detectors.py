import hashlib
import os
import pickle
import sys
import zipfile
from functools import partial
from pathlib import Path
from types import ModuleType
from types import SimpleNamespace as Space

import numpy as np
import pytest
from PIL import Image as PilImage

from featlab.errors import ConfigError, InputError
from featlab.extraction.faces import MESH_TO_68, detectors, eye_centres
from featlab.extraction.faces.detect import is_detector, make_detector
from featlab.extraction.faces.detectors import make_mesh_detector

ORIGINALS = Path(__file__).parents[3].parent / "shared" / "data" / "london-originals"
# 478 places in a unit square, with its corners among them.
PLACES = np.random.default_rng(0).uniform(size=(478, 2))
PLACES[:4] = (0, 0), (1, 0), (0, 1), (1, 1)
calls = []


def boxes(image):
    """A face is a rectangle of one red value. One is found that takes 20 to 80 % of the longer side."""
    assert image.flags.c_contiguous
    longer = max(image.shape[:2])
    for value in np.unique(image[..., 0][image[..., 0] > 0]):
        rows, columns = np.nonzero(image[..., 0] == value)
        left, right, top, bottom = columns.min(), columns.max() + 1, rows.min(), rows.max() + 1
        if 0.2 * longer <= max(right - left, bottom - top) <= 0.8 * longer:
            yield left, top, right, bottom


def meshes(image):
    assert image.shape[0] == image.shape[1]
    for left, top, right, bottom in boxes(image):
        xy = (PLACES * (right - left, bottom - top) + (left, top)) / len(image)
        yield [Space(x=x, y=y, z=0.0) for x, y in xy]


class FaceMesh:
    """It talks until it has found a face."""

    def __init__(self, **options):
        assert (options["static_image_mode"], options["refine_landmarks"], options["max_num_faces"]) == (True, True, 8)
        os.write(2, b"chatter of the native side\n")
        self.warm = False

    def process(self, image):
        calls.append(image.shape[1])
        os.write(2, b"more of it\n" if not self.warm else b"")
        found = [Space(landmark=mesh) for mesh in meshes(image)]
        self.warm = self.warm or bool(found)
        return Space(multi_face_landmarks=found or None)


def create_landmarker(options):
    assert (options.running_mode, options.num_faces) == ("image", 8)
    if options.base_options.model_asset_buffer != b"bundle":
        raise RuntimeError("Unable to open zip archive.\nsecond line")

    def detect(picture):
        assert picture.image_format == "srgb"
        return Space(face_landmarks=list(meshes(picture.data)))

    return Space(detect=detect)


def rectangle(left, top, right, bottom):
    return Space(left=left, top=top, wide=right - left, high=bottom - top)


def shape_predictor(path):
    text = Path(path).read_text()
    if not text.isdigit():
        raise RuntimeError("Unexpected version found while deserializing")

    def part(box, number):
        x, y = PLACES[number]
        return Space(x=box.left + round(x * box.wide), y=box.top + round(y * box.high))

    return lambda image, box: Space(num_parts=int(text), part=partial(part, box))


def find_frontal(image, doublings):
    """Sees 80 pixels and more, and wants some room around a face."""
    calls.append((image.shape[1], doublings))
    for left, top, right, bottom in boxes(image):
        if (right - left) * 2**doublings >= 80:
            yield rectangle(left, top, right - 1, bottom - 1)


class RetinaFace:
    """Blue comes first."""

    def __init__(self, *, providers):
        assert providers == ["CPUExecutionProvider"]

    def detect(self, image):
        assert image.flags.c_contiguous
        return [Space(bbox=np.array(box)) for box in boxes(np.ascontiguousarray(image[..., ::-1]))]


class PIPNet:
    def __init__(self, *, model_name, providers):
        assert (Path(model_name).name, providers) == ("pip68", ["CPUExecutionProvider"])

    def get_landmarks(self, image, bbox):
        return bbox[:2] + PLACES[:68] * (bbox[2:4] - bbox[:2])


def verify_weights(path):
    if not Path(path).exists():
        raise ConnectionError("Download failed\nafter 3 attempts")
    return path


VISION = Space(
    RunningMode=Space(IMAGE="image"),
    FaceLandmarkerOptions=Space,
    FaceLandmarker=Space(create_from_options=create_landmarker),
)
MODULES = {
    "mediapipe": {
        "solutions": Space(face_mesh=Space(FaceMesh=FaceMesh)),
        "ImageFormat": Space(SRGB="srgb"),
        "Image": Space,
    },
    "mediapipe.tasks.python": {"BaseOptions": Space, "vision": VISION},
    "dlib": {
        "get_frontal_face_detector": lambda: find_frontal,
        "shape_predictor": shape_predictor,
        "rectangle": rectangle,
    },
    "uniface": {},
    "uniface.constants": {
        "RetinaFaceWeights": Space(MNET_V2="retina"),
        "PIPNetWeights": Space(DW300_CELEBA_68="pip68"),
    },
    "uniface.model_store": {"verify_model_weights": verify_weights},
    "uniface.detection": {"RetinaFace": RetinaFace},
    "uniface.landmark": {"PIPNet": PIPNet},
}


def forget():
    for load in (detectors.load_model, detectors.load_models, detectors.load_uniface):
        load.cache_clear()


@pytest.fixture
def doubles(tmp_path, monkeypatch):
    """Stand-ins for the three libraries, and their models as files in the current folder."""
    monkeypatch.chdir(tmp_path)
    Path("mediapipe/python/solutions").mkdir(parents=True)
    Path("mediapipe/python/solutions/face_mesh.py").touch()
    for name, content in {"face.task": "bundle", "5.dat": "5", "68.dat": "68", "retina": "r", "pip68": "p"}.items():
        Path(name).write_text(content)
    for name, content in MODULES.items():
        made = ModuleType(name)
        made.__dict__.update(content)
        monkeypatch.setitem(sys.modules, name, made)
    monkeypatch.setattr(detectors, "find_spec", lambda name: Space(origin=str(tmp_path / name / "__init__.py")))
    monkeypatch.setattr(detectors, "version", lambda name: "9.9")
    forget()
    calls.clear()
    yield
    forget()


def scene(width, height, *boxes):
    image = np.zeros((height, width, 3), dtype=np.uint8)
    for number, (left, top, wide, high) in enumerate(boxes):
        image[top : top + high, left : left + wide, 0] = 100 + number
    return image


def expected(left, top, wide, high):
    return PLACES * (wide, high) + (left, top)


def sha(content):
    return hashlib.sha256(content).hexdigest()[:12]


def check(detector, info, places, atol, *more):
    """Faces in a picture, two in one, one that fills its picture and is found with room around it, and none."""
    assert (detector.info, detector.points) == (f"{info}, {len(places)} points", len(places))
    packed = pickle.dumps(detector)
    assert len(packed) < 1000, "without its model"
    for width, height, *faces in (
        (200, 140, (60, 30, 80, 90)),
        (400, 300, (10, 10, 100, 100), (200, 50, 120, 130)),
        (96, 96, (1, 0, 94, 95)),
        (64, 48),
        (700, 300),
        (1, 1),
        *more,
    ):
        found = pickle.loads(packed).detect(scene(width, height, *faces))
        assert (found.dtype, found.shape) == (np.float32, (len(faces), len(places), 2))
        for points, face in zip(found, faces, strict=True):
            np.testing.assert_allclose(points, expected(*face)[list(places)], atol=atol)


@pytest.mark.usefixtures("doubles")
def test_every_detector_finds_the_points_of_each_face_in_pixels():
    tiles = [(960, 640, (*place, 110, 130)) for place in ((30, 20), (420, 250), (840, 500))]
    wheel, task = "mediapipe 9.9, face mesh of the wheel", f"mediapipe 9.9, face.task {sha(b'bundle')}"
    check(make_detector("mediapipe"), wheel, MESH_TO_68, 2e-3, *tiles)
    check(make_mesh_detector(None, whole=True), wheel, range(478), 2e-3, *tiles)
    check(make_detector("mediapipe:face.task"), task, MESH_TO_68, 2e-3, *tiles)
    small = (150, 150, (30, 40, 45, 50))
    for points in (5, 68):
        info = f"dlib 9.9, {points}.dat {sha(str(points).encode())}"
        check(make_detector(f"dlib:{points}.dat"), info, range(points), 1.6, small)
    check(make_detector("uniface"), f"uniface 9.9, retina {sha(b'r')}, pip68 {sha(b'p')}", range(68), 1e-3)


@pytest.mark.usefixtures("doubles")
def test_what_is_small_is_looked_at_again_by_itself_and_what_is_large_is_not_blown_up(capfd):
    (found,) = make_mesh_detector(None, whole=True).detect(scene(500, 500, (10, 20, 100, 110)))
    np.testing.assert_allclose(found, expected(10, 20, 100, 110), atol=2e-3)
    assert calls == [500, 220]
    for image in (scene(64, 64), scene(200, 140, (60, 30, 80, 90)), scene(200, 140, (50, 30, 80, 90))):
        make_detector("mediapipe").detect(image)
    os.write(2, b"ours\n")
    assert capfd.readouterr().err == "ours\n", "the chatter of the library is not seen"
    dlib = make_detector("dlib:68.dat")
    calls.clear()
    assert dlib.detect(scene(1000, 800)).shape == (0, 68, 2)
    assert calls == [(1000, 0), (1000, 1)]


@pytest.mark.usefixtures("doubles")
def test_a_spec_that_does_not_fit_is_refused(refused, monkeypatch):
    for name in ("face.task", "68.dat"):
        Path(name).write_text("nonsense")
    for name in ("retina", "mediapipe/python/solutions/face_mesh.py"):
        Path(name).unlink()
    known = "no detector is called 'mediapip' (known: dlib:FILE.dat, mediapipe, mediapipe:FILE.task, uniface)"
    for spec, kind, *says in (
        ("mediapip", ConfigError, known),
        ("mediapipe:", ConfigError, "a file must follow the colon, as in mediapipe:FILE.task"),
        ("mediapipe", ConfigError, "9.9 has no face mesh inside", "0.10.21", "mediapipe:face"),
        ("mediapipe:gone.task", InputError, "gone.task: the detector's model can't be read (No such file"),
        ("mediapipe:face.task", InputError, "isn't a Face Landmarker bundle ", "zip archive. second line"),
        ("dlib", ConfigError, "dlib needs the file of a shape predictor: dlib:FILE.dat"),
        ("dlib:68.dat", InputError, "68.dat: isn't a shape predictor that dlib can load (Unexpected version"),
        ("uniface:x.onnx", ConfigError, "uniface takes no file"),
        ("uniface", InputError, "uniface has no weights (Download failed after 3 attempts); run it once"),
    ):
        with refused(kind, *says):
            make_detector(spec).detect(scene(64, 64))
    monkeypatch.setattr(detectors, "find_spec", lambda name: None)
    for spec, extra in (("mediapipe", "landmarks"), ("dlib:p.dat", "dlib"), ("uniface", "uniface")):
        with refused(ConfigError, f"pip install 'featlab[{extra}]'"):
            make_detector(spec)
    for spec in ("mediapipe", "mediapipe:x.task", "dlib:x.dat", "landmarks.npy", "auto", "C:\\dlib", "./mediapipe"):
        assert is_detector(spec) == spec.startswith(("mediapipe", "dlib"))


@pytest.mark.faces
@pytest.mark.skipif(not ORIGINALS.is_dir(), reason="../shared/data/london-originals is not there")
def test_the_real_library_finds_a_small_face_and_its_tasks_interface_takes_our_calls(tmp_path, capfd):
    real = pytest.importorskip("mediapipe", reason="the landmarks extra (mediapipe==0.10.21) is not installed")
    if not hasattr(real, "solutions"):
        pytest.skip("this mediapipe has no models inside")
    forget()
    photo = PilImage.open(ORIGINALS / "001_03.jpg").convert("RGB")
    detector = make_detector("mediapipe")
    (large,) = detector.detect(np.asarray(photo))
    shrink = 100 / np.ptp(large[:, 0])
    side = round(photo.width * shrink)
    frame = np.full((720, 1280, 3), 110, np.uint8)
    frame[300 : 300 + side, 700 : 700 + side] = np.asarray(photo.resize((side, side), PilImage.Resampling.LANCZOS))
    (found,) = detector.detect(frame)
    assert np.median(np.linalg.norm(found - (large * shrink + (700, 300)), axis=1)) < 1
    eyes = eye_centres(found)
    assert eyes[0, 0] < eyes[1, 0]
    assert capfd.readouterr() == ("", ""), "the library is silent"
    # A bundle zipped from the wheel's own models. They are of an older make, so only that a mesh comes back counts.
    modules = Path(real.__file__).parent / "modules"
    with zipfile.ZipFile(tmp_path / "made.task", "w", zipfile.ZIP_STORED) as file:
        file.write(modules / "face_detection" / "face_detection_short_range.tflite", "face_detector.tflite")
        file.write(modules / "face_landmark" / "face_landmark.tflite", "face_landmarks_detector.tflite")
    found = make_detector(f"mediapipe:{tmp_path / 'made.task'}").detect(np.asarray(photo))
    assert found.shape == (1, 68, 2)
    assert np.isfinite(found).all()
