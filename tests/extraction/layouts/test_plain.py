"""The plain layouts: folders, manifests, and one person's files as they lie about."""

import pytest

from featlab.errors import ConfigError, InputError
from featlab.extraction.items import classes_of
from featlab.extraction.layouts import read_layout
from featlab.extraction.layouts.plain import is_loose


def write(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "manifest.csv"
    path.write_bytes(text.encode(encoding))
    return path


def test_every_column_is_read_and_rows_are_sorted(tmp_path):
    source = write(
        tmp_path,
        "path,subject,label,video,frame,intensity\nb.jpg,s2,smile,v1,7,0.5\na/c.jpg,s1,neutral,v2,3,0\nd.jpg,s1,,v2,1,\n",
    )
    items = read_layout("auto", source)
    assert [(item.name, item.subject, item.label, item.video, item.frame, item.row) for item in items] == [
        ("d.jpg", "s1", None, "v2", 1, 2),
        ("a/c.jpg", "s1", "neutral", "v2", 3, 1),
        ("b.jpg", "s2", "smile", "v1", 7, 0),
    ]
    assert items[1].path == tmp_path / "a" / "c.jpg"


def test_videos_and_frames_have_defaults_in_natural_order(tmp_path):
    def read(*names):
        return read_layout("auto", write(tmp_path, "path,subject\n" + "".join(f"{name},s1\n" for name in names)))

    items = read("clips/one/img10.jpg", "clips/one/img2.jpg", "img1.jpg", "d/b.mp4", "d/a.mp4")
    assert [(item.name, item.label, item.video, item.frame) for item in items] == [
        ("clips/one/img2.jpg", None, "clips/one", 0),
        ("clips/one/img10.jpg", None, "clips/one", 1),
        ("d/a.mp4", None, "d/a.mp4", 0),
        ("d/b.mp4", None, "d/b.mp4", 0),
        ("img1.jpg", None, "s1", 0),
    ]
    names = ["v/02.jpg", "v/2.jpg", "v/a1b.jpg", "v/a.jpg", "v/b.jpg"]
    assert [item.name for item in read(*names[::-1])] == names
    (item,) = read(tmp_path / "elsewhere" / "a.jpg")
    assert item.path == tmp_path / "elsewhere" / "a.jpg"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_quotes_commas_accents_windows_line_ends_and_backslashes_are_understood(tmp_path, encoding):
    source = write(tmp_path, 'path,subject,label\r\n"f\\Zoë, 1.jpg",Zoë,"neutral"\r\n\r\n', encoding)
    (item,) = read_layout("auto", source)
    assert (item.name, item.subject, item.label, item.video) == ("f/Zoë, 1.jpg", "Zoë", "neutral", "f")


def test_a_source_that_does_not_fit_is_refused_in_one_line(tmp_path, put, refused):
    for text, says in (
        ("", "has no rows"),
        ("path,subject\n", "has no rows"),
        ("path,subjet\na,b\n", "no column 'subject' (found: path, subjet); did you mean 'subjet'?"),
        ("path,subject,subject\na,b,c\n", "'subject' appears twice"),
        ("path,subject,frame\na,s,0\nb,s,1.5\n", "line 3: frame '1.5' isn't a whole number"),
        ("path,subject,frame\na,s,-1\n", "line 2: frame '-1' isn't a whole number"),
        ("path,subject,frame\na,s,99999999999\n", "line 2: frame '99999999999' isn't"),
        ("path,subject,frame\na,s,0\nb,s,\n", "line 3: the frame is empty"),
        ("path,subject,video,frame\na,s,v,4\nb,s,v,4\n", "subject, video and frame (s, v, 4) are already on line 2"),
        ("path,subject,video\nd/b.mp4,s,v\nd/a.mp4,s,v\n", "already on line 2"),
        ("path,subject\na\n", "line 2: 1 values under 2 columns"),
        ("path,subject\na,b,c\n", "line 2: 3 values under 2 columns"),
        ("path,subject\n,s\n", "line 2: the path is empty"),
        ("path,subject\na, \n", "line 2: the subject is empty"),
        ('path,subject\n"a,s\n', "not a valid table"),
        ("path,subject\na\0,s\n", "NUL characters"),
        ('path,subject,label,frame\na,s,"two\nlines",0\nb,s,n,x\n', "line 4: frame 'x'"),
    ):
        assert says in refused("auto", write(tmp_path, text))
    assert "isn't UTF-8 text" in refused("auto", write(tmp_path, "path,subject\nZoë,s\n", "latin-1"))
    (tmp_path / "list.txt").write_text("path\n")
    assert "expected a manifest" in refused("auto", tmp_path / "list.txt")
    assert "no such file or folder" in refused("auto", tmp_path / "none.csv")
    root = put("folder/s1/neutral/1.png") / "folder"
    told = refused("manifest", root)
    assert "expected a manifest.csv with path,subject," in told
    assert "found s1/" in told


def test_classes_are_neutral_first_and_the_rest_sorted(tmp_path):
    items = read_layout("auto", write(tmp_path, "path,subject,label\na,s,smile\nb,s,Calm\nc,s,anger\nd,s,\n"))
    assert classes_of(items, "Calm") == ("Calm", "anger", "smile")
    with pytest.raises(InputError, match=r"did you mean 'Calm'\?; name the neutral label with --neutral NAME"):
        classes_of(items, "calm")
    assert classes_of(read_layout("auto", write(tmp_path, "path,subject\na,s\n")), "neutral") == ("neutral",)


def test_a_manifest_keeps_its_own_rows_by_name_of_file_or_folder(put):
    root = put("manifest.csv", text="path,subject,label\nb.png,s2,smile\na.png,s1,neutral\n")
    items = read_layout("manifest", root)
    assert items == read_layout("manifest", root / "manifest.csv") == read_layout("auto", root / "manifest.csv")
    assert [(item.subject, item.row) for item in items] == [("s1", 1), ("s2", 0)]
    assert read_layout("auto", root) == items


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def test_a_folder_with_and_without_video_level_is_read_in_natural_order(tmp_path):
    touch(tmp_path, "b/neutral/img10.JPG", "b/neutral/img2.JPG", "a/smile/v2/1.png", "a/smile/v10/1.png")
    items = read_layout("auto", tmp_path)
    assert [(item.name, item.subject, item.label, item.video, item.frame, item.row) for item in items] == [
        ("a/smile/v10/1.png", "a", "smile", "a/smile/v10", 0, 0),
        ("a/smile/v2/1.png", "a", "smile", "a/smile/v2", 0, 1),
        ("b/neutral/img2.JPG", "b", "neutral", "b/neutral", 0, 2),
        ("b/neutral/img10.JPG", "b", "neutral", "b/neutral", 1, 3),
    ]
    assert items[0].path == tmp_path / "a" / "smile" / "v10" / "1.png"


def test_hidden_entries_other_files_and_links_to_a_parent_are_ignored(tmp_path):
    touch(tmp_path, "a/n/1.png", "a/n/.2.png", ".git/x/1.png", "a/n/notes.txt", "landmarks.npy", "a/n/v/deep/more.txt")
    (tmp_path / "a" / "n" / "up").symlink_to(tmp_path)
    assert [item.name for item in read_layout("auto", tmp_path)] == ["a/n/1.png"]


def test_a_tree_of_another_shape_says_what_was_expected_and_found(tmp_path, refused):
    for number, (name, says) in enumerate(
        (
            *(("1.png", "found 1.png"), ("a/1.png", "found a/1.png"), ("a/n/v/deep/1.png", "found 1.png below")),
            *(("a/readme.txt", "found a/"), (".hidden", "found an empty folder")),
        )
    ):
        root = touch(tmp_path / str(number), name)
        text = refused("auto", root)
        assert text.startswith(f"{root}: expected subject/label/image or subject/label/video/image")
        assert says in text


def test_a_folder_gives_one_clip_a_folder_and_one_a_video_in_natural_order(tmp_path):
    root = touch(
        tmp_path / "mine", "img10.jpg", "img2.PNG", "talk.mp4", ".hidden.jpg", "notes.txt", "b/1.png", "b/film.avi"
    )
    items = read_layout("loose", root, subject="s1")
    assert [(item.name, item.video, item.frame) for item in items] == [
        ("b/1.png", "b", 0),
        ("b/film.avi", "b/film.avi", 0),
        ("img2.PNG", "mine/", 0),
        ("img10.jpg", "mine/", 1),
        ("talk.mp4", "talk.mp4", 0),
    ]
    assert {(item.subject, item.label, item.at) for item in items} == {("s1", None, None)}
    assert [item.row for item in items] == [0, 1, 2, 3, 4]
    assert all(item.path.is_file() for item in items)


def test_a_loose_source_may_be_a_file_and_has_images_at_most_one_folder_down(tmp_path, refused):
    inner = read_layout("loose", touch(tmp_path / "mine", "a.png", "mine/a.png"))
    assert len({(item.video, item.frame) for item in inner}) == 2, "a folder of the same name inside is another clip"
    assert [item.name for item in read_layout("loose", tmp_path / "mine" / "a.png")] == ["a.png"]
    for number, (loose, *names) in enumerate(
        (
            *((True, "a.jpg"), (True, "clip/a.jpg"), (True, "clip/a.mp4")),
            *((False, "s1/neutral/a.jpg"), (False, "a.jpg", "manifest.csv"), (False, "notes.txt")),
        )
    ):
        assert is_loose(touch(tmp_path / str(number), *names)) is loose
    touch(tmp_path, "notes.txt", "empty/.jpg")
    for name in ("notes.txt", "empty", "nosuch"):
        refused("loose", tmp_path / name)
    with pytest.raises(ConfigError, match="subject"):
        read_layout("loose", tmp_path / "mine", person="s1")
