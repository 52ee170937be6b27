"""The builder: whole files, the same for any number of processes, resumable person by person."""

from __future__ import annotations

import csv
import dataclasses
import functools
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from featlab.errors import ConfigError, InputError
from featlab.extraction.faces.landmarks import find_landmarks, read_landmarks
from featlab.extraction.london import LondonConfig, build_london
from featlab.extraction.sources import read_source

CONFIG = LondonConfig(people=None, size=32, mesh_info="a made-up mesh")
NEUTRAL_HEIGHT, SMILING_HEIGHT = 60, 64


def face(smiling: bool) -> NDArray[np.float32]:
    rng = np.random.default_rng(9)
    points = rng.uniform((12, 10), (48, 56), (478, 2))
    points[[33, 133, 362, 263]] = [(15, 25), (25, 25), (35, 25), (45, 25)]
    points[17] = (30, 48)
    if smiling:
        points[points[:, 1] > 40] += (1.5, -4.0)
    return points.astype(np.float32)


def mesh(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Tells the photographs apart by their height; an all-black one shows nobody."""
    if image.max() < 30:
        return np.full((478, 2), np.nan, dtype=np.float32)
    return face(smiling=image.shape[0] == SMILING_HEIGHT)


def photograph(path: Path, seed: int, height: int) -> None:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((60, height), Image.Resampling.BICUBIC).save(path, quality=95)


def download(folder: Path) -> Path:
    folder.mkdir()
    for number in (1, 2, 5):
        photograph(folder / f"{number:03d}_03.jpg", 2 * number, NEUTRAL_HEIGHT)
        photograph(folder / f"{number:03d}_08.jpg", 2 * number + 1, SMILING_HEIGHT)
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return download(tmp_path / "download")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished set, not to be changed."""
    root = tmp_path_factory.mktemp("london")
    build_london(download(root / "download"), root / "set", mesh, CONFIG)
    return root / "set"


@pytest.fixture
def out(whole: Path, tmp_path: Path) -> Path:
    """A copy of a finished set."""
    return shutil.copytree(whole, tmp_path / "out")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def frames(folder: Path, subject: str = "s") -> dict[str, bytes]:
    return {name: data for name, data in contents(folder / "frames").items() if name.startswith(subject)}


def test_the_set_has_the_columns_and_names_of_london_morph(whole: Path) -> None:
    with (whole / "manifest.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["path", "subject", "label", "video", "frame", "intensity"]
    assert rows[49] | {"intensity": ""} == {
        "path": "frames/s002-neutral-a-01.jpg",
        "subject": "s002",
        "label": "neutral",
        "video": "s002-neutral-a",
        "frame": "1",
        "intensity": "",
    }
    assert [row["video"] for row in rows[:48:12]] == [
        "s001-neutral-a",
        "s001-neutral-b",
        "s001-smile-a",
        "s001-smile-b",
    ]
    for row in rows:
        low, high = (0, 0.15) if row["label"] == "neutral" else (0.12, 0.75)
        assert low <= float(row["intensity"]) <= high
        with Image.open(whole / row["path"]) as image:
            assert (image.size, image.format) == ((32, 32), "JPEG")


def test_the_set_is_a_source_of_extraction_with_its_landmarks(whole: Path) -> None:
    manifest = whole / "manifest.csv"
    items = read_source(manifest)
    path = find_landmarks(manifest)
    assert path is not None
    landmarks = read_landmarks(path, len(items))
    assert landmarks.shape == (144, 68, 2)
    # Corners of the eyes: where the crop puts them, but for the head's walk.
    corners = landmarks[:, [36, 39, 42, 45]].reshape(144, 2, 2, 2).mean(axis=2)
    np.testing.assert_allclose(corners.mean(axis=(0,)), [(10.24, 12.8), (21.76, 12.8)], atol=0.4)
    # A smile lifts what the mesh lifts, more in smiling clips than in neutral ones.
    lift = landmarks[:, 36, 1] - landmarks[:, 57, 1]
    smiling = np.array([item.label == "smile" for item in sorted(items, key=lambda item: item.row)])
    assert lift[smiling].mean() > lift[~smiling].mean() + 0.1


def test_two_processes_write_the_same_bytes_as_one(photos: Path, tmp_path: Path) -> None:
    # A callable that another process can unpickle, whatever the tests are imported as: an attribute's lookup, of which
    # the image is only the default.
    anyone = functools.partial(getattr, SimpleNamespace(mesh=face(smiling=False)), "mesh")
    calls: list[tuple[int, int, int]] = []
    config = LondonConfig(people=(1, 2), size=32)
    build_london(photos, tmp_path / "one", anyone, config)
    build_london(photos, tmp_path / "two", anyone, config, jobs=2, on_progress=lambda *now: calls.append(now))
    assert calls == [(1, 2, 0), (2, 2, 0)]
    one, two = contents(tmp_path / "one"), contents(tmp_path / "two")
    assert one.keys() == two.keys()
    # The part files are archives with times in them.
    assert {name: data for name, data in one.items() if "parts/" not in name} == {
        name: data for name, data in two.items() if "parts/" not in name
    }


def test_a_persons_clips_do_not_depend_on_who_else_is_there(photos: Path, whole: Path, tmp_path: Path) -> None:
    build_london(photos, tmp_path / "one", mesh, LondonConfig(people=(5,), size=32))
    assert frames(tmp_path / "one") == frames(whole, "s005")


def test_a_killed_run_leaves_no_manifest_and_goes_on(photos: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def stop(done: int, total: int, failed: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_london(photos, out, mesh, CONFIG, on_progress=stop)
    assert not (out / "manifest.csv").exists()
    seen: list[int] = []

    def watched(image: NDArray[np.uint8]) -> NDArray[np.float32]:
        seen.append(image.shape[0])
        return mesh(image)

    report = build_london(photos, out, watched, CONFIG)
    assert report.resumed == 2
    assert seen == [NEUTRAL_HEIGHT, SMILING_HEIGHT]
    for name in ("manifest.csv", "landmarks.npy", "README.md"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()
    assert frames(out) == frames(whole)


def test_a_run_that_is_killed_over_a_finished_set_leaves_no_manifest_either(photos: Path, out: Path) -> None:
    def stop(*now: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_london(photos, out, mesh, CONFIG, on_progress=stop)
    assert not (out / "manifest.csv").exists()


def test_a_finished_set_is_not_drawn_again(photos: Path, out: Path, whole: Path) -> None:
    def unasked(image: NDArray[np.uint8]) -> NDArray[np.float32]:
        raise AssertionError("the mesh was asked for")

    report = build_london(photos, out, unasked, CONFIG)
    assert (report.subjects, report.rows, report.resumed, report.failures) == (("s001", "s002", "s005"), 144, 3, ())
    assert contents(out) == contents(whole)


@pytest.mark.parametrize("damage", ["frame", "part", "photograph"])
def test_what_is_damaged_or_stale_is_drawn_again(photos: Path, out: Path, whole: Path, damage: str) -> None:
    if damage == "frame":
        (out / "frames" / "s002-smile-b-07.jpg").unlink()
    elif damage == "part":
        (out / "parts" / "s002.npz").write_bytes((whole / "parts" / "s002.npz").read_bytes()[:500])
    else:
        photograph(photos / "002_08.jpg", 77, SMILING_HEIGHT)
    assert build_london(photos, out, mesh, CONFIG).resumed == 2
    same = {name: data == frames(whole)[name] for name, data in frames(out).items()}
    assert same.keys() == frames(whole).keys()
    assert all(equal for name, equal in same.items() if not name.startswith("s002"))
    assert all(equal for name, equal in same.items() if name.startswith("s002")) == (damage != "photograph")


@pytest.mark.parametrize("values", [{"seed": 1}, {"size": 34}, {"mesh_info": "another mesh"}])
def test_other_settings_draw_everything_again(
    photos: Path, out: Path, whole: Path, values: dict[str, int | str]
) -> None:
    config = dataclasses.replace(CONFIG, people=(1,), **values)  # type: ignore[arg-type]
    report = build_london(photos, out, mesh, config)
    assert (report.subjects, report.resumed) == (("s001",), 0)
    ours, others = frames(out, "s001"), frames(whole, "s001")
    # Another mesh's name says that the clips may differ; this one's points are the same.
    assert all((ours[name] == others[name]) == ("mesh_info" in values) for name in others)
    # Those who aren't asked for are in no manifest.
    assert len(np.load(out / "landmarks.npy")) == 48


def test_people_without_photograph_or_face_are_listed_and_the_others_are_drawn(photos: Path, tmp_path: Path) -> None:
    (photos / "001_08.jpg").unlink()
    Image.new("RGB", (60, SMILING_HEIGHT)).save(photos / "002_08.jpg")
    (photos / "006_03.jpg").write_bytes(b"no picture")
    photograph(photos / "006_08.jpg", 3, SMILING_HEIGHT)
    out = tmp_path / "out"
    report = build_london(photos, out, mesh, CONFIG)
    assert report.subjects == ("s005",)
    lines = (out / "manifest.failures.jsonl").read_text().splitlines()
    assert [(entry["path"], entry["reason"]) for entry in map(json.loads, lines)] == [
        ("s001", "no photograph 001_08.jpg"),
        ("s002", "002_08.jpg: no face was found"),
        ("s006", "006_03.jpg: not an image that Pillow can read"),
    ]
    assert [failure.path for failure in report.failures] == ["s001", "s002", "s006"]
    photograph(photos / "001_08.jpg", 1, SMILING_HEIGHT)
    photograph(photos / "002_08.jpg", 2, SMILING_HEIGHT)
    photograph(photos / "006_03.jpg", 4, NEUTRAL_HEIGHT)
    mended = build_london(photos, out, mesh, CONFIG)
    assert (len(mended.subjects), mended.resumed, mended.failures) == (4, 1, ())
    assert not (out / "manifest.failures.jsonl").exists()


def test_nobody_at_all_is_an_error(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nobody could be drawn; the first reason: s001: 001_03\.jpg: no face"):
        build_london(photos, tmp_path / "out", lambda image: np.full((478, 2), np.nan), CONFIG)
    assert not (tmp_path / "out" / "manifest.csv").exists()


def test_the_licence_lies_beside_the_frames(whole: Path) -> None:
    note = (whole / "README.md").read_text(encoding="utf-8")
    for word in ("DeBruine", "Jones", "10.6084/m9.figshare.5047666.v5", "CC BY 4.0", "licenses/by/4.0", "derivative"):
        assert word in note
    assert "144 frames of 3 people, 32 x 32 pixels" in note
    assert "a made-up mesh" in note


def test_a_folder_with_something_else_in_it_is_left_alone(photos: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "manifest.csv").write_text("mine")
    with pytest.raises(InputError, match="holds something else"):
        build_london(photos, other, mesh, CONFIG)
    assert contents(other) == {"manifest.csv": b"mine"}
    with pytest.raises(InputError, match="can't write there"):
        build_london(photos, photos / "001_03.jpg", mesh, CONFIG)


def test_a_mesh_of_another_size_is_refused(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"shape \(68, 2\).*\(478, 2\) is needed"):
        build_london(photos, tmp_path / "out", lambda image: np.zeros((68, 2)), CONFIG)


def test_values_out_of_range_are_refused(photos: Path, tmp_path: Path) -> None:
    for values, reason in (
        ({"size": 16}, "size = 16"),
        ({"seed": -1}, "seed = -1"),
        ({"people": ()}, "nobody is named"),
    ):
        with pytest.raises(ConfigError, match=reason):
            LondonConfig(**values)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="jobs = 0"):
        build_london(photos, tmp_path / "out", mesh, CONFIG, jobs=0)
