from pathlib import Path

import numpy as np

from featlab.errors import InputError
from featlab.extraction.faces.landmarks import landmarks_for
from featlab.extraction.items import Item

# In order of Item.row: two images of one clip, two of another.
NAMES = ("s1/neutral/a/img1.png", "s1/neutral/a/img2.png", "s2/smile/b/img1.png", "s2/smile/b/img3.png")


def faces_of(path, items):
    return landmarks_for(path, items).faces.largest()


def image_items(names=NAMES):
    clips = [name.split("/") for name in names]
    made = [
        Item(Path("/data") / name, name, subject, label, f"{subject}/{label}/{clip}", row % 2, row)
        for row, (name, (subject, label, clip, _)) in enumerate(zip(names, clips, strict=True))
    ]
    # The source's order is by subject and frame, Item.row that of its file.
    return made[::-1]


def frame_items(video, frames, row=0):
    return [
        Item(Path("/data") / video, f"{video}#t={at / 25:.3f}", "s", None, video, at, row + at, at=512 * at)
        for at in range(frames)
    ]


def face(row, points=3):
    return np.arange(2 * points, dtype=np.float32).reshape(points, 2) ** 2 + 10 * row


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, str):
        path.write_text(content)
    else:
        np.save(path, content)


def pts(path, points):
    lines = "".join(f"{x} {y}\n" for x, y in points + 1)
    put(path, f"version: 1\nn_points: {len(points)}\n{{\n{lines}}}\n")


def tem(path, points):
    put(path, f"{len(points)}\n" + "".join(f"{x}\t{y}\n" for x, y in points) + "0\n")


def openface(path, rows, first):
    """``first`` names the columns before the points, each row's text their values."""
    places = range(len(rows[0][1]))
    header = ", ".join([first, *(f"x_{p}" for p in places), *(f"y_{p}" for p in places)])
    lines = [", ".join([cells, *(str(value) for value in points.T.ravel())]) for cells, points in rows]
    put(path, "\n".join([header, *lines]) + "\n")


def test_one_file_an_image_is_matched_by_its_path_or_a_name_that_is_unique_on_both_sides(tmp_path):
    for number, (write, suffix) in enumerate(((pts, ".pts"), (tem, ".tem"), (put, ".npy"), (pts, ".PTS"))):
        root = tmp_path / str(number)
        for row in (0, 2, 3):
            write((root / NAMES[row]).with_suffix(suffix), face(row))
        write(root / "nobody" / f"img9{suffix}", face(9))
        (root / "notes.txt").write_text("not landmarks")
        read = faces_of(root, image_items())
        assert read.dtype == np.float32
        np.testing.assert_allclose(read[[0, 2, 3]], [face(0), face(2), face(3)])
        assert np.isnan(read[1]).all()
    items = image_items(("s1/n/a/x.png", "s1/n/a/y.png", "s2/n/a/y.png", "s2/n/a/z.png"))
    for name, row in (("x", 0), ("y", 1), ("sub/z", 3)):
        pts(tmp_path / f"{name}.pts", face(row))
    read = faces_of(tmp_path, items)
    np.testing.assert_allclose(read[[0, 3]], [face(0), face(3)])
    # Two images are called y: neither can be meant.
    assert np.isnan(read[[1, 2]]).all()
    pts(tmp_path / "other" / "x.pts", face(7))
    assert np.isnan(faces_of(tmp_path, items)[0]).all()


def test_an_openface_csv_gives_the_largest_face_of_an_image_and_the_frames_of_a_video(tmp_path):
    small, large = face(0) / 4, face(5)
    openface((tmp_path / NAMES[1]).with_suffix(".csv"), [("0, 0.9", small), ("1, 0.8", large)], "face, confidence")
    np.testing.assert_allclose(faces_of(tmp_path, image_items())[1], large)
    root = tmp_path / "videos"
    rows = [(f"{frame + 1}, {frame / 25}, 0.9, {int(frame != 2)}", face(frame)) for frame in range(5)]
    openface(root / "p1" / "clip.csv", rows, "frame, timestamp, confidence, success")
    items = frame_items("p1/clip.mp4", 7)
    kept = [item for item in items if item.frame % 2 == 0] + frame_items("p1/other.mp4", 2, row=7)
    read = faces_of(root, kept)
    assert read.shape == (9, 3, 2)
    np.testing.assert_allclose(read[[0, 4]], [face(0), face(4)])
    # A failed frame, a frame after the last, another video; and rows that no item has.
    assert np.isnan(read[[1, 2, 3, 5, 6, 7, 8]]).all()
    # Frames may count from zero, hold several faces or go by place.
    several = [("1, 0", face(0) / 2), ("1, 1", face(0)), ("2, 0", face(1)), ("2, 1", face(1) / 2)]
    for first, rows in (
        ("frame", [("0", face(0)), ("1", face(1))]),
        ("frame, face_id", several),
        ("confidence", [("0.9", face(0)), ("0.9", face(1)), ("0", face(2))]),
    ):
        openface(tmp_path / "zero" / "clip.csv", rows, first)
        read = faces_of(tmp_path / "zero", frame_items("clip.mp4", 3))
        np.testing.assert_allclose(read[:2], [face(0), face(1)])
        assert np.isnan(read[2]).all()


def test_one_file_for_all_or_for_a_clip_serves_the_images_in_its_folder(tmp_path):
    np.save(tmp_path / "landmarks.npy", np.stack([face(row) for row in range(4)]))
    pts(tmp_path / "stray.pts", face(0, points=5))
    np.testing.assert_allclose(faces_of(tmp_path, image_items()), [face(row) for row in range(4)])
    for number, place in enumerate(("s1/neutral/a", "a", "out/a")):
        root = tmp_path / str(number)
        openface(root / f"{place}.csv", [(f"{frame + 1}", face(frame)) for frame in range(2)], "frame")
        put(root / "s2" / "smile" / "b.npy", np.stack([face(2), face(3)]))
        np.testing.assert_allclose(faces_of(root, image_items()), [face(row) for row in range(4)])


def test_a_part_of_an_image_gets_the_face_in_it_in_its_own_pixels(tmp_path):
    rows = [("0", face(0) + np.array((100, 50))), ("1", face(0) / 2 + np.array((110, 60))), ("2", face(1) * 4)]
    openface(tmp_path / "group.csv", rows, "face")
    boxes = [(100, 50, 200, 150), (-5, -5, 1000, 1000), (300, 300, 400, 400)]
    items = [
        Item(Path("/data/group.jpg"), f"group.jpg#face={row}", "s", None, "v", row, row, box=box)
        for row, box in enumerate(boxes)
    ]
    read = faces_of(tmp_path, items)
    np.testing.assert_allclose(read[:2], [face(0), face(1) * 4])
    assert np.isnan(read[2]).all()


def test_what_does_not_fit_is_refused_in_one_line(tmp_path, refused):
    one, two = ((tmp_path / name).with_suffix(".pts") for name in NAMES[:2])
    for make, *words in (
        (lambda: None, "holds no landmark files; expected .csv, .npy, .pts or .tem"),
        (
            lambda: pts(tmp_path / "elsewhere" / "q.pts", face(0)),
            *("none of its 1 files belongs to an item", "'elsewhere/q.pts'", repr(NAMES[3])),
        ),
        (lambda: (pts(one, face(0)), pts(two, face(1, points=4))), " points and ", "one kind is needed"),
        (lambda: tem(one.with_suffix(".tem"), face(0)), "would belong to the same image"),
    ):
        make()
        with refused(InputError, *words):
            faces_of(tmp_path, image_items())
    path = (tmp_path / "damaged" / NAMES[2]).with_suffix(".pts")
    pts(path, face(2))
    path.write_text(path.read_text()[:-2])
    with refused(InputError, f"{path}: the closing brace is missing"):
        faces_of(tmp_path / "damaged", image_items())
