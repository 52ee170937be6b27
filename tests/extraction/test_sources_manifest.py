from __future__ import annotations

from pathlib import Path

import pytest

from featlab.errors import InputError
from featlab.extraction.items import classes_of
from featlab.extraction.layouts.plain import read_source


def write(tmp_path: Path, text: str, encoding: str = "utf-8") -> Path:
    path = tmp_path / "manifest.csv"
    path.write_bytes(text.encode(encoding))
    return path


def test_every_column_is_read_and_rows_are_sorted(tmp_path: Path) -> None:
    source = write(
        tmp_path,
        "path,subject,label,video,frame,intensity\nb.jpg,s2,smile,v1,7,0.5\na/c.jpg,s1,neutral,v2,3,0\nd.jpg,s1,,v2,1,\n",
    )
    items = read_source(source)
    assert [(item.name, item.subject, item.label, item.video, item.frame, item.row) for item in items] == [
        ("d.jpg", "s1", None, "v2", 1, 2),
        ("a/c.jpg", "s1", "neutral", "v2", 3, 1),
        ("b.jpg", "s2", "smile", "v1", 7, 0),
    ]
    assert items[1].path == tmp_path / "a" / "c.jpg"


def test_videos_and_frames_have_defaults_in_natural_order(tmp_path: Path) -> None:
    source = write(tmp_path, "path,subject\nclips/one/img10.jpg,s1\nclips/one/img2.jpg,s1\nimg1.jpg,s1\n")
    assert [(item.name, item.label, item.video, item.frame) for item in read_source(source)] == [
        ("clips/one/img2.jpg", None, "clips/one", 0),
        ("clips/one/img10.jpg", None, "clips/one", 1),
        ("img1.jpg", None, "s1", 0),
    ]


def test_names_without_digits_sort_beside_names_with_digits(tmp_path: Path) -> None:
    source = write(tmp_path, "path,subject\nv/b.jpg,s\nv/2.jpg,s\nv/02.jpg,s\nv/a1b.jpg,s\nv/a.jpg,s\n")
    assert [item.name for item in read_source(source)] == ["v/02.jpg", "v/2.jpg", "v/a1b.jpg", "v/a.jpg", "v/b.jpg"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_quotes_commas_accents_windows_line_ends_and_backslashes_are_understood(tmp_path: Path, encoding: str) -> None:
    source = write(tmp_path, 'path,subject,label\r\n"f\\Zoë, 1.jpg",Zoë,"neutral"\r\n\r\n', encoding)
    (item,) = read_source(source)
    assert (item.name, item.subject, item.label, item.video) == ("f/Zoë, 1.jpg", "Zoë", "neutral", "f")


def test_an_absolute_path_stays(tmp_path: Path) -> None:
    (item,) = read_source(write(tmp_path, f"path,subject\n{tmp_path}/elsewhere/a.jpg,s1\n"))
    assert item.path == tmp_path / "elsewhere" / "a.jpg"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty"),
        ("path,subject\n", "has a header and no rows"),
        ("path,subjet\na,b\n", "line 1: no column 'subject' (found: path, subjet); did you mean 'subjet'?"),
        ("path;subject\na;b\n", "separate the columns with commas"),
        ("path,subject,subject\na,b,c\n", "'subject' appears twice"),
        ("path,subject,frame\na,s,0\nb,s,1.5\n", "line 3: frame '1.5' isn't a whole number"),
        ("path,subject,frame\na,s,-1\n", "line 2: frame '-1' isn't a whole number"),
        ("path,subject,frame\na,s,99999999999\n", "line 2: frame '99999999999' isn't"),
        ("path,subject,frame\na,s,0\nb,s,\n", "line 3: the frame is empty"),
        (
            "path,subject,video,frame\na,s,v,4\nb,s,v,4\n",
            "line 3: subject 's', video 'v', frame 4 is already on line 2",
        ),
        ("path,subject\na\n", "line 2: 1 values under 2 columns"),
        ("path,subject\na,b,c\n", "line 2: 3 values under 2 columns"),
        ("path,subject\n,s\n", "line 2: the path is empty"),
        ("path,subject\na, \n", "line 2: the subject is empty"),
        ('path,subject\n"a,s\n', "not valid csv"),
        ("path,subject\na\0,s\n", "NUL characters"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused_in_one_line(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(InputError) as caught:
        read_source(write(tmp_path, text))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "manifest.csv" in str(caught.value)


def test_line_numbers_count_lines_inside_quotes(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="line 4: frame 'x'"):
        read_source(write(tmp_path, 'path,subject,label,frame\na,s,"two\nlines",0\nb,s,n,x\n'))


def test_text_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="isn't UTF-8 text"):
        read_source(write(tmp_path, "path,subject\nZoë,s\n", "latin-1"))


def test_a_source_that_is_not_there_or_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file or folder"):
        read_source(tmp_path / "none.csv")
    (tmp_path / "list.txt").write_text("path\n")
    with pytest.raises(InputError, match="expected a manifest"):
        read_source(tmp_path / "list.txt")


def test_classes_are_neutral_first_and_the_rest_sorted(tmp_path: Path) -> None:
    source = write(tmp_path, "path,subject,label\na,s,smile\nb,s,calm\nc,s,anger\nd,s,\n")
    assert classes_of(read_source(source), "calm") == ("calm", "anger", "smile")


def test_an_unknown_neutral_label_names_the_closest(tmp_path: Path) -> None:
    items = read_source(write(tmp_path, "path,subject,label\na,s,smile\nb,s,Neutral\n"))
    with pytest.raises(InputError, match=r"did you mean 'Neutral'\?; name the neutral label with --neutral NAME"):
        classes_of(items, "neutral")


def test_rows_without_any_label_have_the_neutral_class_alone(tmp_path: Path) -> None:
    assert classes_of(read_source(write(tmp_path, "path,subject\na,s\n")), "neutral") == ("neutral",)


def test_videos_without_a_video_column_are_clips_of_their_own(tmp_path):
    items = read_source(write(tmp_path, "path,subject\nd/b.mp4,s\nd/a.mp4,s\n"))
    assert [(item.video, item.frame) for item in items] == [("d/a.mp4", 0), ("d/b.mp4", 0)]


def test_two_videos_under_one_name_are_refused(tmp_path):
    with pytest.raises(InputError, match="already on line 2"):
        read_source(write(tmp_path, "path,subject,video\nd/b.mp4,s,v\nd/a.mp4,s,v\n"))
