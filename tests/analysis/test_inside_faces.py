"""Where the pictures of faces are found, what stands in for a missing one, and what is said about it."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from featlab.analysis.inside.faces import DRAWN, LARGEST, draw_landmarks, find_faces
from featlab.cache import ExtractorInfo, FeatureTable, write_table
from featlab.errors import ConfigError, InputError
from featlab.workspace.workspace import Workspace

NAMES = ("frames/a.png", "frames/b.png", "frames/c.png", "frames/d.png")
POINTS = np.array([[0, 0], [10, 0], [10, 20], [0, 20], [5, 10]], dtype=np.float32)


def colour(number):
    return (10 * number, 200, 90)


def table(paths=NAMES, landmarks=True):
    rows = 4
    return FeatureTable(
        embeddings=np.eye(rows, 3, dtype=np.float32) + 1,
        label=np.zeros(rows, dtype=np.int16),
        subject=np.array([0, 0, 1, 1], dtype=np.int32),
        video=np.zeros(rows, dtype=np.int32),
        frame=np.array([0, 1, 0, 1], dtype=np.int32),
        subjects=("s1", "s2"),
        videos=("v",),
        classes=("neutral", "smile"),
        neutral="neutral",
        landmarks=np.stack([POINTS, POINTS * np.nan, POINTS + 1, POINTS]) if landmarks else None,
        paths=paths,
    )


def pictures(folder, names=NAMES, size=(30, 20)):
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, colour(number)).save(folder / name)


@pytest.fixture
def opened(tmp_path):
    """``opened(rows, {"plot.faces": "none"})``: a workspace whose cache is in ``w/data``."""

    def make(rows=None, values=None):
        folder = tmp_path / "w" / "data"
        folder.mkdir(parents=True, exist_ok=True)
        write_table(folder / "cache.h5", rows or table(), ExtractorInfo("toy", "none", "numbers"))
        return Workspace.open(tmp_path / "w", {"cache": "data/cache.h5", **(values or {})})

    return make


def shows(faces, row, number):
    """Whether a row's picture is the photograph of that number."""
    image = faces.image(row)
    return image is not None and image.shape == (20, 30, 3) and tuple(image[0, 0]) == colour(number)


def drawn(faces, row, workspace):
    return np.array_equal(faces.image(row), draw_landmarks(workspace.table.landmarks[row]))


def test_a_named_folder_beats_the_configured_one_and_that_beats_the_cache_s_own(opened, tmp_path):
    places = [tmp_path / "named", tmp_path / "w" / "pics", tmp_path / "w" / "data", tmp_path / "w" / "data" / "faces"]
    for place in places:
        pictures(place)
    workspace = opened()
    configured = opened(values={"plot.images": "pics"})
    assert find_faces(configured, places[0]).folder == places[0]
    assert find_faces(configured).folder == places[1]
    assert find_faces(workspace).folder == places[2]
    for name in NAMES:
        (places[2] / name).unlink()
    faces = find_faces(workspace)
    assert faces.folder == places[3]
    assert [shows(faces, row, row) for row in range(4)] == [True] * 4
    assert faces.note == ""


def test_without_a_folder_landmarks_are_drawn_and_the_note_says_what_to_do(opened):
    workspace = opened()
    faces = find_faces(workspace)
    assert drawn(faces, 0, workspace)
    assert faces.image(1) is None
    assert "--images DIR" in faces.note
    assert "landmarks are drawn" in faces.note
    bare = find_faces(opened(table(landmarks=False)))
    assert bare.image(0) is None
    assert "no faces in the figure" in bare.note


def test_a_missing_image_is_drawn_and_a_damaged_one_left_out_and_both_are_counted(opened, tmp_path):
    folder = tmp_path / "pics"
    pictures(folder)
    (folder / NAMES[0]).unlink()
    (folder / NAMES[2]).write_bytes(b"no picture")
    workspace = opened()
    faces = find_faces(workspace, folder)
    assert faces.note == ""
    for _ in range(2):
        assert drawn(faces, 0, workspace)
        assert faces.image(2) is None
        assert shows(faces, 3, 3)
    assert f"1 image is not in {folder}" in faces.note
    assert "1 image is damaged" in faces.note


def test_a_folder_that_was_named_in_vain_is_refused(opened, tmp_path):
    workspace = opened()
    with pytest.raises(InputError, match=r"none of the cache's images.*frames/a\.png"):
        find_faces(workspace, tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        find_faces(opened(values={"plot.images": "nowhere"}))
    with pytest.raises(InputError, match="names no images"):
        find_faces(opened(table(paths=None)), tmp_path)


def test_one_image_is_enough_for_a_named_folder(opened, tmp_path):
    pictures(tmp_path / "few", NAMES[3:])
    assert find_faces(opened(), tmp_path / "few").folder == tmp_path / "few"


def test_landmarks_and_none_show_no_photograph_even_where_there_is_one(opened, tmp_path):
    pictures(tmp_path / "w" / "data")
    workspace = opened(values={"plot.faces": "landmarks"})
    assert drawn(find_faces(workspace), 0, workspace)
    assert find_faces(workspace, tmp_path / "w" / "data").folder is None
    nothing = find_faces(opened(values={"plot.faces": "none"}))
    assert [nothing.image(row) for row in range(4)] == [None] * 4
    assert nothing.note == ""
    assert "no landmarks" in find_faces(opened(table(landmarks=False), {"plot.faces": "landmarks"})).note
    with pytest.raises(ConfigError, match=r"plot\.faces"):
        opened(values={"plot.faces": "drawings"})


def test_frames_of_a_video_have_no_photograph(opened, tmp_path):
    names = tuple(f"a.mp4#t={time:.3f}" for time in (0.0, 0.04, 2.0, 2.04))
    (tmp_path / "a.mp4").write_bytes(b"a film")
    workspace = opened(table(names))
    faces = find_faces(workspace, tmp_path)
    assert drawn(faces, 0, workspace)
    assert "frames of videos" in faces.note
    assert "damaged" not in faces.note


def test_a_file_whose_name_looks_like_a_part_is_shown(opened, tmp_path):
    names = ("a#t=1.png", "b#row=2", "c.png", "d.png")
    pictures(tmp_path, [name for name in names if name.endswith("png")])
    Image.new("RGB", (30, 20), colour(1)).save(tmp_path / "b#row=2", format="png")
    faces = find_faces(opened(table(names)), tmp_path)
    assert shows(faces, 0, 0)
    assert shows(faces, 1, 1)


def test_a_name_that_no_file_can_have_is_a_missing_image(opened, tmp_path):
    pictures(tmp_path)
    workspace = opened(table(("x" * 5000, *NAMES[1:])))
    faces = find_faces(workspace, tmp_path)
    assert drawn(faces, 0, workspace)
    assert "1 image is not in" in faces.note


def test_a_large_photograph_is_scaled_down_and_a_small_one_is_not(opened, tmp_path):
    pictures(tmp_path, NAMES[:1], size=(3000, 1500))
    pictures(tmp_path, NAMES[1:])
    faces = find_faces(opened(), tmp_path)
    assert faces.image(0).shape == (LARGEST // 2, LARGEST, 3)
    assert faces.image(1).shape == (20, 30, 3)


def dark(image):
    return np.argwhere(image.min(axis=2) < 100)


def test_dots_stand_where_the_points_are_scaled_to_their_own_box():
    image = draw_landmarks(POINTS)
    assert image.shape == (DRAWN, DRAWN, 3)
    assert image.dtype == np.uint8
    # The box is 10 wide and 20 high, in the middle: its longer side takes all but the margins.
    places = (POINTS - (5, 10)) / 20 * 0.8 * DRAWN + DRAWN / 2
    rows, columns = np.indices((DRAWN, DRAWN)) + 0.5
    distance = np.stack([np.hypot(columns - x, rows - y) for x, y in places]).min(axis=0)
    ink = image.min(axis=2)
    assert (ink[distance < 1.5] < 60).all()
    assert (ink[distance > 6] == 255).all()
    assert np.array_equal(image, draw_landmarks(POINTS * 7 + 300))


def test_only_a_set_of_68_points_gets_lines():
    rng = np.random.default_rng(0)
    grey = [
        ((draw_landmarks(points) > 120) & (draw_landmarks(points) < 200)).all(axis=2).sum()
        for points in (rng.normal(size=(count, 2)) for count in (68, 67))
    ]
    assert grey[0] > 4 * grey[1]


@pytest.mark.parametrize("points", [np.full((5, 2), 3.0), np.array([[1.0, 2.0]]), np.array([[0.0, 1], [9, 1]])])
def test_flat_and_single_points_are_drawn(points):
    found = dark(draw_landmarks(points))
    assert len(found)
    assert found.mean(axis=0) == pytest.approx([(DRAWN - 1) / 2] * 2, abs=0.6)


@pytest.mark.parametrize("points", [np.full((5, 2), np.nan), np.array([[0, 1], [np.inf, 2]]), np.empty((0, 2))])
def test_a_row_without_a_face_has_no_drawing(points):
    assert draw_landmarks(points) is None


def test_a_mesh_of_many_points_stays_readable():
    grid = np.stack(np.meshgrid(np.arange(22), np.arange(22)), axis=-1).reshape(-1, 2)
    share = len(dark(draw_landmarks(grid))) / DRAWN**2
    assert 0.03 < share < 0.4


def test_the_folder_is_looked_for_beside_a_cache_elsewhere(tmp_path):
    cache = tmp_path / "elsewhere" / "cache.h5"
    cache.parent.mkdir()
    write_table(cache, table(), ExtractorInfo("toy", "none", "numbers"))
    pictures(cache.parent / "faces")
    (tmp_path / "w").mkdir()
    faces = find_faces(Workspace.open(tmp_path / "w", {"cache": str(cache)}))
    assert faces.folder == Path(cache.parent / "faces")
