"""init, extract, inspect, verify."""

import json
import tomllib

import numpy as np
import pytest
from PIL import Image

from featlab.config.load import Config, load_config


@pytest.fixture
def faces(tmp_path, monkeypatch):
    """A manifest of 8 small pictures of 2 people, with landmarks beside it."""
    rng = np.random.default_rng(1)
    lines = ["path,subject,label,video,frame"]
    for subject in ("anna", "bo"):
        for label in ("neutral", "smile"):
            for frame in range(2):
                name = f"{subject}-{label}-{frame}.png"
                Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(tmp_path / name)
                lines.append(f"{name},{subject},{label},{label},{frame}")
    (tmp_path / "manifest.csv").write_text("\n".join(lines) + "\n")
    np.save(tmp_path / "landmarks.npy", rng.uniform(0, 32, (8, 68, 2)).astype(np.float32))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_init_uncommented_is_the_default_configuration(tmp_path, run):
    assert run("init", str(tmp_path / "new")).exit_code == 0
    path = tmp_path / "new" / "featlab.toml"
    text = path.read_text()
    assert load_config(path) == Config()
    lines = [line.removeprefix("# ") for line in text.splitlines()]
    path.write_text("\n".join(lines))
    assert load_config(path) == Config()
    written = tomllib.loads(path.read_text())
    for section, part in Config().to_dict().items():
        expected = set(part) - {"options"} if isinstance(part, dict) else None
        assert section in written
        assert expected is None or set(written[section]) == expected


def test_init_replaces_a_file_only_when_told(tmp_path, run, refused):
    (tmp_path / "featlab.toml").write_text('cache = "mine.h5"\n')
    assert "--force" in refused("init", str(tmp_path))
    assert "mine.h5" in (tmp_path / "featlab.toml").read_text()
    assert run("init", str(tmp_path), "--force").exit_code == 0
    assert "mine.h5" not in (tmp_path / "featlab.toml").read_text()


def test_extract_finds_the_landmarks_and_says_so(faces, run, run_json):
    result = run("extract", "manifest.csv", "--option", "size=16", "--jobs", "1")
    assert result.exit_code == 0, result.stderr
    assert "landmarks.npy" in result.stderr
    summary = run_json("inspect")
    assert (summary["rows"], summary["landmarks"]) == (8, 68)
    assert summary["extractor"]["preprocessing"].startswith("grey 16x16")


def test_a_folder_with_a_manifest_is_read_through_it(faces, run_json):
    data = run_json("extract", ".", "--backbone", "geometry", "--out", "geometry.h5", "--jobs", "1", "--quiet")
    assert (data["rows"], data["subjects"], data["dim"], data["failures"]) == (8, 2, 136, 0)


def test_an_unreadable_image_is_listed_and_ends_in_3(faces, run):
    (faces / "bo-smile-1.png").write_bytes(b"no picture")
    result = run("extract", "manifest.csv", "--landmarks", "none", "--option", "size=16", "--jobs", "1", "--json")
    assert result.exit_code == 3
    data = json.loads(result.stdout)
    assert (data["rows"], data["failures"]) == (7, 1)
    assert "bo-smile-1.png" in result.stderr
    assert "bo-smile-1.png" in (faces / data["failures_file"]).read_text()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("nosuch.csv",), "nosuch.csv"),
        (("manifest.csv", "--backbone", "hgo"), "did you mean 'hog'"),
        (("manifest.csv", "--option", "cel=4"), "did you mean 'cell'"),
        (("manifest.csv", "--option", "cell"), "key=value"),
        (("manifest.csv", "--landmarks", "nosuch.npy"), "nosuch.npy"),
        (("manifest.csv", "--neutral", "neutrl", "--landmarks", "none"), "did you mean 'neutral'"),
        (("manifest.csv", "--dtype", "float8"), "float8"),
        (("manifest.csv", "--if-exists", "maybe", "--landmarks", "none"), "maybe"),
    ],
)
def test_a_bad_extraction_is_refused(faces, refused, words, expected):
    assert expected in refused("extract", "--quiet", *words)


def test_inspect_and_verify_take_the_workspaces_cache(folder, run, run_json):
    (folder / "featlab.toml").write_text('cache = "other.h5"\n')
    (folder / "cache.h5").rename(folder / "other.h5")
    assert run_json("inspect")["rows"] == 192
    assert run_json("verify") == {"path": "other.h5", "ok": True, "findings": []}
    assert "192" in run("inspect").stdout


def test_verify_names_each_finding_and_ends_in_2(folder, run):
    import h5py

    with h5py.File("cache.h5", "r+") as file:
        file["embeddings"][3] = np.nan
    result = run("verify", "--json")
    assert result.exit_code == 2
    data = json.loads(result.stdout)
    assert not data["ok"]
    assert len(result.stderr.splitlines()) == len(data["findings"]) >= 1


@pytest.mark.parametrize("command", [("inspect",), ("adapt", "--subject", "s041"), ("train",), ("evaluate",)])
def test_a_truncated_cache_is_refused(folder, refused, command):
    data = (folder / "cache.h5").read_bytes()
    (folder / "cache.h5").write_bytes(data[: len(data) // 2])
    assert "cache.h5" in refused(*command)


@pytest.mark.parametrize("command", [("inspect",), ("verify",), ("pair",), ("adapt", "--subject", "s041")])
def test_a_missing_cache_is_refused(tmp_path, monkeypatch, refused, command):
    monkeypatch.chdir(tmp_path)
    assert "featlab extract" in refused(*command)
    assert "nosuch.h5" in refused(*command, "--cache", "nosuch.h5")
