"""Detectors: against packages made here in place of the libraries, and the real mediapipe where it is installed."""

import hashlib
import os
import pickle
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PilImage

from featlab.errors import ConfigError, InputError
from featlab.extraction.faces import detectors
from featlab.extraction.faces.detect import is_detector, make_detector
from featlab.extraction.faces.landmarks import MESH_TO_68, eye_centres, read_landmarks
from featlab.extraction.layouts import NoOptions
from featlab.extraction.layouts.plain import read_manifest

SHARED = Path(__file__).parents[3].parent / "shared" / "data"
# A face is a rectangle of one value in the red channel. One is found that takes 20 to 80 % of the longer side.
FACES = """
from types import SimpleNamespace as Space
import numpy as np

def boxes(image):
    longer = max(image.shape[:2])
    for value in np.unique(image[..., 0][image[..., 0] > 0]):
        rows, columns = np.nonzero(image[..., 0] == value)
        left, right, top, bottom = columns.min(), columns.max() + 1, rows.min(), rows.max() + 1
        if 0.2 * longer <= max(right - left, bottom - top) <= 0.8 * longer:
            yield left, top, right, bottom

# 478 places in a unit square, with its corners among them.
PLACES = np.random.default_rng(0).uniform(size=(478, 2))
PLACES[:4] = (0, 0), (1, 0), (0, 1), (1, 1)

def meshes(image):
    assert image.flags.c_contiguous and image.shape[0] == image.shape[1]
    for left, top, right, bottom in boxes(image):
        xy = (PLACES * (right - left, bottom - top) + (left, top)) / len(image)
        yield [Space(x=x, y=y, z=0.0) for x, y in xy]
"""
LEGACY = """
import os
from fake_faces import Space, meshes
calls = []

class FaceMesh:
    def __init__(self, **options):
        assert options["static_image_mode"] and options["refine_landmarks"] and options["max_num_faces"] > 1
        os.write(2, b"chatter of the native side\\n")
        self.warm = False
    def process(self, image):
        calls.append(image.shape[1])
        os.write(2, b"more of it\\n" if not self.warm else b"")
        found = [Space(landmark=mesh) for mesh in meshes(image)]
        self.warm = self.warm or bool(found)
        return Space(multi_face_landmarks=found or None)

solutions = Space(face_mesh=Space(FaceMesh=FaceMesh))
"""
TASKS = """
from types import SimpleNamespace as Space
ImageFormat = Space(SRGB=1)
def Image(image_format, data):
    assert image_format == ImageFormat.SRGB
    return Space(data=data)
"""
TASKS_PYTHON = """
from types import SimpleNamespace as BaseOptions
"""
VISION = """
from fake_faces import Space, meshes
RunningMode = Space(IMAGE="image")
def FaceLandmarkerOptions(base_options, running_mode, num_faces, min_face_detection_confidence):
    assert running_mode == "image" and num_faces > 1
    return base_options
class FaceLandmarker:
    @classmethod
    def create_from_options(cls, options):
        if options.model_asset_buffer != b"bundle":
            raise RuntimeError("Unable to open zip archive.\\nsecond line")
        return cls()
    def detect(self, picture):
        return Space(face_landmarks=list(meshes(picture.data)))
"""
DLIB = """
from fake_faces import Space, boxes
calls = []
class rectangle:
    def __init__(self, left, top, right, bottom):
        self.edges = left, top, right, bottom
    def width(self):
        return self.edges[2] - self.edges[0] + 1
    def height(self):
        return self.edges[3] - self.edges[1] + 1
def shape_predictor(path):
    text = open(path).read()
    if not text.isdigit():
        raise RuntimeError("Unexpected version found while deserializing")
    count = int(text)
    def predict(image, rect):
        left, top = rect.edges[:2]
        wide, high = (rect.width() - 1) / (count - 1), (rect.height() - 1) / (count - 1)
        part = lambda number: Space(x=left + round(number * wide), y=top + round(number * high))
        return Space(num_parts=count, part=part)
    return predict
def get_frontal_face_detector():
    def find(image, doublings):
        calls.append((image.shape[1], doublings))
        # Sees 80 pixels and more, and wants some room around a face.
        for left, top, right, bottom in boxes(image):
            if (right - left) * 2 ** doublings >= 80:
                yield rectangle(left, top, right - 1, bottom - 1)
    return find
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Put packages that stand in for the libraries in front of those that are installed."""
    ours = ("mediapipe", "dlib", "fake_faces")

    def forget():
        detectors.load_model.cache_clear()
        detectors.load_models.cache_clear()
        return [name for name in sys.modules if name.partition(".")[0] in ours]

    for name in forget():
        monkeypatch.delitem(sys.modules, name)

    def make(package, version, **files):
        site, info = tmp_path / "site", f"{package}-{version}.dist-info/METADATA"
        texts = {f"{package}/{name}.py": text for name, text in files.items()} | {"fake_faces.py": FACES}
        texts[info] = f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n"
        for name, text in texts.items():
            (site / name).parent.mkdir(parents=True, exist_ok=True)
            (site / name).write_text(text)
        monkeypatch.syspath_prepend(site)

    yield make
    for name in forget():
        del sys.modules[name]


@pytest.fixture
def legacy(install):
    install("mediapipe", "0.9.9", **{"__init__": LEGACY, "python/solutions/face_mesh": ""})


def scene(width, height, *boxes):
    image = np.zeros((height, width, 3), dtype=np.uint8)
    for number, (left, top, wide, high) in enumerate(boxes):
        image[top : top + high, left : left + wide, 0] = 100 + number
    return image


def expected(left, top, wide, high):
    from fake_faces import PLACES

    return PLACES * (wide, high) + (left, top)


@pytest.mark.usefixtures("legacy")
def test_the_mesh_is_found_in_pixels_in_a_picture_of_any_shape():
    detector = make_detector("mediapipe", points=478)
    assert (detector.name, detector.points) == ("mediapipe", 478)
    assert detector.info == "mediapipe 0.9.9, face mesh of the wheel, 478 points"
    for width, height, *boxes in (
        (200, 140, (60, 30, 80, 90)),
        (400, 300, (10, 10, 100, 100), (200, 50, 120, 130)),  # the larger one is taken
        (96, 96, (1, 0, 94, 95)),  # a crop that is all face is looked at with room around it
        *((960, 640, (*place, 110, 130)) for place in ((30, 20), (420, 250), (840, 500))),  # small in a large one
    ):
        found = detector.detect(scene(width, height, *boxes))
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected(*boxes[-1]), atol=2e-3)
    short, image = make_detector("mediapipe"), scene(140, 200, (20, 70, 90, 80))
    small = short.detect(image)
    # It is pickled without its model, and takes views.
    assert len(pickle.dumps(short)) < 1000
    for other, pixels in ((pickle.loads(pickle.dumps(short)), image), (short, image[::-1].copy()[::-1])):
        np.testing.assert_array_equal(other.detect(pixels), small)
    np.testing.assert_allclose(small, expected(20, 70, 90, 80)[list(MESH_TO_68)], atol=1e-3)
    for image in (scene(64, 48), scene(700, 300), scene(1, 1)):
        for points, nothing in ((68, short.detect(image)), (478, detector.detect(image))):
            assert (nothing.shape, nothing.dtype) == ((points, 2), np.float32)
            assert np.isnan(nothing).all()


@pytest.mark.usefixtures("legacy")
def test_a_small_face_is_looked_at_again_by_itself_and_the_chatter_of_the_library_is_not_seen(capfd):
    import mediapipe

    found = make_detector("mediapipe", points=478).detect(scene(500, 500, (10, 20, 100, 110)))
    np.testing.assert_allclose(found, expected(10, 20, 100, 110), atol=2e-3)
    assert mediapipe.calls == [500, 220]
    for image in (scene(64, 64), scene(200, 140, (60, 30, 80, 90)), scene(200, 140, (50, 30, 80, 90))):
        make_detector("mediapipe").detect(image)
    os.write(2, b"ours\n")
    assert capfd.readouterr().err == "ours\n"


def test_a_task_bundle_goes_through_the_newer_interface(install, tmp_path, refused):
    below = {"tasks/__init__": "", "tasks/python/__init__": TASKS_PYTHON, "tasks/python/vision": VISION}
    install("mediapipe", "0.99", __init__=TASKS, **below)
    bundle = tmp_path / "face.task"
    bundle.write_bytes(b"bundle")
    detector = make_detector(f"mediapipe:{bundle}", points=478)
    digest = hashlib.sha256(b"bundle").hexdigest()[:12]
    assert detector.info == f"mediapipe 0.99, face.task {digest}, 478 points"
    image = scene(200, 140, (60, 30, 80, 90))
    np.testing.assert_allclose(detector.detect(image), expected(60, 30, 80, 90), atol=1e-3)
    assert make_detector(f"mediapipe:{bundle}").detect(image).shape == (68, 2)
    bundle.write_bytes(b"something else")
    detectors.load_model.cache_clear()
    other = make_detector(f"mediapipe:{bundle}")
    with refused(InputError, "face.task: isn't a Face Landmarker bundle ", "zip archive. second line"):
        other.detect(image)
    with refused(ConfigError, "mediapipe 0.99 has no face mesh inside; either ", "0.10.21", "mediapipe:face"):
        make_detector("mediapipe")
    with refused(InputError, "gone.task: the detector's model can't be read (No such file"):
        make_detector(f"mediapipe:{tmp_path / 'gone.task'}")


def test_dlib_gives_as_many_points_as_its_file_and_looks_at_tight_crops_and_small_faces_again(install, tmp_path):
    install("dlib", "19.0", __init__=DLIB)
    for points in (5, 68):
        path = tmp_path / f"{points}.dat"
        path.write_text(str(points))
        detector = make_detector(f"dlib:{path}")
        assert detector.points == points
        assert detector.info.startswith(f"dlib 19.0, {points}.dat ")
        assert detector.info.endswith(f", {points} points")
        found = pickle.loads(pickle.dumps(detector)).detect(scene(300, 300, (10, 10, 90, 90), (120, 140, 100, 110)))
        assert (found.shape, found.dtype) == ((points, 2), np.float32)
        np.testing.assert_array_equal(found[[0, -1]], [(120, 140), (219, 249)])
    np.testing.assert_array_equal(detector.detect(scene(96, 96, (2, 1, 92, 95)))[[0, -1]], [(2, 1), (93, 95)])
    np.testing.assert_array_equal(detector.detect(scene(150, 150, (30, 40, 45, 50)))[[0, -1]], [(30, 40), (74, 89)])
    assert np.isnan(detector.detect(scene(96, 96))).all()
    import dlib as library

    library.calls.clear()
    assert np.isnan(detector.detect(scene(1000, 800))).all()
    # A large picture is not blown up to four times its size.
    assert library.calls == [(1000, 0), (1000, 1)]
    path.write_text("nonsense")
    detectors.load_models.cache_clear()
    with pytest.raises(InputError, match=r"68.dat: isn't a shape predictor that dlib can load \(Unexpected version"):
        make_detector(f"dlib:{path}")


def test_a_spec_that_does_not_fit_is_refused(refused, monkeypatch):
    for spec, points, says in (
        ("mediapip", 68, "no detector is called 'mediapip' (known: dlib:FILE.dat, mediapipe, mediapipe:FILE.task)"),
        ("mediapipe", 51, "points = 51: a detector gives 68 landmarks, or mediapipe's 478"),
        ("mediapipe:", 68, "a file must follow the colon, as in mediapipe:FILE.task"),
        ("dlib", 68, "dlib needs the file of a shape predictor: dlib:FILE.dat"),
        ("dlib:p.dat", 478, "only mediapipe gives the whole mesh"),
    ):
        with refused(ConfigError, says):
            make_detector(spec, points=points)
    monkeypatch.setattr("featlab.extraction.faces.detect.find_spec", lambda name: None)
    for spec, extra in (("mediapipe", "landmarks"), ("dlib:p.dat", "dlib")):
        with refused(ConfigError, f"pip install 'featlab[{extra}]'"):
            make_detector(spec)
    for spec in ("mediapipe", "mediapipe:x.task", "dlib:x.dat", "landmarks.npy", "auto", "C:\\dlib", "./mediapipe"):
        assert is_detector(spec) == spec.startswith(("mediapipe", "dlib"))


@pytest.fixture
def real():
    """The library itself, with the models of its wheel."""
    library = pytest.importorskip("mediapipe", reason="the landmarks extra (mediapipe==0.10.21) is not installed")
    if not hasattr(library, "solutions"):
        pytest.skip("this mediapipe has no models inside")
    detectors.load_model.cache_clear()
    return library


@pytest.mark.faces
@pytest.mark.usefixtures("real")
@pytest.mark.skipif(not (SHARED / "london-morph").is_dir(), reason="../shared/data/london-morph is not there")
def test_detected_landmarks_are_close_to_the_given_ones_on_real_faces():
    folder = SHARED / "london-morph"
    items = read_manifest(folder / "manifest.csv", NoOptions())
    given = read_landmarks(folder / "landmarks.npy", len(items))
    detector = make_detector("mediapipe")
    few = items[:: len(items) // 60]
    found = np.stack([detector.detect(np.asarray(PilImage.open(item.path).convert("RGB"))) for item in few])
    assert np.isfinite(found).all()
    distance = np.linalg.norm(found - given[[item.row for item in few]], axis=2)
    assert np.median(distance) < 1
    # The jaw reaches over the edge of these crops; what the expression is in is closer.
    assert np.percentile(distance[:, 17:], 95) < 2


@pytest.mark.faces
@pytest.mark.skipif(not (SHARED / "london-originals").is_dir(), reason="../shared/data/london-originals is not there")
def test_the_real_library_finds_a_small_face_and_its_tasks_interface_takes_our_calls(real, tmp_path, capfd):
    photo = PilImage.open(SHARED / "london-originals" / "001_03.jpg").convert("RGB")
    detector = make_detector("mediapipe")
    large = detector.detect(np.asarray(photo))
    shrink = 100 / np.ptp(large[:, 0])
    side = round(photo.width * shrink)
    frame = np.full((720, 1280, 3), 110, np.uint8)
    frame[300 : 300 + side, 700 : 700 + side] = np.asarray(photo.resize((side, side), PilImage.Resampling.LANCZOS))
    found = detector.detect(frame)
    assert np.median(np.linalg.norm(found - (large * shrink + (700, 300)), axis=1)) < 1
    eyes = eye_centres(found)
    assert eyes[0, 0] < eyes[1, 0]
    assert capfd.readouterr() == ("", ""), "the library is silent"
    # A bundle zipped from the wheel's own models. They are of an older make, so only that a mesh comes back counts.
    modules = Path(real.__file__).parent / "modules"
    bundle = tmp_path / "made.task"
    with zipfile.ZipFile(bundle, "w", zipfile.ZIP_STORED) as file:
        file.write(modules / "face_detection" / "face_detection_short_range.tflite", "face_detector.tflite")
        file.write(modules / "face_landmark" / "face_landmark.tflite", "face_landmarks_detector.tflite")
    detector = make_detector(f"mediapipe:{bundle}")
    found = detector.detect(np.asarray(photo))
    assert found.shape == (68, 2)
    assert np.isfinite(found).all()
    assert np.isnan(detector.detect(np.zeros((80, 120, 3), np.uint8))).all()
    (tmp_path / "bad.task").write_bytes(b"not a bundle")
    with pytest.raises(InputError, match=r"bad.task: isn't a Face Landmarker bundle"):
        make_detector(f"mediapipe:{tmp_path / 'bad.task'}").detect(np.asarray(photo))
