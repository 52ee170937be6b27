import numpy as np
import pytest

from featlab.errors import FeatlabError
from featlab.extraction.tables.rows import Selection

FACTS = "frame face_id timestamp confidence success gaze_0_x gaze_angle_y eye_lmk_x_0 pose_Tx pose_Rz"
HEADER = f"{FACTS} x_0 x_1 y_0 y_1 p_rx AU01_r AU45_r AU01_c AU45_c".split()


def cells(frame, *, success=1, face=0, start=0.0):
    """One row: AU01_r is start + frame, landmarks are (frame, 1) and (2, 3)."""
    first = [frame, face, frame / 30, 0.98, success]
    return [*map(str, [*first, 0.1, 0.2, 50, 10, 0.3, frame, 2, 1, 3, 7, start + frame, 0.5, 1, 0])]


def write(path, rows, header=HEADER):
    path.parent.mkdir(parents=True, exist_ok=True)
    # OpenFace puts a space after every comma.
    path.write_text("\n".join(", ".join(row) for row in (header, *rows)) + "\n")
    return path


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "openface"
    write(root / "anna" / "v1.csv", [cells(1), cells(2, success=0), cells(3)])
    write(root / "anna" / "v2.csv", [cells(1, start=10), cells(1, face=1, start=90), cells(2, start=10)])
    write(root / "bo.csv", [cells(1, start=20)])
    rows = "anna/v1.csv,anna,rest\nanna/v2.mp4,anna,smile\nbo.csv,bo,rest\n"
    (root / "manifest.csv").write_text("path,subject,label\n" + rows)
    return root


def rows_of(table):
    names = zip(table.subject, table.video, table.frame.tolist(), table.embeddings[:, 0], strict=True)
    return [(table.subjects[s], table.videos[v], f, e) for s, v, f, e in names]


def test_a_folder_becomes_frames_of_videos(folder, run, read):
    report = run(folder)
    table = read(report)
    assert rows_of(table) == [
        ("anna", "anna/v1", 1, 1),
        ("anna", "anna/v1", 3, 3),
        ("anna", "anna/v2", 1, 11),
        ("anna", "anna/v2", 2, 12),
        ("bo", "bo", 1, 21),
    ]
    names = ("anna/v1.csv#row=0", "anna/v1.csv#row=2", "anna/v2.mp4#row=0", "anna/v2.mp4#row=2", "bo.csv#row=0")
    assert (report.dim, table.paths) == (2, names)
    np.testing.assert_array_equal(table.landmarks[1], [[3, 1], [2, 3]])
    assert [(failure.path, failure.reason.split(":")[0]) for failure in report.failures] == [
        ("anna/v1.csv#row=1", "success is 0"),
        ("anna/v2.mp4#row=1", "another face (face_id 1)"),
    ]


def test_groups_of_columns(folder, run, read, refused):
    row = dict(zip(HEADER, cells(1), strict=True))
    real, there, pose, gaze = "AU01_r AU45_r", "AU01_c AU45_c", "pose_Tx pose_Rz", "gaze_0_x gaze_angle_y"
    groups = {None: real, "au-r": real, "au-c": there, "au": f"{real} {there}", "pose": pose, "gaze": gaze}
    for group, columns in (groups | {"all": f"{gaze} {pose} {real} {there}"}).items():
        table = read(run(folder, selection=Selection(group=group)))
        assert table.embeddings[0].tolist() == pytest.approx([float(row[name]) for name in columns.split()])
    with refused(FeatlabError, "--features 'aus' is not one of au, au-r, ", "did you mean 'au"):
        run(folder, selection=Selection(group="aus"))


def test_a_manifest_of_one_table_counts_the_rows_that_have_failed(tmp_path, put, run, read):
    manifest = put("m.csv", "subject,label", *["s,rest"] * 3)
    source = write(tmp_path / "x.csv", [cells(1), cells(2, success=0), cells(3)])
    assert read(run(source, manifest=manifest)).embeddings[:, 0].tolist() == [1, 3]


def test_csv_files_of_images_are_clips_of_their_folder(tmp_path, put, run, read):
    names = ["c/img10.csv", "c/img9.csv", "img.csv"]
    for place, name in enumerate(names):
        write(tmp_path / "of" / name, [["0", "0.9", str(place)]], ["face", "confidence", "AU01_r"])
    manifest = put("m.csv", "path,subject,label", *(f"{name},s,rest" for name in names))
    table = read(run(tmp_path / "of", manifest=manifest))
    assert rows_of(table) == [("s", "c", 0, 1), ("s", "c", 1, 0), ("s", "rest", 0, 2)]
    assert table.paths == ("c/img9.csv", "c/img10.csv", "img.csv")


def test_missing_and_empty_files_are_listed(folder, run, refused):
    (folder / "anna" / "v2.csv").unlink()
    write(folder / "bo.csv", [])
    with refused(FeatlabError, "manifest.csv, line 3", "no csv for anna/v2.mp4", "--skip-bad"):
        run(folder)
    report = run(folder, skip_bad=True)
    assert report.rows == 2
    assert [failure.path for failure in report.failures] == ["anna/v2.mp4", "bo.csv", "anna/v1.csv#row=1"]


def test_what_does_not_fit_is_one_line(folder, card, run, refused):
    bo, listed = folder / "bo.csv", folder / "manifest.csv"
    before = {path: path.read_text() for path in (bo, listed)}
    for path, text, *words in (
        (listed, "subject\ns\n", "no column 'path'"),
        (listed, "path,subject\nbo.csv,\n", "line 2", "the subject is empty"),
        (listed, "path,subject\nbo.csv,bo\nbo.csv,bo\n", "frame 1 is already there", "bo.csv, line 2"),
        (bo, "frame,success,AU01_r\n1,1,2", "bo.csv has 1 features", "same"),
        (bo, "frame\n1", "bo.csv has no column of numbers"),
        (bo, f"{','.join(HEADER)}\n{','.join(cells(1.5))}", "bo.csv, line 2", "frame '1.5'"),
    ):
        path.write_text(text)
        with refused(FeatlabError, *words):
            run(folder)
        path.write_text(before[path])
    for name, middle in (("a", "f1"), ("b", "g1")):
        (folder / f"{name}.csv").write_text(f"f0,{middle},f2\n1,2,3\n")
    listed.write_text("path,subject\na.csv,s\nb.csv,t\n")
    with refused(FeatlabError, "b.csv has 3 features, f0 to f2, ", "the same columns"):
        run(folder)
    listed.unlink()
    with refused(FeatlabError, "manifest.csv: no such file", "--manifest"):
        run(folder)
    with refused(FeatlabError, "line 2 and all other rows", "success is 0"):
        run(write(folder / "x.csv", [["s", *cells(1, success=0)]], ["subject", *HEADER]))
    for chosen, *words in (
        (("AU", "au"), "give one of them"),
        ((None, "pose"), "--features 'pose'", "openface2", "--from", "--columns"),
    ):
        with refused(FeatlabError, *words):
            run(card, selection=Selection(*chosen))
