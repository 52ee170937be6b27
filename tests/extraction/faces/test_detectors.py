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
from featlab.extraction.faces import MESH_TO_68, detect, detectors, eye_centres
from featlab.extraction.faces.detect import is_detector, make_detector

ORIGINALS = Path(__file__).parents[3].parent / "shared" / "data" / "london-originals"
# 478 places in a unit square, with its corners among them.
PLACES = np.random.default_rng(0).uniform(size=(478, 2))
PLACES[:4] = (0, 0), (1, 0), (0, 1), (1, 1)


def boxes(image):
    """A face is a rectangle of one red value. One is found that takes 20 to 80 % of the longer side."""
    longer = max(image.shape[:2])
    for value in np.unique(image[..., 0][image[..., 0] > 0]):
        rows, columns = np.nonzero(image[..., 0] == value)
        left, right, top, bottom = columns.min(), columns.max() + 1, rows.min(), rows.max() + 1
        if 0.2 * longer <= max(right - left, bottom - top) <= 0.8 * longer:
            yield left, top, right, bottom


def meshes(image):
    assert (image.flags.c_contiguous, image.shape[0]) == (True, image.shape[1])
    for left, top, right, bottom in boxes(image):
        xy = (PLACES * (right - left, bottom - top) + (left, top)) / len(image)
        yield [Space(x=x, y=y, z=0.0) for x, y in xy]


mesh_calls, dlib_calls = [], []


class FaceMesh:
    """It talks until it has found a face."""

    def __init__(self, **options):
        assert (options["static_image_mode"], options["refine_landmarks"], options["max_num_faces"]) == (True, True, 8)
        os.write(2, b"chatter of the native side\n")
        self.warm = False

    def process(self, image):
        mesh_calls.append(image.shape[1])
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
    return Space(left=left, top=top, width=lambda: right - left + 1, height=lambda: bottom - top + 1)


def shape_predictor(path):
    text = Path(path).read_text()
    if not text.isdigit():
        raise RuntimeError("Unexpected version found while deserializing")
    count = int(text)

    def part(box, number):
        wide, high = ((side - 1) / (count - 1) for side in (box.width(), box.height()))
        return Space(x=box.left + round(number * wide), y=box.top + round(number * high))

    return lambda image, box: Space(num_parts=count, part=partial(part, box))


def find_frontal(image, doublings):
    """Sees 80 pixels and more, and wants some room around a face."""
    dlib_calls.append((image.shape[1], doublings))
    for left, top, right, bottom in boxes(image):
        if (right - left) * 2**doublings >= 80:
            yield rectangle(left, top, right - 1, bottom - 1)


@pytest.fixture
def install(tmp_path, monkeypatch):
    """``install("dlib", "19.0", dlib={…})``: modules that stand in for a library of that version."""

    def make(package, version, modules):
        for name, content in modules.items():
            made = ModuleType(name)
            made.__dict__.update(content)
            monkeypatch.setitem(sys.modules, name, made)
        origin = str(tmp_path / package / "__init__.py")
        monkeypatch.setattr(detect, "find_spec", lambda name: Space(origin=origin) if name == package else None)
        monkeypatch.setattr(detect, "version", lambda name: version)

    for load in (detectors.load_model, detectors.load_models):
        load.cache_clear()
    yield make
    for load in (detectors.load_model, detectors.load_models):
        load.cache_clear()


@pytest.fixture
def legacy(install, tmp_path):
    (tmp_path / "mediapipe" / "python" / "solutions").mkdir(parents=True)
    (tmp_path / "mediapipe" / "python" / "solutions" / "face_mesh.py").touch()
    install("mediapipe", "0.9.9", {"mediapipe": {"solutions": Space(face_mesh=Space(FaceMesh=FaceMesh))}})


@pytest.fixture
def dlib(install):
    functions = {"get_frontal_face_detector": lambda: find_frontal, "shape_predictor": shape_predictor}
    install("dlib", "19.0", {"dlib": functions | {"rectangle": rectangle}})


def scene(width, height, *boxes):
    image = np.zeros((height, width, 3), dtype=np.uint8)
    for number, (left, top, wide, high) in enumerate(boxes):
        image[top : top + high, left : left + wide, 0] = 100 + number
    return image


def expected(left, top, wide, high):
    return PLACES * (wide, high) + (left, top)


@pytest.mark.usefixtures("legacy")
def test_the_mesh_is_found_in_pixels_in_a_picture_of_any_shape():
    detector = make_detector("mediapipe", points=478)
    assert (detector.name, detector.points) == ("mediapipe", 478)
    assert detector.info == "mediapipe 0.9.9, face mesh of the wheel, 478 points"
    for width, height, *boxes in (
        (200, 140, (60, 30, 80, 90)),
        (400, 300, (10, 10, 100, 100), (200, 50, 120, 130)),
        (96, 96, (1, 0, 94, 95)),  # a crop that is all face is looked at with room around it
        *((960, 640, (*place, 110, 130)) for place in ((30, 20), (420, 250), (840, 500))),  # small in a large one
    ):
        found = detector.detect(scene(width, height, *boxes))
        assert (found.dtype, len(found)) == (np.float32, len(boxes))
        np.testing.assert_allclose(found, [expected(*box) for box in boxes], atol=2e-3)
    short, image = make_detector("mediapipe"), scene(140, 200, (20, 70, 90, 80))
    (small,) = short.detect(image)
    # It is pickled without its model, and takes views.
    assert len(pickle.dumps(short)) < 1000
    for other, pixels in ((pickle.loads(pickle.dumps(short)), image), (short, image[::-1].copy()[::-1])):
        np.testing.assert_array_equal(other.detect(pixels), small[None])
    np.testing.assert_allclose(small, expected(20, 70, 90, 80)[list(MESH_TO_68)], atol=1e-3)
    for image in (scene(64, 48), scene(700, 300), scene(1, 1)):
        for points, nothing in ((68, short.detect(image)), (478, detector.detect(image))):
            assert (nothing.shape, nothing.dtype) == ((0, points, 2), np.float32)


@pytest.mark.usefixtures("legacy")
def test_a_small_face_is_looked_at_again_by_itself_and_the_chatter_of_the_library_is_not_seen(capfd):
    mesh_calls.clear()
    (found,) = make_detector("mediapipe", points=478).detect(scene(500, 500, (10, 20, 100, 110)))
    np.testing.assert_allclose(found, expected(10, 20, 100, 110), atol=2e-3)
    assert mesh_calls == [500, 220]
    for image in (scene(64, 64), scene(200, 140, (60, 30, 80, 90)), scene(200, 140, (50, 30, 80, 90))):
        make_detector("mediapipe").detect(image)
    os.write(2, b"ours\n")
    assert capfd.readouterr().err == "ours\n"


def test_a_task_bundle_goes_through_the_newer_interface(install, tmp_path, refused):
    landmarker = Space(create_from_options=create_landmarker)
    vision = Space(RunningMode=Space(IMAGE="image"), FaceLandmarkerOptions=Space, FaceLandmarker=landmarker)
    modules = {"mediapipe.tasks.python": {"BaseOptions": Space, "vision": vision}}
    install("mediapipe", "0.99", modules | {"mediapipe": {"ImageFormat": Space(SRGB="srgb"), "Image": Space}})
    bundle = tmp_path / "face.task"
    bundle.write_bytes(b"bundle")
    detector = make_detector(f"mediapipe:{bundle}", points=478)
    digest = hashlib.sha256(b"bundle").hexdigest()[:12]
    assert detector.info == f"mediapipe 0.99, face.task {digest}, 478 points"
    image = scene(200, 140, (60, 30, 80, 90))
    np.testing.assert_allclose(detector.detect(image), [expected(60, 30, 80, 90)], atol=1e-3)
    assert make_detector(f"mediapipe:{bundle}").detect(image).shape == (1, 68, 2)
    bundle.write_bytes(b"something else")
    detectors.load_model.cache_clear()
    other = make_detector(f"mediapipe:{bundle}")
    with refused(InputError, "face.task: isn't a Face Landmarker bundle ", "zip archive. second line"):
        other.detect(image)
    with refused(ConfigError, "mediapipe 0.99 has no face mesh inside; either ", "0.10.21", "mediapipe:face"):
        make_detector("mediapipe")
    with refused(InputError, "gone.task: the detector's model can't be read (No such file"):
        make_detector(f"mediapipe:{tmp_path / 'gone.task'}")


@pytest.mark.usefixtures("dlib")
def test_dlib_gives_as_many_points_as_its_file_and_looks_at_tight_crops_and_small_faces_again(tmp_path):
    for points in (5, 68):
        path = tmp_path / f"{points}.dat"
        path.write_text(str(points))
        detector = make_detector(f"dlib:{path}")
        assert detector.points == points
        assert detector.info.startswith(f"dlib 19.0, {points}.dat ")
        assert detector.info.endswith(f", {points} points")
        found = pickle.loads(pickle.dumps(detector)).detect(scene(300, 300, (10, 10, 90, 90), (120, 140, 100, 110)))
        assert (found.shape, found.dtype) == ((2, points, 2), np.float32)
        np.testing.assert_array_equal(found[:, [0, -1]], [[(10, 10), (99, 99)], [(120, 140), (219, 249)]])
    np.testing.assert_array_equal(detector.detect(scene(96, 96, (2, 1, 92, 95)))[0, [0, -1]], [(2, 1), (93, 95)])
    np.testing.assert_array_equal(detector.detect(scene(150, 150, (30, 40, 45, 50)))[0, [0, -1]], [(30, 40), (74, 89)])
    assert len(detector.detect(scene(96, 96))) == 0
    dlib_calls.clear()
    assert detector.detect(scene(1000, 800)).shape == (0, 68, 2)
    # A large picture is not blown up to four times its size.
    assert dlib_calls == [(1000, 0), (1000, 1)]
    path.write_text("nonsense")
    detectors.load_models.cache_clear()
    with pytest.raises(InputError, match=r"68.dat: isn't a shape predictor that dlib can load \(Unexpected version"):
        make_detector(f"dlib:{path}")


def test_a_spec_that_does_not_fit_is_refused(refused, monkeypatch):
    for spec, points, says in (
        (
            "mediapip",
            68,
            "no detector is called 'mediapip' (known: dlib:FILE.dat, mediapipe, mediapipe:FILE.task, uniface)",
        ),
        ("mediapipe", 51, "points = 51: a detector gives 68 landmarks, or mediapipe's 478"),
        ("mediapipe:", 68, "a file must follow the colon, as in mediapipe:FILE.task"),
        ("dlib", 68, "dlib needs the file of a shape predictor: dlib:FILE.dat"),
        ("dlib:p.dat", 478, "only mediapipe gives the whole mesh"),
        ("uniface:x.onnx", 68, "uniface takes no file, and gives 68 points"),
    ):
        with refused(ConfigError, says):
            make_detector(spec, points=points)
    monkeypatch.setattr(detect, "find_spec", lambda name: None)
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
    detectors.load_model.cache_clear()
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
    bundle = tmp_path / "made.task"
    with zipfile.ZipFile(bundle, "w", zipfile.ZIP_STORED) as file:
        file.write(modules / "face_detection" / "face_detection_short_range.tflite", "face_detector.tflite")
        file.write(modules / "face_landmark" / "face_landmark.tflite", "face_landmarks_detector.tflite")
    detector = make_detector(f"mediapipe:{bundle}")
    found = detector.detect(np.asarray(photo))
    assert found.shape == (1, 68, 2)
    assert np.isfinite(found).all()
    assert len(detector.detect(np.zeros((80, 120, 3), np.uint8))) == 0
    (tmp_path / "bad.task").write_bytes(b"not a bundle")
    with pytest.raises(InputError, match=r"bad.task: isn't a Face Landmarker bundle"):
        make_detector(f"mediapipe:{tmp_path / 'bad.task'}").detect(np.asarray(photo))
