from pathlib import Path

import numpy as np

from featlab.errors import InputError
from featlab.extraction.faces.landmarks import landmarks_for
from featlab.extraction.items import Item

# In order of Item.row: two images of one clip, two of another.
NAMES = ("s1/neutral/a/img1.png", "s1/neutral/a/img2.png", "s2/smile/b/img1.png", "s2/smile/b/img3.png")
ITEMS = [Item(Path("/data") / name, name, name[:2], None, name[:-9], row % 2, row) for row, name in enumerate(NAMES)]
# The source's order is by subject and frame, Item.row that of its file.
ITEMS.reverse()


def faces_of(path, items=ITEMS):
    return landmarks_for(path, items).faces.largest()


def frame_items(video, frames, row=0):
    return [
        Item(Path("/data") / video, f"{video}#t={at / 25:.3f}", "s", None, video, at, row + at, at=512 * at)
        for at in range(frames)
    ]


def face(row, points=3):
    return np.arange(2 * points, dtype=np.float32).reshape(points, 2) ** 2 + 10 * row


def faces(*rows):
    return np.stack([face(row) for row in rows])


def put(path, points):
    """Write the points of one face, or of a clip, in the format of the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, points)
    elif path.suffix == ".tem":
        path.write_text(f"{len(points)}\n" + "".join(f"{x}\t{y}\n" for x, y in points) + "0\n")
    else:
        lines = "".join(f"{x} {y}\n" for x, y in points + 1)
        path.write_text(f"version: 1\nn_points: {len(points)}\n{{\n{lines}}}\n")


def test_one_file_an_image_is_matched_by_its_path_or_a_name_that_is_unique_on_both_sides(tmp_path):
    for number, suffix in enumerate((".pts", ".tem", ".npy", ".PTS")):
        root = tmp_path / str(number)
        for row in (0, 2, 3):
            put((root / NAMES[row]).with_suffix(suffix), face(row))
        put(root / "nobody" / f"img9{suffix}", face(9))
        (root / "notes.txt").write_text("not landmarks")
        read = faces_of(root)
        assert read.dtype == np.float32
        np.testing.assert_allclose(read[[0, 2, 3]], faces(0, 2, 3))
        assert np.isnan(read[1]).all()
    names = "s1/n/a/x.png", "s1/n/a/y.png", "s2/n/a/y.png", "s2/n/a/z.png"
    items = [Item(Path("/data") / name, name, "s", None, "v", row, row) for row, name in enumerate(names)]
    for name, row in (("x", 0), ("y", 1), ("sub/z", 3)):
        put(tmp_path / f"{name}.pts", face(row))
    read = faces_of(tmp_path, items)
    np.testing.assert_allclose(read[[0, 3]], faces(0, 3))
    # Two images are called y: neither can be meant.
    assert np.isnan(read[[1, 2]]).all()
    put(tmp_path / "other" / "x.pts", face(7))
    assert np.isnan(faces_of(tmp_path, items)[0]).all()


def test_an_openface_csv_gives_the_largest_face_of_an_image_and_the_frames_of_a_video(tmp_path, openface):
    small, large = face(0) / 4, face(5)
    image = (tmp_path / "images" / NAMES[1]).with_suffix(".csv")
    openface(image, "face, confidence", ("0, 0.9", "1, 0.8"), [small, large])
    np.testing.assert_allclose(faces_of(tmp_path / "images")[1], large)
    cells = [f"{frame + 1}, {frame / 25}, 0.9, {int(frame != 2)}" for frame in range(5)]
    openface(tmp_path / "v" / "p1" / "clip.csv", "frame, timestamp, confidence, success", cells, faces(0, 1, 2, 3, 4))
    items = frame_items("p1/clip.mp4", 7)
    kept = [item for item in items if item.frame % 2 == 0] + frame_items("p1/other.mp4", 2, row=7)
    read = faces_of(tmp_path / "v", kept)
    assert read.shape == (9, 3, 2)
    np.testing.assert_allclose(read[[0, 4]], faces(0, 4))
    # A failed frame, a frame after the last, another video; and rows that no item has.
    assert np.isnan(read[[1, 2, 3, 5, 6, 7, 8]]).all()
    # Frames may count from zero, hold several faces or go by place.
    several = [face(0) / 2, face(0), face(1), face(1) / 2]
    for first, cells, points in (
        ("frame", "01", faces(0, 1)),
        ("frame, face_id", ("1, 0", "1, 1", "2, 0", "2, 1"), several),
        ("confidence", ("0.9", "0.9", "0"), faces(0, 1, 2)),
    ):
        openface(tmp_path / "zero" / "clip.csv", first, cells, points)
        read = faces_of(tmp_path / "zero", frame_items("clip.mp4", 3))
        np.testing.assert_allclose(read[:2], faces(0, 1))
        assert np.isnan(read[2]).all()


def test_one_file_for_all_or_for_a_clip_serves_the_images_in_its_folder(tmp_path, openface):
    put(tmp_path / "landmarks.npy", faces(0, 1, 2, 3))
    put(tmp_path / "stray.pts", face(0, points=5))
    np.testing.assert_allclose(faces_of(tmp_path), faces(0, 1, 2, 3))
    for number, place in enumerate(("s1/neutral/a", "a", "out/a")):
        root = tmp_path / str(number)
        openface(root / f"{place}.csv", "frame", "12", faces(0, 1))
        put(root / "s2" / "smile" / "b.npy", faces(2, 3))
        np.testing.assert_allclose(faces_of(root), faces(0, 1, 2, 3))


def test_what_does_not_fit_is_refused_in_one_line(tmp_path, refused):
    for number, (written, *words) in enumerate(
        (
            ({}, "holds no landmark files; expected .csv, .npy, .pts or .tem"),
            ({"q.pts": 3}, "none of its 1 files belongs to an item", "'q.pts'", repr(NAMES[3])),
            ({f"{NAMES[0][:-4]}.pts": 3, f"{NAMES[1][:-4]}.pts": 4}, " points and ", "one kind is needed"),
            ({f"{NAMES[0][:-4]}.pts": 3, f"{NAMES[0][:-4]}.tem": 3}, "would belong to the same image"),
        )
    ):
        root = tmp_path / str(number)
        root.mkdir()
        for name, points in written.items():
            put(root / name, face(0, points))
        with refused(InputError, *words):
            faces_of(root)
    part = Item(Path("/data/a.jpg"), "a.jpg#face=0", "s", None, "v", 0, 0, box=(0, 0, 9, 9))
    with refused(InputError, "of whole pictures, and the source takes parts"):
        faces_of(root, [part])
