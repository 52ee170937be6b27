"""Six real people: clips made here beside the given ones."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from featlab.cache import open_cache
from featlab.extraction.backbones import make_backbone
from featlab.extraction.extract import ExtractConfig, extract
from featlab.extraction.faces.detectors import make_detector
from featlab.extraction.london import LondonConfig, build_london
from featlab.extraction.sources import read_source

DATA = Path(__file__).parents[2].parent / "shared" / "data"
GIVEN, ORIGINALS = DATA / "london-morph", DATA / "london-originals"
PEOPLE = (1, 2, 3, 6, 8, 11)

pytestmark = [
    pytest.mark.faces,
    pytest.mark.slow,
    pytest.mark.skipif(not ORIGINALS.is_dir(), reason="../shared/data/london-originals is not there"),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mediapipe", reason="the landmarks extra is not installed")
    detector = make_detector("mediapipe", points=478)
    config = LondonConfig(people=PEOPLE, mesh_info=detector.info)
    report = build_london(ORIGINALS, tmp_path_factory.mktemp("london") / "set", detector.detect, config)
    assert (report.rows, report.failures) == (288, ())
    return report.manifest.parent


def rows(folder: Path) -> list[tuple[int, dict[str, str]]]:
    """Rows of the six people, with their places in the manifest."""
    with (folder / "manifest.csv").open(newline="", encoding="utf-8") as file:
        listed = list(enumerate(csv.DictReader(file)))
    return [(place, row) for place, row in listed if int(row["subject"][1:]) in PEOPLE]


def landmarks(folder: Path) -> NDArray[np.float32]:
    points: NDArray[np.float32] = np.load(folder / "landmarks.npy")
    return points[[place for place, _ in rows(folder)]].reshape(6, 48, 68, 2)


def pictures(folder: Path) -> NDArray[np.float32]:
    grey = [np.asarray(Image.open(folder / row["path"]).convert("L"), dtype=np.float32) for _, row in rows(folder)]
    return np.stack(grey).reshape(6, 48, 96, 96)


def test_rows_are_named_as_in_london_morph(made: Path) -> None:
    ours, given = ([{**row, "intensity": ""} for _, row in rows(folder)] for folder in (made, GIVEN))
    assert ours == given


def test_faces_are_where_those_of_london_morph_are(made: Path) -> None:
    ours, given = landmarks(made), landmarks(GIVEN)
    for eye in (slice(36, 42), slice(42, 48)):
        apart = ours[:, :, eye].mean(axis=(1, 2)) - given[:, :, eye].mean(axis=(1, 2))
        assert np.linalg.norm(apart, axis=1).max() < 1.5
    apart = ours[:, :24].mean(axis=1) - given[:, :24].mean(axis=1)
    assert np.median(np.linalg.norm(apart, axis=-1)) < 1.5


def test_neutral_clips_look_like_those_of_the_same_person(made: Path) -> None:
    ours, given = (pictures(folder)[:, :24].mean(axis=1).reshape(6, -1) for folder in (made, GIVEN))
    alike = np.corrcoef(ours, given)[:6, 6:]
    assert alike.diagonal().min() > 0.9
    assert (alike.argmax(axis=1) == np.arange(6)).all()


def test_pictures_are_as_bright_sharp_and_noisy_as_the_given_ones(made: Path) -> None:
    ours, given = pictures(made), pictures(GIVEN)
    assert abs(ours.mean() - given.mean()) < 25
    for axis in (2, 3):
        assert np.abs(np.diff(ours, axis=axis)).mean() == pytest.approx(
            np.abs(np.diff(given, axis=axis)).mean(), rel=0.2
        )


def test_hog_knows_each_person_of_one_set_in_the_other(made: Path, tmp_path: Path) -> None:
    embedded = []
    for name, folder in (("ours", made), ("given", GIVEN)):
        items = [item for item in read_source(folder / "manifest.csv") if int(item.subject[1:]) in PEOPLE]
        out = tmp_path / f"{name}.h5"
        extract(items, make_backbone("hog"), out, neutral="neutral", config=ExtractConfig(jobs=1))
        with open_cache(out) as cache:
            embedded.append(cache.read())
    ours, given = embedded
    square = (given.embeddings**2).sum(axis=1) - 2 * ours.embeddings @ given.embeddings.T
    assert (given.subject[square.argmin(axis=1)] == ours.subject).all()
