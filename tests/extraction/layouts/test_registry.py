import importlib.metadata
import sys
import types

import pytest

from featlab.config.options import options_of
from featlab.errors import ConfigError, InputError
from featlab.extraction.items import Item
from featlab.extraction.layouts import LAYOUTS, detect_layout, read_layout, register_layout, resolve_layout

NAMES = ["manifest", "folders", "biovid", "stressid", "bah", "aff-wild2", "fer2013", "expw", "raf-db", "sfda-pft"]


def test_every_layout_of_the_list_is_there_and_says_what_it_expects():
    assert set(NAMES) <= set(LAYOUTS.names())
    unchecked = set()
    for name in LAYOUTS.names():
        layout = LAYOUTS.get(name)
        assert (layout.name, layout.neutral) == (name, "neutral")
        assert "::" in layout.description
        assert "ROOT/" in layout.description
        assert "Args:" not in layout.description
        declared = options_of(layout.options)
        assert all(one.help for one in declared.values())
        unchecked |= {f"{name}.{key}" for key, one in declared.items() if one.choices is None and one.minimum is None}
        layout.options()
    # A value that is none of the choices, or too small, is refused where options are tested.
    free = {"aff-wild2.media", "biovid.merge", "loose.subject", "sfda-pft.labels", "stressid.tasks"}
    assert unchecked == free


def test_a_name_or_an_option_that_does_not_fit_is_refused(tmp_path, refused):
    for name, options, says in (
        ("biovit", {}, "did you mean 'biovid'"),
        ("biovid", {"levles": "BL1"}, "unknown key biovid.levles; did you mean 'levels'"),
        ("biovid", {"levels": "PA4"}, "must have BL1"),
        ("aff-wild2", {"drop": "Other"}, "did you mean 'other'"),
        ("sfda-pft", {"labels": "N"}, "isn't LETTERS=CLASS"),
        ("folders", {"depth": 2}, "the layout folders has no options"),
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

    def add(name):
        @register_layout(name, title="x", subject="a person", neutral="rest")
        def read(root, options):
            return [Item(root / "a.png", "a.png", name, "rest", "v", 0, 0)]

    add("mine")
    assert LAYOUTS.names()[-1] == "mine"
    assert LAYOUTS.get("mine").neutral == "rest"
    assert read_layout("mine", tmp_path)[0].subject == "mine"
    assert detect_layout(tmp_path) is None
    module = types.ModuleType("other_package_layouts")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    plugins = {
        name: importlib.metadata.EntryPoint(name, value, LAYOUTS.group)
        for name, value in (("theirs", module.__name__), ("empty", "json"), ("gone", "no_such_module_at_all"))
    }
    monkeypatch.setitem(LAYOUTS.__dict__, "plugins", plugins)
    assert set(LAYOUTS.names()) >= {"theirs", "empty", "gone"}
    add("theirs")  # as importing the module would
    assert read_layout("theirs", tmp_path)[0].subject == "theirs"
    for name, says in (
        ("empty", "plug-in 'empty' (json) registers no layout of that name"),
        ("gone", "can't be loaded"),
    ):
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
