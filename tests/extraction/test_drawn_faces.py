from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from featlab.errors import ConfigError, InputError
from featlab.extraction.drawn_faces import EXPRESSIONS, FacesConfig, render_person, write_faces
from featlab.extraction.faces.landmarks import find_landmarks, read_landmarks
from featlab.extraction.layouts import read_layout

SMALL = FacesConfig(people=12, expressions=7, frames=3, size=48)
CROWD = FacesConfig(people=16, frames=6, size=64)
FILES = FacesConfig(people=2, expressions=3, clips=2, frames=2, size=48)


@pytest.fixture(scope="module")
def crowd():
    return {
        (person, expression): render_person(CROWD, person, expression, 0)
        for person in range(CROWD.people)
        for expression in CROWD.classes
    }


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    return write_faces(tmp_path_factory.mktemp("faces") / "set", FILES)


def corner_lift(landmarks):
    """How far the mouth corners lie above the middle of the lips, in distances between the eye centres, (F,)."""
    eyes = np.linalg.norm(landmarks[:, 36:42].mean(axis=1) - landmarks[:, 42:48].mean(axis=1), axis=1)
    return (landmarks[:, [51, 57], 1].mean(axis=1) - landmarks[:, [48, 54], 1].mean(axis=1)) / eyes


def test_a_clip_depends_on_the_seed_the_person_the_expression_and_its_letter_only():
    clip = render_person(SMALL, 0, "anger", 0)
    assert [part.shape for part in clip] == [(3, 48, 48, 3), (3, 68, 2), (3,)]
    assert [part.dtype.name for part in clip] == ["uint8", "float32", "float32"]
    for more in ({}, {"people": 40}, {"expressions": 5}, {"clips": 5}):
        again = render_person(replace(SMALL, **more), 0, "anger", 0)
        assert all(map(np.array_equal, clip, again))
    others = [render_person(SMALL, *which) for which in ((1, "anger", 0), (0, "anger", 1), (0, "fear", 0))]
    for other in (*others, render_person(replace(SMALL, seed=1), 0, "anger", 0)):
        assert not np.array_equal(clip[0], other[0])
    # Frames are pictures at every expression and size.
    for size in (32, 96):
        for person, expression in enumerate(EXPRESSIONS):
            frames, landmarks, _ = render_person(replace(SMALL, frames=1, size=size), person, expression, 0)
            assert frames.std() > 15
            assert np.isfinite(landmarks).all()


def test_landmarks_are_in_ibug_order_inside_the_picture_with_level_eyes(crowd):
    landmarks = np.concatenate([clip[1] for clip in crowd.values()])
    assert ((landmarks >= 0) & (landmarks <= CROWD.size - 1)).all(axis=(1, 2)).mean() > 0.95
    apart = (landmarks[:, 42:48].mean(axis=1) - landmarks[:, 36:42].mean(axis=1)) / CROWD.size
    assert np.abs(apart[:, 0].mean() - 0.36) < 0.02
    assert np.abs(np.degrees(np.arctan2(apart[:, 1], apart[:, 0]))).max() < 8
    x, y = np.moveaxis(landmarks, 2, 0)
    jaw, brows, eyes = [0, 4, 8, 12, 16], [17, 19, 21, 22, 24, 26], [36, 39, 42, 45]
    for run in (jaw, brows, eyes, [31, 33, 35], [48, 51, 54], [60, 62, 64]):
        assert (np.diff(x[:, run], axis=1) > 0).all(), f"left to right: {run}"
    for run in ([27, 28, 29, 30, 33, 51], [66, 57, 8], [19, 37], [24, 44]):
        assert (np.diff(y[:, run], axis=1) > 0).all(), f"top to bottom: {run}"
    for upper, lower in ((37, 41), (38, 40), (43, 47), (44, 46), (51, 62), (61, 67), (62, 66), (63, 65)):
        # Closed lids and lips lie on each other; the head is tilted by a few degrees.
        assert (y[:, lower] - y[:, upper] > -0.02 * CROWD.size).all(), f"{upper} above {lower}"


def test_everybody_smiles_when_happy_yet_some_rest_above_other_peoples_smiles(crowd):
    resting = np.array([corner_lift(crowd[person, "neutral"][1]).mean() for person in range(CROWD.people)])
    happy = [crowd[person, "happiness"] for person in range(CROWD.people)]
    peak = np.array([corner_lift(landmarks)[int(intensity.argmax())] for _, landmarks, intensity in happy])
    assert (peak > resting).all()
    assert (peak > np.median(resting)).all(), "a smile must look like one"
    mild = np.array([corner_lift(marks)[(level > 0.1) & (level < 0.5)].mean() for _, marks, level in happy])
    # Chance that a stranger's rest shows more of a smile than a mild smile does: 0 would be no problem at all.
    assert 0.1 < np.mean(resting[:, None] > mild[None, :]) < 0.5


def test_the_files_are_a_source_of_extraction_with_their_landmarks(faces, tmp_path, refused):
    assert sorted(path.name for path in faces.parent.iterdir()) == ["frames", "landmarks.npy", "manifest.csv"]
    first, line, *_ = faces.read_text().splitlines()
    assert first == "path,subject,label,video,frame,intensity"
    assert line.startswith("frames/s001-neutral-a-00.jpg,s001,neutral,s001-neutral-a,0,0.")
    items = read_layout("auto", faces)
    assert {item.label for item in items} == {"neutral", "happiness", "sadness"}
    assert len({item.path for item in items}) == len(items) == 24
    landmarks = read_landmarks(find_landmarks(faces), len(items))
    frames, points, _ = render_person(FILES, 1, "happiness", 1)
    clip = [item for item in items if item.video == "s002-happiness-b"]
    assert len(clip) == 2
    for item in clip:
        assert np.array_equal(landmarks[item.row], points[item.frame])
        # JPEG loses some of the noise, not the picture.
        assert np.abs(np.asarray(Image.open(item.path), dtype=float) - frames[item.frame]).mean() < 4
    (tmp_path / "taken").write_text("a file")
    with refused(InputError, "taken"):
        write_faces(tmp_path / "taken", FILES)
    with refused(ConfigError, "expressions = 8"):
        FacesConfig(expressions=8)


def test_two_processes_write_the_same_bytes_as_one_and_a_run_that_stops_leaves_no_manifest(faces, tmp_path):
    def contents(folder):
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    def stop(done, total):
        raise KeyboardInterrupt

    calls = []
    write_faces(tmp_path, FILES, jobs=2, on_progress=lambda *now: calls.append(now))
    assert contents(tmp_path) == contents(faces.parent)
    assert calls == [(done, 12) for done in range(1, 13)]
    with pytest.raises(KeyboardInterrupt):
        write_faces(tmp_path, FILES, on_progress=stop)
    assert not (tmp_path / "manifest.csv").exists(), "not even the old one"
