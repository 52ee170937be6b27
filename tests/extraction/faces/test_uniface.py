import hashlib
import pickle
import sys
from pathlib import Path
from types import ModuleType
from types import SimpleNamespace as Space

import numpy as np
import pytest

from featlab.errors import InputError
from featlab.extraction.faces import detect, detectors
from featlab.extraction.faces.detect import make_detector

PLACES = np.random.default_rng(0).uniform(size=(68, 2))


class RetinaFace:
    """Finds the faces, each of one red value, that don't fill the picture; red comes last."""

    def __init__(self, *, providers):
        assert providers == ["CPUExecutionProvider"]

    def detect(self, image):
        assert image.flags.c_contiguous
        spots = [np.argwhere(image[..., 2] == value)[:, ::-1] for value in np.unique(image[..., 2]) if value]
        boxes = [np.array([*spot.min(axis=0), *spot.max(axis=0) + 1]) for spot in spots]
        return [Space(bbox=box) for box in boxes if (box[2:] - box[:2]).max() < 0.8 * len(image)]


class PIPNet:
    def __init__(self, *, model_name, providers):
        assert (Path(model_name).name, providers) == ("pip68", ["CPUExecutionProvider"])

    def get_landmarks(self, image, bbox):
        return (bbox[:2] + PLACES * (bbox[2:4] - bbox[:2])).astype(np.float32)


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """A uniface whose two models are files in a folder; returns the folder."""
    for name in ("retina", "pip68"):
        (tmp_path / name).write_bytes(name.encode())

    def verify(path):
        if not Path(path).exists():
            raise ConnectionError("Download failed\nafter 3 attempts")
        return path

    names = {
        "RetinaFaceWeights": Space(MNET_V2=str(tmp_path / "retina")),
        "PIPNetWeights": Space(DW300_CELEBA_68=str(tmp_path / "pip68")),
    }
    modules = {"constants": names, "model_store": {"verify_model_weights": verify}}
    modules |= {"detection": {"RetinaFace": RetinaFace}, "landmark": {"PIPNet": PIPNet}}
    for name, content in modules.items():
        module = ModuleType(f"uniface.{name}")
        module.__dict__.update(content)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(sys.modules, "uniface", ModuleType("uniface"))
    monkeypatch.setattr(detect, "find_spec", lambda name: Space(origin=f"{tmp_path}/{name}/__init__.py"))
    monkeypatch.setattr(detect, "version", lambda name: "4.2")
    detectors.load_uniface.cache_clear()
    yield tmp_path
    detectors.load_uniface.cache_clear()


def test_every_face_has_its_68_points_in_pixels_of_the_picture(weights, refused):
    detector = make_detector("uniface")
    digest = hashlib.sha256(b"pip68").hexdigest()[:12]
    assert detector.info.startswith("uniface 4.2, retina ")
    assert detector.info.endswith(f", pip68 {digest}, 68 points")
    # The face that fills its picture is found with room around it.
    two = (10, 10, 100, 100), (200, 50, 120, 130)
    for side, *faces in ((400, *two), (96, (1, 0, 94, 95)), (64,)):
        image = np.zeros((side, side, 3), dtype=np.uint8)
        for value, (left, top, wide, high) in enumerate(faces, 100):
            image[top : top + high, left : left + wide, 0] = value
        found = pickle.loads(pickle.dumps(detector)).detect(image)
        assert (found.shape, found.dtype) == ((len(faces), 68, 2), np.float32)
        for points, (left, top, wide, high) in zip(found, faces, strict=True):
            np.testing.assert_allclose(points, PLACES * (wide, high) + (left, top), atol=1e-3)
    (weights / "pip68").unlink()
    with refused(InputError, "uniface has no weights (Download failed after 3 attempts); run it once with a network"):
        make_detector("uniface")
