import itertools
from pathlib import Path

import numpy as np

from featlab.errors import InputError
from featlab.extraction.backbones.builtin import template
from featlab.extraction.faces import MESH_TO_68, check_eyes, eye_centres, to_68
from featlab.extraction.faces.landmark_files import read_pts, read_tem
from featlab.extraction.faces.landmarks import find_landmarks, landmarks_for, read_landmarks
from featlab.extraction.items import Item

# From the schematic face of the geometry backbone, independent of the tables here.
FACE = template(68).astype(np.float32) * 100 + 60
LEFT, RIGHT = FACE[36:42].mean(axis=0), FACE[42:48].mean(axis=0)
NOSE, MOUTH = FACE[30], (FACE[48], FACE[54])


def mesh(points):
    whole = np.zeros((points, 2), dtype=np.float32)
    whole[list(MESH_TO_68)] = FACE
    return whole


MTCNN = np.stack([LEFT, RIGHT, NOSE, *MOUTH])
NO_INNER_CORNERS = np.delete(FACE[17:], (43, 47), axis=0)
TEMPLATE = np.concatenate([[LEFT, RIGHT], np.zeros((187, 2), np.float32)])


def test_the_eyes_are_found_in_every_set(refused):
    for points in (FACE, FACE[17:], NO_INNER_CORNERS, mesh(478), mesh(468), TEMPLATE, MTCNN):
        np.testing.assert_allclose(eye_centres(points), [LEFT, RIGHT], rtol=1e-6, err_msg=str(len(points)))
        check_eyes(len(points))
    assert len(set(MESH_TO_68)) == 68
    np.testing.assert_array_equal(to_68(mesh(478)), FACE)
    with refused(InputError, "which of 106 landmarks", "5, 49, 51, 68, 189, 468, 478 points"):
        eye_centres(np.zeros((106, 2)))
    # Many faces at once, and no face.
    found = eye_centres(np.stack([FACE, np.full_like(FACE, np.nan), FACE + 5]))
    assert np.isnan(found[1]).all()
    np.testing.assert_allclose(found[[0, 2]], [[LEFT, RIGHT], [LEFT + 5, RIGHT + 5]], rtol=1e-6)
    assert np.isnan(eye_centres(np.full((1, 5, 2), np.nan))).all()


def test_the_corners_of_dlib_are_told_from_the_centres_of_others_at_any_tilt():
    corners = np.stack([FACE[45], FACE[42], FACE[36], FACE[39], FACE[33]])
    for points, expected in (
        (corners, [FACE[[36, 39]].mean(axis=0), FACE[[42, 45]].mean(axis=0)]),
        (MTCNN, [LEFT, RIGHT]),
    ):
        for angle in np.linspace(0, 2 * np.pi, 7):
            turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
            np.testing.assert_allclose(eye_centres(points @ turn), np.stack(expected) @ turn, rtol=1e-5)


PTS = "version: 1\nn_points: 3\n{\n1.000 1.000\n449.459 119.344\n12 7.5\n}\n"


def test_the_upper_left_pixel_of_a_pts_is_one_one_and_of_a_tem_zero(tmp_path):
    tem = "3\n0\t0\n448.459\t118.344\n11 6.5\n"
    for read, text in (
        (read_pts, PTS),
        (read_pts, "\ufeff" + PTS.replace("\n", "\r\n")),
        (read_pts, PTS.replace("n_points: 3", "n_points:  3 ")),
        (read_pts, PTS.replace("{\n", "{ ").replace("\n}", " }")),
        (read_pts, "version: 1\n{\n1 1\n449.459\t119.344\n\n12,7.5\n}"),
        *((read_tem, tem + end) for end in ("", "1\n0\n3\n0 1 2\n", "\n2\n1\n2\n0 1\n0\n2\n1 2\n")),
    ):
        (tmp_path / "a").write_bytes(text.encode())
        points = read(tmp_path / "a")
        assert points.dtype == np.float32
        np.testing.assert_allclose(points, [(0, 0), (448.459, 118.344), (11, 6.5)], rtol=1e-6)


POINTS = np.arange(3 * 4 * 2, dtype=np.float32).reshape(3, 4, 2) / 4


def test_arrays_of_both_shapes_are_read(tmp_path):
    holed = POINTS.copy()
    holed[1, 2, 0] = np.inf  # one number makes it no face
    for dtype, shape in itertools.product(("float32", "float64", "int32"), ((3, 4, 2), (3, 8))):
        np.save(tmp_path / "l.npy", (POINTS * 4).astype(dtype).reshape(shape))
        read = read_landmarks(tmp_path / "l.npy", 3)
        assert read.dtype == np.float32
        np.testing.assert_array_equal(read, POINTS * 4)
    np.save(tmp_path / "l.npy", holed)
    holed[1] = np.nan
    np.savez(tmp_path / "one.npz", POINTS)
    np.savez(tmp_path / "named.npz", key=np.array("k"), landmarks=POINTS.reshape(3, 8))
    for name, expected in (("l.npy", holed), ("one.npz", POINTS), ("named.npz", POINTS)):
        np.testing.assert_array_equal(read_landmarks(tmp_path / name, 3), expected)


def test_an_openface_csv_is_read_in_order_or_by_path_and_a_failed_detection_is_nan(tmp_path, openface):
    path = tmp_path / "l.csv"
    np.testing.assert_array_equal(read_landmarks(openface(path, "frame", ("1", "2", "3"), POINTS), 3), POINTS)
    for first, cells in (
        ("success", ("1", "0", "1")),
        ("face, confidence", ("0, 0.98", "0, 0", "0, 0.1")),  # without success, a confidence of 0 says it
        ("confidence, success", ("0.1, 1", "0.9, 0", "0, 1")),
    ):
        read = read_landmarks(openface(path, first, cells, POINTS), 3)
        assert np.isnan(read[1]).all()
        np.testing.assert_array_equal(read[[0, 2]], POINTS[[0, 2]])
    for missing in ("-nan(ind)", "NA", "None", ""):
        path.write_text("frame,x_0,y_0\n1,2,3\n2,4," + missing + "\n")
        assert np.isnan(read_landmarks(path, 2)).tolist() == [[[False] * 2], [[True] * 2]]
    openface(path, "path", ("f/c.jpg", "f\\a.jpg", "other.jpg"), POINTS)
    read = read_landmarks(path, 4, names=["f/a.jpg", "f/b.jpg", "f/c.jpg", "f/c.jpg"])
    np.testing.assert_array_equal(read[[0, 2, 3]], POINTS[[1, 0, 0]])
    assert np.isnan(read[1]).all()
    # A column of which some cells name pictures only isn't theirs.
    path.write_text("note,x_0,y_0\na.jpg,1,2\nblurred,3,4\n")
    np.testing.assert_array_equal(read_landmarks(path, 2, names=["f/b.jpg", "f/a.jpg"]), [[(1, 2)], [(3, 4)]])
    path.write_text("path,x_0,y_0\n,1,2\nc.png,3,4\n")
    np.testing.assert_array_equal(read_landmarks(path, 1, names=["f/c.jpg"]), [[(3, 4)]])


def test_a_file_that_does_not_fit_is_refused(tmp_path, refused):
    for name, content, says in (
        ("a.pts", "1 2\n3 4\n", "no opening brace"),
        ("a.pts", "version: 1\nn_points: 3\n{\n1 1\n", "closing brace is missing"),
        ("a.pts", "n_points: 3\n{\n1 1\n}\n", "says 3 points and holds 1"),
        ("a.pts", "{\n}\n", "no point between the braces"),
        ("a.pts", "n_points: 2\n{\n1 1\n2 two\n}\n", "line 4: expected x and y, found '2 two'"),
        ("a.pts", "n_points: 1\n{\n1_0 2\n}\n", "line 3: expected x and y, found '1_0 2'"),
        ("a.pts", "n_points: 2\n{\n1 1\n2 2 2\n}\n", "line 4: expected x and y, found '2 2 2'"),
        ("a.pts", b"version: 1\n\xff\xfe", "isn't UTF-8 text (byte 11)"),
        ("a.tem", "\n\n", "is empty"),
        ("a.tem", "three\n1 2\n", "line 1: expected the number of points, found 'three'"),
        ("a.tem", "-1\n", "line 1: expected the number of points"),
        ("a.tem", "99999999999\n1 2\n", "says 99999999999 points and holds 1; the file is cut off"),
        ("a.tem", "2\n1 2\n3\n", "line 3: expected x and y, found '3'"),
        ("a.csv", "a,b\n1,2\n", "no landmark columns"),
        ("a.csv", "x_0,x_1,y_0\n1,2,3\n", "'y_1' is missing"),
        ("a.csv", "x_0,y_0,x_999999999999\n1,2,3\n", "'x_1' is missing"),
        ("a.csv", "x_0,y_0\n1,two\n", "line 2: y_0 is 'two', not a number"),
        ("a.csv", "x_0,y_0\n1,2_0\n", "line 2: y_0 is '2_0', not a number"),
        ("a.csv", "frame,x_0,y_0\n1.5,1,2\n", "line 2: the frame isn't a whole number"),
        ("a.csv", "x_0,y_0\n1,2\n3,4\n", "landmarks for 2 rows, the source has 1"),
        ("a.csv", "path,x_0,y_0\nq.jpg,1,2\n", "no path of"),
        ("a.csv", "path,x_0,y_0\na.jpg,1,2\na.jpg,1,2\n", "lists 'a.jpg' twice"),
        ("a.npy", POINTS[:2], "landmarks for 2 rows, the source has 1"),
        ("a.npy", np.zeros((3, 4, 3)), "has shape"),
        ("a.npy", np.zeros((3, 5)), "has shape"),
        ("a.npy", np.zeros((3, 0, 2)), "has shape"),
        ("a.npy", np.array(["a", "b", "c"]), "type <U1; expected numbers"),
        ("a.npy", np.array([{}, {}, {}]), "isn't a .npy array of numbers"),
        ("a.npy", "", "isn't a .npy array"),
        ("a.npz", {"a": POINTS, "b": POINTS}, "holds the arrays a, b; one of them must be called 'landmarks'"),
        ("a.npz", b"PK\x03\x04 and no more", "isn't a .npz array of numbers"),
        ("a.mat", "x", "come as .npy, .npz or .csv, or as a folder with .csv, .npy, .pts or .tem"),
        ("none.npy", None, "no such file"),
    ):
        path = tmp_path / name
        if isinstance(content, np.ndarray):
            np.save(path, content, allow_pickle=True)
        elif isinstance(content, dict):
            np.savez(path, **content)
        elif content is not None:
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        with refused(InputError, says, str(path)):
            read_landmarks(path, 1, names=["a.jpg"])


def test_landmarks_are_found_beside_a_manifest_and_inside_a_folder(tmp_path):
    manifest = tmp_path / "manifest.csv"
    assert find_landmarks(manifest) is None
    (tmp_path / "landmarks.csv").touch()
    assert find_landmarks(manifest) == find_landmarks(tmp_path) == tmp_path / "landmarks.csv"
    (tmp_path / "landmarks.npy").touch()
    assert find_landmarks(manifest) == tmp_path / "landmarks.npy"


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


def test_a_folder_that_does_not_fit_is_refused(tmp_path, refused):
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
