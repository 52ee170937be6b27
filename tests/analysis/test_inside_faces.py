"""Pictures of faces: where they are found, what stands in for a missing one, and the figures that show them."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from featlab import ExtractorInfo, write_table
from featlab.analysis.inside.faces import LARGEST, draw_landmarks, find_faces
from featlab.errors import ConfigError, InputError
from featlab.workspace.workspace import Workspace

NAMES = ("frames/a.png", "frames/b.png", "frames/c.png", "frames/d.png")
POINTS = np.array([[0, 0], [10, 0], [10, 20], [0, 20], [5, 10]], dtype=np.float32)


def colour(number):
    return (10 * number, 200, 90)


def pictures(folder, names=NAMES, size=(30, 20)):
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, colour(number)).save(folder / name)


@pytest.fixture
def opened(tmp_path, people):
    """``opened({"plot.faces": "none"}, paths=None)``: a workspace whose cache is in ``w/data``."""

    def make(values=None, paths=NAMES, landmarks=True):
        points = np.stack([POINTS, POINTS * np.nan, POINTS + 1, POINTS]) if landmarks else None
        rows = replace(people(2, 1, 1, 3), landmarks=points, paths=paths)
        folder = tmp_path / "w" / "data"
        folder.mkdir(parents=True, exist_ok=True)
        write_table(folder / "cache.h5", rows, ExtractorInfo("toy", "none", "numbers"))
        return Workspace.open(tmp_path / "w", {"cache": "data/cache.h5", **(values or {})})

    return make


def shows(faces, row, number):
    """Whether a row's picture is the photograph of that number."""
    image = faces.image(row)
    return image is not None and image.shape == (20, 30, 3) and tuple(image[0, 0]) == colour(number)


def drawn(faces, row):
    return np.array_equal(faces.image(row), draw_landmarks(faces.table.landmarks[row]))


def test_a_named_folder_beats_the_configured_one_and_that_beats_the_cache_s_own(opened, tmp_path):
    data = tmp_path / "w" / "data"
    places = [tmp_path / "named", tmp_path / "w" / "pics", data, data / "faces"]
    for place in places:
        pictures(place)
    workspace, configured = opened(), opened({"plot.images": "pics"})
    found = find_faces(configured, places[0]), find_faces(configured), find_faces(workspace)
    assert [faces.folder for faces in found] == places[:3]
    shutil.rmtree(data / "frames")
    faces = find_faces(workspace)
    assert (faces.folder, faces.note) == (places[3], "")
    assert [shows(faces, row, row) for row in range(4)] == [True] * 4
    pictures(tmp_path / "few", NAMES[3:], size=(3000, 1500))  # one image is enough for a named folder
    assert find_faces(workspace, tmp_path / "few").image(3).shape == (LARGEST // 2, LARGEST, 3)
    # The cache may lie outside the workspace: its own folder counts.
    (tmp_path / "other").mkdir()
    assert find_faces(Workspace.open(tmp_path / "other", {"cache": str(data / "cache.h5")})).folder == places[3]


def test_for_a_missing_or_damaged_image_landmarks_are_drawn_and_it_is_counted_once(opened, tmp_path):
    folder = tmp_path / "pics"
    pictures(folder)
    (folder / NAMES[0]).unlink()
    (folder / NAMES[2]).write_bytes(b"no picture")
    faces = find_faces(opened(), folder)
    assert faces.note == ""
    for _ in range(2):
        assert drawn(faces, 0)
        assert drawn(faces, 2)
        assert shows(faces, 3, 3)
    assert f"missing or damaged in {folder}: 2 images" in faces.note
    # A name that no file can have is one of a missing image.
    faces = find_faces(opened(paths=("x" * 5000, *NAMES[1:])), folder)
    assert drawn(faces, 0)
    assert "1 images" in faces.note


def test_a_folder_that_was_named_in_vain_is_refused(opened, tmp_path):
    for values, paths, folder, said in (
        ({}, NAMES, tmp_path, r"none of the cache's images.*frames/a\.png"),
        ({"plot.images": "nowhere"}, NAMES, None, "nowhere: holds none"),
        ({}, None, tmp_path, "it names none"),
    ):
        workspace = opened(values, paths)
        with pytest.raises(InputError, match=said):
            find_faces(workspace, folder)
    with pytest.raises(ConfigError, match=r"plot\.faces"):
        opened({"plot.faces": "drawings"})


def test_without_photographs_or_when_asked_landmarks_are_drawn_and_the_note_says_what_to_do(opened, tmp_path):
    faces, bare = find_faces(opened()), find_faces(opened(landmarks=False))
    assert (drawn(faces, 0), faces.image(1), bare.image(0)) == (True, None, None)
    assert "landmarks are drawn in their place (name their folder with --images DIR" in faces.note
    assert "no faces in the figure" in bare.note
    # Photographs that are there change nothing for `landmarks` and `none`.
    pictures(tmp_path / "w" / "data")
    faces = find_faces(opened({"plot.faces": "landmarks"}), tmp_path / "w" / "data")
    assert (drawn(faces, 0), faces.folder, faces.note) == (True, None, "")
    nothing = find_faces(opened({"plot.faces": "none"}))
    assert ([nothing.image(row) for row in range(4)], nothing.note) == ([None] * 4, "")
    assert "no landmarks" in find_faces(opened({"plot.faces": "landmarks"}, landmarks=False)).note


def test_dots_stand_where_the_points_are_scaled_to_their_own_box():
    image = draw_landmarks(POINTS)
    assert (image.shape, image.dtype) == ((LARGEST, LARGEST, 3), np.uint8)
    rows, columns = np.nonzero(image.min(axis=2) < 60)
    # The box is 10 wide and 20 high, in the middle: its longer side takes all but the margins; dots reach 3 % out.
    np.testing.assert_allclose([np.ptp(columns), np.ptp(rows)], [0.46 * LARGEST, 0.86 * LARGEST], atol=2)
    assert np.array_equal(image, draw_landmarks(POINTS * 7 + 300))
    # Only 68 points have lines between them.
    many = [draw_landmarks(np.random.default_rng(0).normal(size=(count, 2))) for count in (68, 67)]
    grey = [((image > 120) & (image < 200)).all(axis=2).sum() for image in many]
    assert grey[0] > grey[1] == 0
