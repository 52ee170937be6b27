"""Clips that were made before beside those that this recipe makes: the curves of all, the pictures of six people.

    python benchmarks/london_morph/compare_clips.py CLIPS PHOTOGRAPHS

CLIPS is a folder that `make_clips.py` wrote, with all 62 people; PHOTOGRAPHS are the London Set's. A difference that is
too large is an AssertionError. Needs mediapipe.
"""

from __future__ import annotations

import csv
import sys
import tempfile
from pathlib import Path

import numpy as np
from london_film import FRAMES
from make_clips import make_clips
from PIL import Image

from featlab.extraction.faces.detectors import make_mesh_detector

PEOPLE = (1, 2, 3, 6, 8, 11)


def check_curves(clips: Path) -> None:
    """Fit the curve of a smile to the intensities that a manifest tells."""
    with (clips / "manifest.csv").open(newline="") as file:
        given = np.array([float(row["intensity"]) for row in csv.DictReader(file)]).reshape(62, 4, FRAMES)
    wave = np.maximum(np.sin(np.pi * (0.12 + 0.1 * np.arange(FRAMES))), 0) ** 0.7
    rests = np.empty((62, 2))
    for person, clip in np.ndindex(62, 2):
        course = given[person, 2 + clip]
        risen = course > 0.1205
        basis = np.stack((1 - wave[risen], wave[risen]), axis=1)
        (rests[person, clip], peak), *_ = np.linalg.lstsq(basis, course[risen], rcond=None)
        assert np.abs(basis @ (rests[person, clip], peak) - course[risen]).max() < 0.001
        assert 0.249 < peak < 0.751
    assert np.abs(rests[:, 0] - rests[:, 1]).max() < 0.01
    assert -0.01 < rests.min() < rests.max() < 0.11
    assert (given[:, :2].max(), given[:, 2:].min()) == (0.15, 0.12)


def rows(folder: Path) -> list[tuple[int, dict[str, str]]]:
    """Rows of the six people, with their places in the manifest."""
    with (folder / "manifest.csv").open(newline="", encoding="utf-8") as file:
        listed = list(enumerate(csv.DictReader(file)))
    return [(place, row) for place, row in listed if int(row["subject"][1:]) in PEOPLE]


def check_people(clips: Path, photographs: Path, made: Path) -> None:
    """Make six people again: named and placed alike, and as sharp; neutral clips look like those of the same person."""
    detector = make_mesh_detector(None, whole=True)
    assert make_clips(photographs, made, detector.detect, detector.info, set(PEOPLE), 0, 96) == []
    ours, given = ([{**row, "intensity": ""} for _, row in rows(folder)] for folder in (made, clips))
    assert ours == given
    mine, theirs = (
        np.load(folder / "landmarks.npy")[[place for place, _ in rows(folder)]].reshape(6, 48, 68, 2)
        for folder in (made, clips)
    )
    for eye in (slice(36, 42), slice(42, 48)):
        apart = mine[:, :, eye].mean(axis=(1, 2)) - theirs[:, :, eye].mean(axis=(1, 2))
        assert np.linalg.norm(apart, axis=1).max() < 1.5
    assert np.median(np.linalg.norm(mine[:, :24].mean(axis=1) - theirs[:, :24].mean(axis=1), axis=-1)) < 1.5
    mine, theirs = (
        np.stack([np.asarray(Image.open(folder / row["path"]).convert("L"), np.float32) for _, row in rows(folder)])
        for folder in (made, clips)
    )
    assert abs(mine.mean() - theirs.mean()) < 25
    for axis in (1, 2):
        sharp, expected = (np.abs(np.diff(part, axis=axis)).mean() for part in (mine, theirs))
        assert abs(sharp / expected - 1) < 0.2
    mine, theirs = (part.reshape(6, 48, -1)[:, :24].mean(axis=1) for part in (mine, theirs))
    alike = np.corrcoef(mine, theirs)[:6, 6:]
    assert alike.diagonal().min() > 0.9
    assert (alike.argmax(axis=1) == np.arange(6)).all()


if __name__ == "__main__":
    check_curves(Path(sys.argv[1]))
    with tempfile.TemporaryDirectory() as folder:
        check_people(Path(sys.argv[1]), Path(sys.argv[2]), Path(folder) / "set")
    print("the curves of all people and the pictures of six are alike")
