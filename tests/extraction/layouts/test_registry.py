"""Layouts by name; what is wrong with any table is shown once, by the manifests of the plain layouts."""

import importlib.metadata

import pytest

from featlab.config.options import options_of
from featlab.errors import ConfigError, InputError
from featlab.extraction.items import Item
from featlab.extraction.layouts import LAYOUTS, detect_layout, read_layout, register_layout, resolve_layout

NAMES = ["manifest", "folders", "biovid", "stressid", "bah", "aff-wild2", "fer2013", "expw", "raf-db", "sfda-pft"]


def test_every_layout_of_the_list_is_there_and_says_what_it_expects():
    assert set(NAMES) <= set(LAYOUTS.names())
    for layout in map(LAYOUTS.get, LAYOUTS.names()):
        assert layout.neutral == "neutral"
        assert {"::", "ROOT/"} <= set(layout.description.split())
        assert all(one.help for one in options_of(layout.options).values())


def test_a_name_or_an_option_that_does_not_fit_is_refused(tmp_path, refused):
    for name, options, says in (
        ("biovit", {}, "did you mean 'biovid'"),
        ("biovid", {"levles": "BL1"}, "unknown key biovid.levles; did you mean 'levels'"),
        ("biovid", {"levels": "PA4"}, "must have BL1"),
        ("aff-wild2", {"drop": "Other"}, "did you mean 'other'"),
        ("folders", {"depth": 2}, "unknown key folders.depth; known: none"),
        ("raf-db", {"images": "original"}, "raf-db.images is no more: the aligned faces are read"),
    ):
        with refused(ConfigError, says):
            read_layout(name, tmp_path, **options)
    for name in ("biovid", "auto", ""):
        with refused(ConfigError, "taken or empty"):
            register_layout(name, title="x", subject="x")(lambda root, options: [])


def test_an_empty_folder_a_missing_one_and_a_file_are_refused_in_one_line(put, tmp_path, refuses):
    file, empty = put("readme.txt") / "readme.txt", tmp_path / "empty"
    empty.mkdir()
    for name in NAMES:
        for root, says in ((empty, "expected"), (tmp_path / "gone", "no such file or folder"), (file, "readme.txt")):
            refuses(name, root, says)


def test_a_name_that_cannot_be_stored_is_refused(tmp_path):
    (tmp_path / "s1").mkdir()
    try:
        (tmp_path / "s1" / "a\udcff_N.jpg").write_bytes(b"x")
    except (OSError, UnicodeEncodeError):
        pytest.skip("this file system takes UTF-8 names only")
    with pytest.raises(InputError, match="characters that can't be stored"):
        read_layout("sfda-pft", tmp_path)


def test_a_function_becomes_a_layout_and_another_package_brings_its_own(monkeypatch, tmp_path, refused):
    monkeypatch.setattr(LAYOUTS, "found", dict(LAYOUTS.found))
    plugins = {"theirs": "other_package_layouts", "empty": "json", "gone": "no_such_module_at_all"}
    points = {name: importlib.metadata.EntryPoint(name, value, LAYOUTS.group) for name, value in plugins.items()}
    monkeypatch.setitem(LAYOUTS.__dict__, "plugins", points)
    assert set(LAYOUTS.names()) >= plugins.keys()
    for name in ("mine", "theirs"):  # The second as importing their module would.

        @register_layout(name, title="x", subject="a person", neutral="rest")
        def read(root, options, name=name):
            return [Item(root / "a.png", "a.png", name, "rest", "v", 0)]

        assert LAYOUTS.get(name).neutral == "rest"
        assert [(item.subject, item.row) for item in read_layout(name, tmp_path)] == [(name, 0)]
    assert "mine" in LAYOUTS.names()
    assert detect_layout(tmp_path) is None, "one that is broken hinders nobody"
    for name, says in (("empty", "(json) registers no layout of that name"), ("gone", "can't be loaded")):
        with refused(ConfigError, f"plug-in '{name}'", says):
            LAYOUTS.get(name)


def test_auto_takes_what_the_source_looks_like(put, tmp_path, refused):
    put("plain/s1/neutral/1.png", "with/s1/neutral/1.png", "list.txt")
    put("with/manifest.csv", "list.csv", text="path,subject\na.png,s1\n")
    put("faces.csv", text="emotion,pixels,Usage\n")
    for asked, name, layout, source in (
        ("auto", "plain", "folders", "plain"),
        ("auto", "with", "manifest", "with/manifest.csv"),
        ("manifest", "with", "manifest", "with/manifest.csv"),
        ("folders", "with", "folders", "with"),
        ("auto", "list.csv", "manifest", "list.csv"),
        ("auto", "faces.csv", "fer2013", "faces.csv"),
    ):
        assert resolve_layout(asked, tmp_path / name) == (LAYOUTS.get(layout), tmp_path / source)
    with refused(InputError, "expected a manifest"):
        resolve_layout("auto", tmp_path / "list.txt")
    with refused(InputError, "gone: no such file or folder"):
        read_layout("auto", tmp_path / "gone")
    # What looks like two layouts is not guessed.
    both = put("both/071309_w_21/071309_w_21-BL1-081.mp4") / "both"
    assert detect_layout(both) == "biovid"
    put("both/labels.csv", text="subject/task,binary-stress\n")
    assert detect_layout(both) is None


BAH = "Videos/82725/Visite_1/82725_Question_1_2024-11-19_15-12-23_Video.mp4"
# The file with the list, and the files beside it.
FILES = {
    "aff-wild2": ("EXPR_Challenge/Train_Set/v.txt", *(f"cropped_aligned/v/0000{place}.jpg" for place in range(1, 6))),
    "bah": ("split/train.txt", BAH),
    "bah frames": ("split-frames/train.txt", f"cropped-aligned-faces/{BAH}/frame-0.jpg"),
    "biovid": ("samples.csv", "video/x_w_1/x_w_1-BL1-081.mp4", "video/x_w_1/x_w_1-PA4-081.mp4"),
    "expw": ("label/label.lst", "image/origin/b.jpg"),
    "fer2013": ("fer2013.csv",),
    "raf-db": ("EmoLabel/list_patition_label.txt", "Image/aligned/train_00001_aligned.jpg"),
    "stressid": ("labels.csv", "Videos/2ea4/2ea4_Baseline.mp4", "Videos/2ea4/2ea4_Math.mp4"),
}
# The first line of a list that has one.
HEADS = {
    "aff-wild2": "Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other\n",
    "fer2013": "emotion,pixels,Usage\n",
    "stressid": "subject/task,binary-stress\n",
}
# The layout, the text of its list ("+" stands for the first line), and what is said of it.
LISTS = (
    ("aff-wild2", "0\n1\n", "line 1: expected the names of the classes (Neutral,Anger,…), found '0'"),
    ("aff-wild2", "+8\n", "line 2: expected a whole number from -1 to 7, found '8'"),
    ("aff-wild2", "+0\n1\n", "has 2 lines, and", "has 5 numbered images up to 5; they don't belong together"),
    ("bah", "Videos/1/v.mp4,2,text\n", "line 1: expected VIDEO,LABEL,TRANSCRIPT with the label 0 or 1"),
    ("bah", "v.mp4,0,text\n", "expected a path Videos/SUBJECT/…"),
    ("bah", "Videos/v.mp4,0,text\n", "expected a path Videos/SUBJECT/…"),
    ("bah", "\n", "is empty"),
    ("bah frames", f"{BAH}/first.jpg,0\n", "line 1: the image 'first.jpg' has no number at its end"),
    ("bah frames", f"{BAH}/frame-1.jpg\n", "line 1: expected IMAGE,LABEL"),
    ("biovid", "sample_name\na_w_1-BL1\n", "line 2: the sample_name 'a_w_1-BL1' isn't SUBJECT-LEVEL-NUMBER"),
    ("biovid", "subject_name\tclass_name\tsample\nx\ty\tz\n", "no column 'sample_name' "),
    ("biovid", "sample_name\na_w_1-BL1-001\na_w_1-PA4-001\n", "none of the 2 files that samples.csv lists"),
    ("expw", "a.jpg 0 1 2 3 4 50\n", "line 1: expected image face top left"),
    ("expw", "a.jpg 0 1 2 30 40 50 7\n", "line 1: expected image face top left"),
    ("expw", "a.jpg 0 10 20 20 40 50 6\n", "line 1: the box is empty"),
    ("expw", "a.jpg 0 1 2 9 9 90 6\nc.jpg 0 1 2 9 9 90 6\n", "none of the 2 files that label/label.lst lists is there"),
    ("fer2013", "", "line 1: no column 'pixels'"),
    ("fer2013", "emotion,pixel,Usage\n", "'pixels' (found: emotion, pixel, usage); did you mean 'pixel'"),
    ("fer2013", "+", "has a header and no rows"),
    ("fer2013", "+6,1 2\n", "line 2: 2 values under 3 columns"),
    ("fer2013", "+6,1 2,Training\n7,1 2,Training\n", "line 3: the emotion '7' isn't a whole number"),
    ("fer2013", "+6,1 2,\n", "line 2: the Usage is empty"),
    ("raf-db", "train_00001.jpg 8\n", "line 1: expected train_… or test_… and a number from 1 to 7"),
    ("raf-db", "x_1.jpg 7\n", "line 1: expected train_… or test_… and a number from 1 to 7"),
    ("raf-db", "train_9.jpg 7\n", "none of the 1 files that list_patition_label.txt lists is there"),
    ("stressid", "subject/task,stress\n2ea4_Math,1\n", "no column 'binary-stress' (found: subject/task, stress)"),
    ("stressid", "+2ea4_Stroop,1\n2ea4_Math,2\n", "line 3: binary-stress is '2', expected 0 to 1 or nothing"),
    ("stressid", "+x_Math,1\n", "none of the 2 recordings is in labels.csv: the first is 2ea4_Base"),
)
# The layout, files of another tree, and what is said of it.
TREES = (
    ("bah", BAH, "expected split-frames/train.txt", "found Videos/"),
    ("biovid", "video/s1/rest.mp4", "expected video/SUBJECT/SUBJECT-LEVEL-NUMBER.mp4", "found video/s1/ with rest.mp4"),
    ("biovid", "a/a_w_1-BL1-081.mp4 a/a_w_1-PA1-001.mp4", "no sample of level PA4 (there are: BL1 1, PA1 1)"),
    ("biovid", "a/a_w_1-BL1-081.mp4 b/a_w_1-BL1-081.mp4", "a_w_1-BL1-081 is there twice"),
    ("biovid", "a/a_w_1-BL1-081.mp4 a/a_w_1-BL1-081/1.png", "a_w_1-BL1-081 is there twice"),
    ("stressid", "2ea4/2ea4_Math/frame10.jpg", "expected labels.csv with the column subject/task"),
    ("stressid", "labels.csv Videos/2ea4/math.txt", "found Videos/ with 2ea4/"),
    ("expw", "image/origin/a.jpg", "expected label/label.lst"),
    ("raf-db", "photos/a.jpg photos/b.jpg notes.txt .hidden", "expected EmoLabel/list_", "found photos/, notes.txt"),
    ("raf-db", " ".join(f"x{place}.txt" for place in range(9)), "found x0.txt, x1.txt, x2.txt, x3.txt and 5 more"),
    ("sfda-pft", "sub1/notes.txt", "expected SUBJECT/IMAGE_N.jpg", "found sub1/ with notes.txt"),
    ("sfda-pft", "s/1_N.jpg s/img_Np.jpg", "expected names that end in _N or _P, found s/img_Np.jpg"),
)


def test_a_list_that_does_not_fit_is_refused(put, refuses, tmp_path):
    for key, text, *words in LISTS:
        listed, *others = FILES[key]
        root = put(*others, root=tmp_path / key)
        if text.startswith("+"):
            text = HEADS[key] + text[1:]
        refuses(key.removesuffix(" frames"), put(listed, text=text, root=root), *words)


def test_a_tree_of_another_data_set_is_refused(put, refuses, tmp_path):
    for number, (layout, names, *words) in enumerate(TREES):
        refuses(layout, put(*names.split(), text=HEADS["stressid"], root=tmp_path / str(number)), *words)
