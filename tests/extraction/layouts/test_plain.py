import pytest

from featlab.errors import ConfigError, InputError
from featlab.extraction.inputs import InputConfig, read_inputs
from featlab.extraction.items import STILLS, Failure, class_names, counts_up
from featlab.extraction.layouts import detect_layout, read_layout
from featlab.extraction.layouts.plain import is_loose


def write(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "manifest.csv"
    path.write_bytes(text.encode(encoding))
    return path


def test_every_column_of_a_manifest_is_read_and_rows_are_sorted(tmp_path, facts):
    rows = "b.jpg,s2,smile,v1,7.0,0.5\na/c.jpg,s1,neutral,v2,3,0\nd.jpg,s1,,v2,1,\ne.jpg,s3,anger,v1,0,\n"
    source = write(tmp_path, "path,subject,label,video,frame,intensity\n" + rows)
    assert facts("auto", source, "name subject label video frame row path") == [
        ("d.jpg", "s1", None, "v2", 1, 2, tmp_path / "d.jpg"),
        ("a/c.jpg", "s1", "neutral", "v2", 3, 1, tmp_path / "a" / "c.jpg"),
        ("b.jpg", "s2", "smile", "v1", 7, 0, tmp_path / "b.jpg"),
        ("e.jpg", "s3", "anger", "v1", 0, 3, tmp_path / "e.jpg"),
    ]
    items = read_layout("manifest", tmp_path)
    assert class_names([item.label for item in items], "smile") == ("smile", "anger", "neutral")
    assert items == read_layout("manifest", source) == read_layout("auto", source) == read_layout("auto", tmp_path)


def test_videos_and_frames_have_defaults_in_natural_order(tmp_path, facts):
    def read(names, *wanted):
        source = write(tmp_path, "path,subject\n" + "".join(f"{name},s1\n" for name in wanted))
        return facts("auto", source, names)

    assert read(
        "name label video frame", "clips/one/img10.jpg", "clips/one/img2.jpg", "i.jpg", "d/b.mp4", "d/a.mp4"
    ) == [
        ("clips/one/img2.jpg", None, "clips/one", 0),
        ("clips/one/img10.jpg", None, "clips/one", 1),
        ("d/a.mp4", None, "d/a.mp4", 0),
        ("d/b.mp4", None, "d/b.mp4", 0),
        ("i.jpg", None, "s1", 0),
    ]
    names = ["v/a01b.jpg", "v/a2b.jpg", "v/a10b.jpg"]
    assert read("name", *names[::-1]) == names
    assert read("path", tmp_path / "elsewhere" / "a.jpg") == [tmp_path / "elsewhere" / "a.jpg"]


def test_names_are_found_in_any_form_also_with_quotes_commas_accents_and_backslashes(tmp_path, put, facts):
    one, other = "Zo\u00eb.png", "Zoe\u0308.png"
    put(f"a/{one}", f"b/{other}")
    source = write(tmp_path, f"path,subject\na/{other},s1\nb/{one},s1\n")
    assert all(item.path.is_file() for item in read_layout("auto", source))
    for encoding in ("utf-8", "utf-8-sig"):
        source = write(tmp_path, 'path,subject,label\r\n"f\\Zoë, 1.jpg",Zoë,"neutral"\r\n\r\n', encoding)
        assert facts("auto", source, "name subject label video") == [("f/Zoë, 1.jpg", "Zoë", "neutral", "f")]


def test_pictures_whose_names_count_up_are_frames_and_others_are_stills(tmp_path, put, facts):
    for frames, *names in (
        (True, "img1.jpg", "img2.jpg", "img12.jpg"),
        (True, "S005_001_0001.png", "S005_001_0002.png", "S005_001_0007.png", "S005_001_0008.png"),
        (True, "000.png", "030.png", "060.png", "090.png"),
        (True, "Image9_N.jpg", "Image10_N.jpg"),
        (True, "any.jpg"),
        (False, "KA.NE1.26.tiff", "KA.NE2.27.tiff", "KA.NE3.28.tiff"),
        (False, "AF01NES.jpg", "AF01NEHL.jpg"),
        (False, "12034.jpg", "98233.jpg", "99001.jpg", "150012.jpg", "7.jpg"),
        (False, "a.jpg", "b.jpg"),
    ):
        assert counts_up(names) == frames, names
        assert counts_up(names[::-1]) == frames
        rows = "".join(f"d/{name},s1,happy\n" for name in names)
        wanted = {"d"} if frames else {f"d/{name}" for name in names}
        assert set(facts("auto", write(tmp_path, f"path,subject,label\n{rows}"), "video")) == wanted
        root = put(*(f"s1/{clip}/{name}" for name in names for clip in ("happy", "sad/a")), root=tmp_path / names[0])
        stills = {"s1/happy"} if frames else {f"s1/happy/{name}" for name in names}
        assert set(facts("folders", root, "video")) == {"s1/sad/a"} | stills
        found = [("happy/", n) for n in range(len(names))] if frames else [(n, 0) for n in sorted(names)]
        assert sorted(facts("loose", root / "s1" / "happy", "video frame")) == found


def test_a_folder_of_several_people_and_labels_holds_stills_and_what_the_manifest_says_goes_before(tmp_path, facts):
    names, labels = [f"{number}.jpg" for number in range(1, 7)], ["n", "n", "h"] * 2
    for head, subjects, values, wanted in (
        ("", ["s1"] * 6, labels, {"s1"}),  # one person's recording, labelled frame by frame
        ("", ["s1"] * 3 + ["s2"] * 3, labels, set(names)),
        ("", ["s1"] * 3 + ["s2"] * 3, ["n"] * 6, {"s1", "s2"}),
        (",video", ["s1"] * 3 + ["s2"] * 3, [f"{label},v" for label in labels], {"v"}),
        (",frame", ["s1"] * 3 + ["s2"] * 3, [f"{label},{n}" for n, label in enumerate(labels)], {"s1", "s2"}),
    ):
        lines = [f"{name},{who},{value}" for name, who, value in zip(names, subjects, values, strict=True)]
        assert set(facts("auto", write(tmp_path, "\n".join([f"path,subject,label{head}", *lines])), "video")) == wanted


def test_a_source_that_does_not_fit_is_refused_in_one_line(tmp_path, put, refuses):
    for text, says in (
        ("", "has no rows"),
        ("path,subject\n", "a header and no rows"),
        ("path,subjet\na,b\n", "no column 'subject' (found: path, subjet); did you mean 'subjet'?"),
        ("path,subject,Subject\na,b,c\n", "'subject' appears twice"),
        ("path,subject,video\nd/b.mp4,s,v\nd/a.mp4,s,v\n", "line 3: subject 's', video 'v', frame 0 is already there"),
        ("path,subject\n,s\n", "line 2: the path is empty"),
        ("path,subject\na, \n", "line 2: the subject is empty"),
        ('path,subject,label,frame\na,s,"two\nlines",0\nb,s,n,x\n', "line 4: frame 'x'"),
    ):
        refuses("auto", write(tmp_path, text), says)
    root = put("folder/s1/neutral/1.png") / "folder"
    refuses("manifest", root, "expected a manifest.csv with path,subject,", "found s1/")


def test_a_folder_with_and_without_video_level_is_read_in_natural_order_and_no_other_entry(tmp_path, put, facts):
    put("b/neutral/img10.JPG", "b/neutral/img2.JPG", "a/smile/v2/1.png", "a/smile/v10/1.png")
    put("b/neutral/.2.png", ".git/x/1.png", "b/neutral/notes.txt", "landmarks.npy", "b/neutral/v/deep/more.txt")
    (tmp_path / "b" / "neutral" / "up").symlink_to(tmp_path)
    assert facts("folders", tmp_path, "name subject label video frame") == [
        ("a/smile/v10/1.png", "a", "smile", "a/smile/v10", 0),
        ("a/smile/v2/1.png", "a", "smile", "a/smile/v2", 0),
        ("b/neutral/img2.JPG", "b", "neutral", "b/neutral", 0),
        ("b/neutral/img10.JPG", "b", "neutral", "b/neutral", 1),
    ]


def test_a_tree_of_another_shape_says_what_was_expected_and_found(tmp_path, put, refuses):
    trees = {"1.png": "1.png", "a/1.png": "a/1.png", "a/n/v/deep/1.png": "1.png below", "a/b.txt": "a/"}
    for number, (name, found) in enumerate((trees | {".hidden": "an empty folder"}).items()):
        root = put(name, root=tmp_path / str(number))
        refuses("auto", root, f"{root}: expected subject/label/image or subject/label/video/image", f"found {found}")


def test_pictures_that_are_left_out_are_counted_by_suffix_and_whoever_has_no_other_is_a_failure(tmp_path, put, refused):
    root = put("s0/n/1.jpg", "s1/n/1.jfif", root=tmp_path / "faces")
    assert read_inputs(root, InputConfig(), beside=tmp_path / "c.h5").warnings == ()
    put("s0/n/1.CR2", "s0/n/.2.cr2", "s0/n/notes.txt", "s2/n/1.cr2", "s2/n/2.nef", "3.svg", root=root)
    (root / "s0" / "n" / "2").write_bytes((root / "s0" / "n" / "1.jpg").read_bytes())
    found = read_inputs(root, InputConfig(), beside=tmp_path / "c.h5")
    assert len(found.warnings) == 1
    assert found.warnings[0].startswith("left out: 2 .cr2, 1 .svg, 1 without suffix, 1 .nef (first 3.svg); save them")
    assert found.failures == (Failure("s2", "has no pictures but 1 .cr2, 1 .nef"),)
    assert [item.name for item in found.items] == ["s0/n/1.jpg", "s1/n/1.jfif"]
    with refused(InputError, "that can be read, not 1 .cr2"):
        read_layout("folders", put("s2/n/1.cr2", root=tmp_path / "raw"))


def test_loose_files_give_one_clip_a_folder_and_one_a_video_in_natural_order(tmp_path, put, facts, refuses):
    root, names = tmp_path / "mine", ("img10.jpg", "img2.PNG", "talk.mp4", ".hidden.jpg", "notes.txt")
    put(*names, "b/1.png", "b/film.avi", "mine/1.png", root=root)
    assert facts("loose", root, "name video frame row", subject="s1") == [
        ("b/1.png", "b", 0, 0),
        ("b/film.avi", "b/film.avi", 0, 1),
        ("mine/1.png", "mine", 0, 2),  # a folder of the same name inside is another clip
        ("img2.PNG", "mine/", 0, 3),
        ("img10.jpg", "mine/", 1, 4),
        ("talk.mp4", "talk.mp4", 0, 5),
    ]
    assert set(facts("loose", root, "subject label at", subject="s1")) == {("s1", None, None)}
    assert facts("loose", root / "img10.jpg", "name") == ["img10.jpg"]
    put("notes.txt", "empty/.jpg")
    for name in ("notes.txt", "empty", "nosuch"):
        refuses("loose", tmp_path / name)
    with pytest.raises(ConfigError, match="subject"):
        read_layout("loose", root, person="s1")


def test_files_are_loose_at_most_one_folder_down_and_stills_are_told_where_there_are_several(tmp_path, put):
    trees = {"a.jpg": True, "clip/a.jpg": True, "clip/a.mp4": True}
    trees |= {"s1/neutral/a.jpg": False, "a.jpg manifest.csv": False, "notes.txt": False}
    for number, (names, loose) in enumerate(trees.items()):
        assert is_loose(put(*names.split(), root=tmp_path / str(number))) is loose
    told = []
    folder = put("KA.NE1.26.png", "KA.NE2.27.png", root=tmp_path / "rest")
    for source in (folder, folder / "KA.NE1.26.png"):
        read_inputs(source, InputConfig(layout="loose"), beside=tmp_path / "cache.h5", notify=told.append)
    assert [line for line in told if "stills" in line] == [STILLS.format(2)]


def test_the_end_of_a_name_is_the_class(put, facts, tmp_path):
    put("sub2/Image1_N.jpg", "sub2/Image2_P.jpg", "sub1/Image10_N.jpg", "sub1/Image9_N.jpg", "sub1/Image3_P.jpg")
    assert facts("sfda-pft", tmp_path, "subject label video frame name row") == [
        ("sub1", "neutral", "neutral", 0, "sub1/Image9_N.jpg", 0),
        ("sub1", "neutral", "neutral", 1, "sub1/Image10_N.jpg", 1),
        ("sub1", "pain", "pain", 0, "sub1/Image3_P.jpg", 2),
        ("sub2", "neutral", "neutral", 0, "sub2/Image1_N.jpg", 3),
        ("sub2", "pain", "pain", 0, "sub2/Image2_P.jpg", 4),
    ]
    assert detect_layout(tmp_path) == "sfda-pft"
    assert detect_layout(put("sub1/img_Np.jpg")) is None
    # A folder a recording is a clip.
    root = put("sub1/a/1_N.jpg", "sub1/b/1_N.jpg", "sub1/b/2_P.jpg", root=tmp_path / "more")
    clips = [("a/neutral", 0), ("b/neutral", 0), ("b/pain", 0)]
    assert facts("sfda-pft", root, "video frame") == clips
