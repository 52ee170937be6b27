import csv

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featlab.errors import FeatlabError
from featlab.extraction.tables.reader import read_rows
from featlab.extraction.tables.rows import Selection
from featlab.extraction.text import open_delimited

HEAD = "subject,label,video,frame"


def test_a_table_comes_back_as_it_was_written_and_a_long_one_in_blocks(columns, save, check_cache, run, read, put):
    for suffix in ("csv", "tsv"):
        report = run(save(f"features.{suffix}", columns))
        check_cache(report)
        assert (report.rows, report.dim, report.failures, report.notes) == (16, 3, (), ())
        assert read(report).paths is read(report).landmarks is None
    values = np.random.default_rng(3).normal(size=(5001, 2)).astype(np.float32)
    path = put("x.csv", "subject,frame,a,b", *(f"s,{row},{a!r},{b!r}" for row, (a, b) in enumerate(values.tolist())))
    seen = []
    rows = read_rows(open_delimited(path), Selection(), on_progress=lambda *now: seen.append(now))
    assert np.array_equal(rows.features, values)
    assert seen[-1] == (5001, 5002)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    values=st.lists(st.lists(st.floats(width=32), min_size=2, max_size=2), min_size=1, max_size=5),
    names=st.lists(
        st.text(st.characters(codec="utf-8", exclude_categories=("Cc",)), max_size=4), min_size=5, max_size=5
    ),
    end=st.sampled_from(["\n", "\r\n"]),
    mark=st.booleans(),
)
def test_any_numbers_and_names_survive_the_reader(tmp_path, values, names, end, mark):
    path = tmp_path / "any.csv"
    with path.open("w", newline="", encoding="utf-8-sig" if mark else "utf-8") as file:
        writer = csv.writer(file, lineterminator=end)
        writer.writerow(["subject", "a", "b"])
        for name, row in zip(names, values, strict=False):
            writer.writerow([f"s{name}", *map(repr, row)])
    read = read_rows(open_delimited(path), Selection("a,b"))
    assert np.array_equal(read.features, np.array(values, dtype=np.float32), equal_nan=True)
    assert list(read.names["subject"]) == [f"s{name}".strip() for name in names[: len(values)]]


def test_columns_are_names_beginnings_or_an_expression(put):
    path = put("x.csv", "subject,f1,f12,f2,age,x_0,y_0", "s,1,2,3,40,5,6")
    for spec, expected in {
        "f1": "f1",
        "f1,f12": "f1 f12",
        "f,age": "f1 f12 f2 age",
        r"f\d": "f1 f2",
        "f.*": "f1 f12 f2",
        "x_": "x_0",
    }.items():
        read = read_rows(open_delimited(path), Selection(spec))
        assert list(read.columns) == expected.split()
        # Points whose x or y is a feature are no landmarks.
        assert (read.landmarks is None) == (spec == "x_")


def test_landmark_columns_are_landmarks(put, run, read):
    lines = ("s,rest,9,4,1,2,3", "s,rest,8,,1,2,3", "t,rest,7,0,0,0,0")
    report = run(put("x.csv", "subject,label,f,y_1,x_0,y_0,x_1", *lines))
    nowhere = [[np.nan] * 2] * 2  # of zeros too, which some tools write where they found no face
    np.testing.assert_array_equal(read(report).landmarks, [[[1, 2], [3, 4]], nowhere, nowhere])
    assert (report.dim, report.notes[0]) == (1, "x_0, y_0, … are taken as 2 landmarks")


def test_what_names_no_video_is_one_of_its_path_its_label_and_its_session(put, run, read):
    report = run(put("x.csv", "subject,label,f", "s,rest,1", "s,smile,2", "s,rest,3", "s,,4", "t,rest,5"))
    table = read(report)
    assert [table.describe_row(row) for row in range(5)] == [
        "subject 's', video 'rest', frame 0",
        "subject 's', video 'rest', frame 1",
        "subject 's', video 'smile', frame 0",
        "subject 's', video 'unlabelled', frame 0",
        "subject 't', video 'rest', frame 0",
    ]
    assert (table.embeddings[:, 0].tolist(), table.label.tolist()) == ([1, 3, 2, 4, 5], [0, 0, 1, -1, 0])
    assert "no row names a video" in report.notes[0]
    lines = [f"s0,{label},{session},0,1" for label in ("rest", "smile") for session in (1, 2)]
    table = read(run(put("x.csv", "subject,label,session,frame,f0", *lines)))
    assert table.videos == ("1 rest", "1 smile", "2 rest", "2 smile")
    # A path gives the video, the order and the name of a row.
    lines = [r"a\v1\img10.png,s,rest,1", r"a\v1\img2.png,s,rest,2", "img.png,s,rest,3", "b/v.mp4,s,rest,4"]
    table = read(run(put("x.csv", "path,subject,label,f", *lines)))
    assert table.paths == ("a/v1/img2.png", "a/v1/img10.png", "b/v.mp4", "img.png")
    assert [table.videos[code] for code in table.video] == ["a/v1", "a/v1", "b/v", "rest"]
    assert table.frame.tolist() == [0, 1, 0, 0]
    # Frames written as floats are whole numbers.
    path = put("y.csv", f"{HEAD},f", "s,rest,v,3.0,1", "s,rest,v,12,1")
    assert read(run(path)).frame.tolist() == [3, 12]


def test_a_row_that_cannot_be_stored_is_refused_with_its_line_or_skipped_and_listed(put, tmp_path, run, read, refused):
    for bad in ("nan", "inf", "-Infinity", "1e30", "1e39"):
        path = put("x.csv", f"{HEAD},f,g", "s,rest,v,0,1,1", f"s,rest,v,1,1,{bad}", f"s,rest,v,2,{bad},1")
        with refused(FeatlabError, "x.csv, line 3", "g is ", "(1 more rows like it)", "--skip-bad"):
            run(path)
    assert read(run(path, skip_bad=True)).frame.tolist() == [0]
    assert "x.csv#row=2" in (tmp_path / "cache.failures.jsonl").read_text()
    with refused(FeatlabError, "no row can be stored", "x.csv#row=0", "infinite"):
        run(put("x.csv", "subject,label,f", "s,rest,inf"), skip_bad=True)


def good(head="f0,f1", one="s,rest,v,0,1.5,2", two="s,smile,w,0,3,4"):
    return [f"{HEAD},{head}", one, two]


def test_a_malformed_table_is_one_line(tmp_path, put, run, refused):
    for lines, *words in (
        ([], "x.csv", "is empty", "subject,label,video,frame"),
        (good()[:1], "x.csv", "a header and no rows"),
        (["person" + good()[0][7:], *good()[1:]], "found: label, video, frame, person", "--manifest"),
        (["Subject" + good()[0][7:], *good()[1:]], "no column 'subject'", "did you mean 'Subject'"),
        (good("f0,f0"), "x.csv", "line 1", "'f0' appears twice"),
        ([line.replace(",", ";") for line in good()], "line 1", "separate the columns with commas"),
        ([line.replace(",", "\t") for line in good()], "line 1", "separate the columns with commas"),
        (good(two="s,smile,w,0,3,4,5"), "line 3", "7 values under 6 columns"),
        (good(one='s,rest,v,0,"1.5,2'), "not valid csv"),
        (good(one="s,rest,v,1.5,1,2"), "line 2", "frame '1.5' isn't a whole number"),
        (good(one="s,rest,v,99999999999,1,2"), "line 2", "frame '99999999999'"),
        (good(two="s,rest,v,,3,4"), "line 3", "the frame is empty", "'v'"),
        (good(two="s,smile,v,0,3,4"), "line 3", "video 'v', frame 0 is already there", "line 2"),
        (good(one="s,Rest,v,0,1,2"), "neutral label 'rest'", "did you mean 'Rest'", "--neutral"),
        (good("a,b", "s,rest,v,0,x,y", "s,smile,w,0,x,y"), "no column of numbers"),
    ):
        with refused(FeatlabError, *words):
            run(put("x.csv", *lines))
        assert not (tmp_path / "cache.h5").exists()
    for encoding, words in (("utf-16", "UTF-8"), ("utf-16-le", "NUL"), ("latin-1", "isn't UTF-8 text")):
        name = "Zoe" if "le" in encoding else "Zoë"
        with refused(FeatlabError, "x.csv", "CSV UTF-8", words):
            run(put("x.csv", *good(one=f"{name},rest,v,0,3,4"), encoding=encoding))
    path = put("x.csv", "subject,label,f0,f1,side", "s,rest,1,2,left")
    for spec, *words in (
        ("g.*", "'g.*'", "fits no column", "f0, f1"),
        ("(", "'('", "no column begins so", "no expression"),
        ("subject", "fits no column"),
        ("f,side", "line 2", "side is 'left', not a number"),
    ):
        with refused(FeatlabError, *words):
            run(path, selection=Selection(spec))
