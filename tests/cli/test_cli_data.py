"""init, layouts, extract, import, inspect, verify."""

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from featlab.config.load import config_template
from featlab.extraction.backbones.builtin import template
from featlab.extraction.layouts import LAYOUTS


@pytest.fixture
def faces(tmp_path, monkeypatch, make_tree):
    """The current folder: a manifest of 8 small pictures of 2 people, with landmarks beside it."""
    monkeypatch.chdir(make_tree(tmp_path, frames=2, side=32))
    names = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.png"))
    lines = [f"{name},{name.split('/')[0]},{name.split('/')[1]},{name.split('/')[1]},{name[-5]}" for name in names]
    Path("manifest.csv").write_text("\n".join(["path,subject,label,video,frame", *lines]))
    shapes = template(68) * np.random.default_rng(1).uniform(10, 14, (8, 1, 2)) + 16
    np.save("landmarks.npy", shapes.astype(np.float32))


def test_init_writes_the_default_configuration_and_replaces_a_file_only_when_told(tmp_path, run_well, refused):
    path = tmp_path / "featlab.toml"
    path.write_text('cache = "mine.h5"\n')
    assert "--force" in refused("init", str(tmp_path))
    assert "mine.h5" in path.read_text()
    run_well("init", str(tmp_path), "--force")
    # What stands in it is tested with the template itself.
    assert path.read_text() == config_template()


def test_layouts_are_listed_and_one_shows_its_tree_and_its_options(run_well, run_json, refused):
    shown, plain = run_well("layouts", "biovid").stdout, run_well("layouts", "folders").stdout
    for words in ("071309_w_21-BL1-081.mp4", "Options", "levels=BL1,PA4", "merge=true", "from 2 to 5 s"):
        assert words in shown
    assert ("Options" in plain, "every frame" in plain) == (False, True)
    by_name = {entry["name"]: entry for entry in run_json("layouts")["layouts"]}
    assert set(by_name) == set(LAYOUTS.names())
    assert by_name["biovid"]["sampling"] == {"fps": None, "window": [2.0, 5.0], "stride": 1}
    assert by_name["biovid"]["options"]["levels"]["default"] == ["BL1", "PA4"]
    one = run_json("layouts", "stressid")
    assert (one["neutral"], "labels.csv" in one["description"]) == ("neutral", True)
    assert "did you mean 'biovid'" in refused("layouts", "biovit")


def test_extract_finds_landmarks_reads_a_folder_through_its_manifest_and_lists_failures(faces, run_well, run_json):
    result = run_well("extract manifest.csv --option size=16 --jobs 1")
    assert "landmarks.npy" in result.stderr
    summary = run_json("inspect")
    assert (summary["rows"], summary["landmarks"]) == (8, 68)
    assert summary["extractor"]["preprocessing"].startswith("grey 16x16")
    data = run_json("extract . --backbone geometry --out geometry.h5 --jobs 1 --quiet")
    assert (data["rows"], data["subjects"], data["dim"], data["failures"]) == (8, 2, 136, 0)
    # An unreadable image is listed.
    Path("s1/smile/img1.png").write_bytes(b"no picture")
    data = run_json("extract manifest.csv --landmarks none --option size=16 --jobs 1 --out few.h5", code=3)
    assert (data["rows"], data["failures"], "s1/smile/img1.png" in data.stderr) == (7, 1, True)
    assert "s1/smile/img1.png" in Path(data["failures_file"]).read_text()


def test_refusals_of_extract(faces, refusals):
    table = {
        "nosuch.csv": "nosuch.csv",
        "manifest.csv --backbone hgo": "did you mean 'hog'",
        "manifest.csv --option cel=4": "did you mean 'cell'",
        "manifest.csv --option cell": "key=value",
        "manifest.csv --backbone pt2:net.pt2": "is a program, not weights alone",
        "manifest.csv --dtype float8": "float8",
        "manifest.csv --if-exists maybe --landmarks none": "maybe",
    }
    refusals(table, "extract --quiet")


IMPORT = "import features.csv --neutral rest"


@pytest.fixture
def card(tmp_path, monkeypatch):
    """8 rows of 2 people in features.csv."""
    lines = ["subject,label,video,frame,f0,f1"]
    for subject in ("anna", "bo"):
        for label in ("rest", "smile"):
            lines += [f"{subject},{label},{label},{frame},{frame / 8},{len(lines)}" for frame in range(2)]
    (tmp_path / "features.csv").write_text("\n".join(lines) + "\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "features.csv"


def test_import_says_what_it_made_and_lists_the_rows_that_are_left_out(card, run_well, run_json):
    result = run_well(IMPORT, "--out", "cache.h5")
    assert result.stderr == ""
    shown = ("cache.h5", "rows       8", "subjects   2", "videos     4", "rest, smile", "imported: 2 imported columns")
    assert all(words in result.stdout for words in shown)
    data, again = (run_json(f"{IMPORT} --extractor mine --dtype float16 --columns f1 --out mine.h5") for _ in range(2))
    assert [data[key] for key in ("path", "rows", "dim", "extractor")] == ["mine.h5", 8, 1, "mine"]
    assert (data["failures_file"], data["float16_error"]) == (None, 0)
    assert (again["was_there"], again["digest"]) == (True, data["digest"])
    np.save("x.npy", np.ones((8, 3)))
    np.save("points.npy", np.ones((8, 2, 2)))
    data = run_json("import x.npy --manifest features.csv --neutral rest --landmarks points.npy --out x.h5")
    assert (data["dim"], data["landmarks"]) == (3, 2)
    with card.open("a") as file:
        file.write("bo,smile,smile,7,nan,1\n")
    data = run_json(IMPORT, "--skip-bad", "--out", "few.h5", code=3)
    assert (data["rows"], data["failures"]) == (8, 1)
    assert "features.csv#row=8: f0 is missing" in data.stderr
    assert "features.csv#row=8" in Path(data["failures_file"]).read_text()


def test_inspect_and_verify_take_the_workspaces_cache_and_name_each_finding(folder, run, run_json, run_well):
    Path("featlab.toml").write_text('cache = "other.h5"\n')
    Path("cache.h5").rename("other.h5")
    assert run_json("inspect")["rows"] == 192
    assert run_json("verify") == {"path": "other.h5", "ok": True, "findings": [], "warnings": []}
    assert "192" in run_well("inspect").stdout
    with h5py.File("other.h5", "r+") as file:
        file["label"][3] ^= 1
    # Whoever reads all of it finds out, and no result is made of it; whatever it is called.
    shutil.copy("other.h5", "copy.hdf5")
    for words in ("train", "evaluate --targets 2", "pair", "verify copy.hdf5"):
        result = run(*words.split())
        assert (result.exit_code, "not what was written" in result.stderr.splitlines()[-1]) == (2, True)
    Path("copy.hdf5").unlink()
    result = run("verify", ".")
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 2)
    assert "warning: no digest tells whether these are whole: featlab.toml" in result.stderr
    with h5py.File("other.h5", "r+") as file:
        file["embeddings"][3] = np.nan
    data = run_json("verify", code=2)
    assert len(data.stderr.splitlines()) == len(data["findings"]) >= 1
