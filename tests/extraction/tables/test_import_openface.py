"""What OpenFace writes: a folder of csv files and a manifest, or one table."""

import numpy as np
import pytest

from featlab.cache import open_cache
from featlab.errors import FeatlabError
from featlab.extraction.tables.rows import Selection

AUS = ("AU01", "AU45")
HEADER = [
    "frame", "face_id", "timestamp", "confidence", "success",
    "gaze_0_x", "gaze_angle_y", "eye_lmk_x_0", "pose_Tx", "pose_Rz", "x_0", "x_1", "y_0", "y_1", "p_rx",
    *(f"{au}_r" for au in AUS), *(f"{au}_c" for au in AUS),
]  # fmt: skip


def cells(frame, *, success=1, face=0, start=0.0):
    """One row: value of AU01_r is start + frame, landmarks are (frame, 1) and (2, 3)."""
    named = {
        "frame": frame, "face_id": face, "timestamp": frame / 30, "confidence": 0.98, "success": success,
        "gaze_0_x": 0.1, "gaze_angle_y": 0.2, "eye_lmk_x_0": 50, "pose_Tx": 10, "pose_Rz": 0.3,
        "x_0": frame, "y_0": 1, "x_1": 2, "y_1": 3, "p_rx": 7,
        "AU01_r": start + frame, "AU45_r": 0.5, "AU01_c": 1, "AU45_c": 0,
    }  # fmt: skip
    return [str(named[name]) for name in HEADER]


def write(path, rows, header=HEADER):
    path.parent.mkdir(parents=True, exist_ok=True)
    # OpenFace puts a space after every comma.
    path.write_text("\n".join(", ".join(row) for row in (header, *rows)) + "\n")
    return path


@pytest.fixture
def folder(tmp_path):
    """Two videos of one person and one of another."""
    root = tmp_path / "openface"
    write(root / "anna" / "v1.csv", [cells(1), cells(2, success=0), cells(3)])
    write(root / "anna" / "v2.csv", [cells(1, start=10), cells(1, face=1, start=90), cells(2, start=10)])
    write(root / "bo.csv", [cells(1, start=20)])
    (root / "manifest.csv").write_text(
        "path,subject,label\nanna/v1.csv,anna,rest\nanna/v2.mp4,anna,smile\nbo.csv,bo,rest\n"
    )
    return root


def rows_of(path):
    with open_cache(path) as cache:
        table = cache.read()
    return table, [
        (table.subjects[s], table.videos[v], f, e)
        for s, v, f, e in zip(table.subject, table.video, table.frame.tolist(), table.embeddings[:, 0], strict=True)
    ]


def test_a_folder_becomes_frames_of_videos(folder, run):
    report = run(folder)
    table, rows = rows_of(report.path)
    assert rows == [
        ("anna", "anna/v1", 1, 1),
        ("anna", "anna/v1", 3, 3),
        ("anna", "anna/v2", 1, 11),
        ("anna", "anna/v2", 2, 12),
        ("bo", "bo", 1, 21),
    ]
    assert report.dim == 2
    assert table.paths == (
        "anna/v1.csv#row=0",
        "anna/v1.csv#row=2",
        "anna/v2.mp4#row=0",
        "anna/v2.mp4#row=2",
        "bo.csv#row=0",
    )
    np.testing.assert_array_equal(table.landmarks[1], [[3, 1], [2, 3]])
    assert [(failure.path, failure.reason.split(":")[0]) for failure in report.failures] == [
        ("anna/v1.csv#row=1", "success is 0"),
        ("anna/v2.mp4#row=1", "another face (face_id 1)"),
    ]


def test_groups_of_columns(folder, run):
    row = dict(zip(HEADER, cells(1), strict=True))
    real, there, pose, gaze = "AU01_r AU45_r", "AU01_c AU45_c", "pose_Tx pose_Rz", "gaze_0_x gaze_angle_y"
    for group, columns in {
        None: real,
        "au-r": real,
        "au-c": there,
        "au": f"{real} {there}",
        "pose": pose,
        "gaze": gaze,
        "all": f"{gaze} {pose} {real} {there}",
    }.items():
        table, _ = rows_of(run(folder, selection=Selection(group=group), if_exists="overwrite").path)
        assert table.embeddings[0].tolist() == pytest.approx([float(row[name]) for name in columns.split()])


def test_one_table_of_openface_is_read_the_same_way(tmp_path, run):
    rows = [cells(1), cells(2, success=0), cells(3)]
    whole = write(
        tmp_path / "x.csv", [["s", "rest", "v", *row] for row in rows], ["subject", "label", "video", *HEADER]
    )
    report = run(whole)
    table, found = rows_of(report.path)
    assert [row[2] for row in found] == [1, 3]
    assert (report.dim, table.landmarks.shape) == (2, (2, 2, 2))
    assert [failure.path for failure in report.failures] == ["x.csv#row=1"]
    # A manifest counts the rows that have failed.
    (tmp_path / "m.csv").write_text("subject,label\n" + "s,rest\n" * 3)
    report = run(write(whole, rows), manifest=tmp_path / "m.csv", if_exists="overwrite")
    assert [row[3] for row in rows_of(report.path)[1]] == [1, 3]


def test_csv_files_of_images_are_clips_of_their_folder(tmp_path, run):
    head = ["face", "confidence", "AU01_r"]
    names = ["c/img10.csv", "c/img9.csv", "img.csv"]
    for place, name in enumerate(names):
        write(tmp_path / "of" / name, [["0", "0.9", str(place)]], head)
    (tmp_path / "m.csv").write_text("path,subject,label\n" + "".join(f"{name},s,rest\n" for name in names))
    table, rows = rows_of(run(tmp_path / "of", manifest=tmp_path / "m.csv").path)
    assert rows == [("s", "c", 0, 1), ("s", "c", 1, 0), ("s", "rest", 0, 2)]
    assert table.paths == ("c/img9.csv", "c/img10.csv", "img.csv")


def test_missing_and_empty_files_are_listed(folder, run, refused):
    (folder / "anna" / "v2.csv").unlink()
    write(folder / "bo.csv", [])
    with refused(FeatlabError, "manifest.csv, line 3", "no csv for anna/v2.mp4", "--skip-bad"):
        run(folder)
    report = run(folder, skip_bad=True)
    assert report.rows == 2
    assert [failure.path for failure in report.failures] == ["anna/v2.mp4", "bo.csv", "anna/v1.csv#row=1"]


def test_what_does_not_fit_is_one_line(folder, run, refused):
    bo, listed = folder / "bo.csv", folder / "manifest.csv"
    before = {path: path.read_text() for path in (bo, listed)}
    for change, *words in (
        (listed.unlink, "manifest.csv: no such file", "--manifest"),
        (lambda: listed.write_text("subject\ns\n"), "no column 'path'"),
        (lambda: listed.write_text("path\nbo.csv\n"), "no column 'subject'"),
        (lambda: listed.write_text("path,subject\nbo.csv,\n"), "line 2", "the subject is empty"),
        (lambda: listed.write_text("path,subject\n,bo\n"), "line 2", "the path is empty"),
        (
            lambda: listed.write_text("path,subject\nbo.csv,bo\nbo.csv,bo\n"),
            "frame 1 is already there",
            "bo.csv, line 2",
        ),
        (lambda: write(bo, [["1", "1", "2"]], ["frame", "success", "AU01_r"]), "bo.csv has 1 features", "same"),
        (lambda: write(bo, [["1"]], ["frame"]), "bo.csv has no column of numbers"),
        (lambda: write(bo, [cells(1)[:-1]]), "bo.csv, line 2", "18 values under 19 columns"),
        (lambda: write(bo, [cells(1.5)]), "bo.csv, line 2", "frame '1.5'"),
    ):
        change()
        with refused(FeatlabError, *words):
            run(folder)
        for path, text in before.items():
            path.write_text(text)


def test_a_group_is_one_of_those_there_are_and_rows_that_have_all_failed_are_one_line(tmp_path, card, run, refused):
    with refused(FeatlabError, "--features 'aus' is not one of au,", "did you mean 'au"):
        Selection(group="aus")
    with refused(FeatlabError, "give one of them"):
        Selection("AU", "au")
    with refused(FeatlabError, "none of OpenFace's columns", "'pose'"):
        run(card, selection=Selection(group="pose"))
    path = write(tmp_path / "x.csv", [["s", *cells(1, success=0)]], ["subject", *HEADER])
    with refused(FeatlabError, "line 2 and all other rows", "success is 0"):
        run(path)
