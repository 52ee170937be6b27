"""What is written to disk: whole, the same for any number of processes, and readable as a source of extraction."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from featlab.errors import ConfigError, InputError
from featlab.extraction.faces.landmarks import find_landmarks, read_landmarks
from featlab.extraction.sources import read_source
from featlab.extraction.synthetic import SyntheticConfig, render_person, write_faces

CONFIG = SyntheticConfig(people=2, expressions=3, clips=2, frames=2, size=48)


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The manifest of a small set of faces."""
    return write_faces(tmp_path_factory.mktemp("faces") / "set", CONFIG)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_manifest_lists_every_frame_once(faces: Path) -> None:
    with faces.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["path", "subject", "label", "video", "frame", "intensity"]
    assert len({row["path"] for row in rows}) == len(rows) == 2 * 3 * 2 * 2
    assert {row["subject"] for row in rows} == {"s001", "s002"}
    assert rows[0] | {"intensity": ""} == {
        "path": "frames/s001-neutral-a-00.jpg",
        "subject": "s001",
        "label": "neutral",
        "video": "s001-neutral-a",
        "frame": "0",
        "intensity": "",
    }
    assert all(0 <= float(row["intensity"]) <= 1 for row in rows)
    assert all(Image.open(faces.parent / row["path"]).size == (48, 48) for row in rows)


def test_nothing_else_is_left_behind(faces: Path) -> None:
    assert sorted(path.name for path in faces.parent.iterdir()) == ["frames", "landmarks.npy", "manifest.csv"]
    assert len(list((faces.parent / "frames").iterdir())) == 24


def test_the_manifest_is_a_source_of_extraction(faces: Path) -> None:
    items = read_source(faces)
    assert {item.label for item in items} == {"neutral", "happiness", "sadness"}
    found = find_landmarks(faces)
    assert found == faces.parent / "landmarks.npy"
    landmarks = read_landmarks(found, len(items))
    for item in items:
        if item.video == "s002-happiness-b":
            frames, points, _ = render_person(CONFIG, 1, "happiness", 1)
            assert np.array_equal(landmarks[item.row], points[item.frame])
            written = np.asarray(Image.open(item.path), dtype=float)
            # JPEG loses some of the noise, not the picture.
            assert np.abs(written - frames[item.frame]).mean() < 4


def test_two_processes_write_the_same_bytes_as_one(faces: Path, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    write_faces(tmp_path, CONFIG, jobs=2, on_progress=lambda done, total: calls.append((done, total)))
    assert contents(tmp_path) == contents(faces.parent)
    assert calls == [(done, 12) for done in range(1, 13)]


def test_more_people_change_no_file_of_the_others(faces: Path, tmp_path: Path) -> None:
    write_faces(tmp_path, SyntheticConfig(people=3, expressions=3, clips=2, frames=2, size=48))
    before, after = contents(faces.parent / "frames"), contents(tmp_path / "frames")
    assert len(after) == 36
    assert {name: after[name] for name in before} == before


def test_a_run_that_stops_leaves_no_manifest_not_even_the_old_one(tmp_path: Path) -> None:
    config = SyntheticConfig(people=1, clips=1, frames=1, size=32)
    write_faces(tmp_path, config)

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_faces(tmp_path, config, on_progress=stop)
    assert not (tmp_path / "manifest.csv").exists()


def test_a_folder_that_can_not_be_made_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(InputError) as caught:
        write_faces(tmp_path / "taken", CONFIG)
    assert "taken" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_process_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="jobs = 0"):
        write_faces(tmp_path, CONFIG, jobs=0)
