import json

import numpy as np
from PIL import Image as PilImage

from featlab import open_cache
from featlab.cache.reader import inspect_cache
from featlab.extraction.backbones.builtin import template
from featlab.extraction.extract import extract
from featlab.extraction.faces.detect import DETECTORS, Detector
from featlab.extraction.faces.track import Faces, Found, choose_faces, track
from featlab.extraction.inputs import InputConfig, read_inputs
from featlab.extraction.items import Failure, Item

FRAMES = 100


def person(rng, alike=False):
    """A face about 40 pixels wide; people differ in their proportions unless they are alike."""
    base = template(68) * 70
    return base if alike else base * (1 + 0.1 * rng.normal(size=2)) + 2 * rng.normal(size=base.shape)


def crossing(seed, speed=3.0, sizes=(1.0, 1.0), hidden=0, alike=False, turns=False, jitter=0.5):
    """Two people who cross (or meet and turn back): the faces of each frame in any order, and whose they are."""
    rng = np.random.default_rng(seed)
    shapes = [person(rng, alike) * size for size in sizes]
    way = speed * (np.arange(FRAMES) - FRAMES / 2)
    way = -np.abs(way) - 15 if turns else way
    heights = rng.uniform(-4, 4, 2)
    faces, owners = [], []
    for frame in range(FRAMES):
        seen = [0, 1]
        if abs(frame - FRAMES / 2) < hidden / 2:
            seen = [seed % 2]
        elif rng.random() < 0.03:
            seen = [int(rng.integers(2))]
        rng.shuffle(seen)
        found = []
        for who in seen:
            at = np.array([200 + (way[frame], -way[frame])[who], 100 + heights[who] + 4 * np.sin(frame / 9 + who)])
            found.append(shapes[who] + at + jitter * (rng.normal(size=(68, 2)) + rng.normal(size=2)))
        faces.append(np.array(found, dtype=np.float32))
        owners.append(seen)
    return faces, owners


def judged(faces, owners, **more):
    """The share of frames with the person in which the right face is chosen, wrong choices, and the doubtful frames."""
    chosen, doubtful = track(faces, **more)
    theirs = [seen[place] if place >= 0 else None for seen, place in zip(owners, chosen, strict=True)]
    who = next(owner for owner in theirs if owner is not None)
    there = sum(who in seen for seen in owners)
    return theirs.count(who) / there, theirs.count(1 - who), np.flatnonzero(doubtful)


def test_two_people_who_cross_are_kept_apart_and_the_doubt_is_said():
    for options in (
        *({"speed": speed, "sizes": sizes} for speed in (1, 3, 6) for sizes in ((1.0, 1.0), (1.0, 0.8))),
        *({"speed": speed, "hidden": hidden} for speed in (2, 4) for hidden in (6, 14)),
        {"alike": True},
        {"alike": True, "hidden": 8},
        {"turns": True},
        {"turns": True, "hidden": 6, "sizes": (1.0, 0.85)},
        {"jitter": 1.5},
    ):
        for seed in range(4):
            right, wrong, doubtful = judged(*crossing(seed, **options))
            assert (right >= 0.99, wrong) == (True, 0), (options, seed, right)
            # They meet in the middle; a person who is in doubt everywhere says nothing.
            assert len(doubtful) < 40, (options, seed)
            if options.get("alike"):
                assert np.abs(doubtful - FRAMES / 2).min() < 15, (options, seed)


def test_nobody_takes_the_place_of_who_is_gone_and_gaps_are_in_doubt():
    rng = np.random.default_rng(0)
    mine, other = person(rng), person(rng)
    nobody = np.empty((0, 68, 2))
    # A person goes; somebody else is there, three faces further; the person comes back where they were.
    faces = [mine[None] + 100] * 20 + [other[None] + (220, 100)] * 15 + [nobody] * 10 + [mine[None] + 103] * 5
    chosen, doubtful = track(faces)
    assert chosen.tolist() == [0] * 20 + [-1] * 25 + [0] * 5
    assert np.flatnonzero(doubtful).tolist() == [45]
    # Frames that were left out count: at half the rate the same way is the same speed.
    faces, owners = crossing(1, speed=3)
    assert judged(faces[::2], owners[::2], times=range(0, FRAMES, 2))[0] >= 0.99
    for empty in ([], [nobody] * 3):
        chosen, doubtful = track(empty)
        assert (chosen.tolist(), doubtful.any()) == ([-1] * len(empty), False)


def test_a_choice_says_which_pictures_have_no_face_and_how_many_of_whom_have_several():
    faces, owners = crossing(3)
    faces[7:9] = [faces[0][:0]] * 2
    owners[7:9] = [[], []]
    items = [Item(None, f"s1/{frame}.png", "s1", None, "v", frame, row=frame) for frame in range(len(faces))]
    found = Found(Faces.of(faces), frozenset([8]))
    several = sum(len(seen) > 1 for seen in owners)
    said = f"more than one face in {several} frames of 1 person (s1: {several})"
    largest, followed, only = (choose_faces(items, found, how) for how in ("largest", "track", "only"))
    assert largest.sentence == f"{said}; --face track follows one person through each clip"
    np.testing.assert_array_equal(largest.landmarks[0], max(faces[0], key=lambda face: np.ptp(face, axis=0).prod()))
    # What can't be read is the extraction's to list.
    assert largest.missing == only.missing == (Failure("s1/7.png", "no face was found"),)
    others = [failure for failure in followed.missing if failure.path != "s1/7.png"]
    assert {failure.reason for failure in others} == {"none of the 1 faces is the person's"}
    assert followed.sentence.startswith(f"{said}; one person a clip was followed, with doubt in ")
    assert all(failure.reason.startswith("frame ") for failure in followed.doubtful)
    assert (only.sentence, len(only.refused)) == (said, several)
    assert only.refused[0].reason == "2 faces, and --face only takes pictures of one"
    alone = choose_faces(items, Found(Faces.of([face[:1] for face in faces])), "only")
    assert (alone.sentence, alone.refused) == ("", ())


def test_a_film_of_two_is_extracted_with_one_of_them_and_the_cache_has_the_counts(stand_in, tmp_path, monkeypatch):
    faces = crossing(3)[0][35:65]
    detector = Detector(68, "film 1", lambda image: list(faces[image[0, 0, 0]]))
    monkeypatch.setitem(DETECTORS.found, "film", lambda argument: detector)
    folder = tmp_path / "faces" / "s1" / "neutral"
    folder.mkdir(parents=True)
    for frame in range(30):
        PilImage.new("RGB", (400, 200), (frame, 9, 9)).save(folder / f"img{frame:02}.png")

    def extracted(face, landmarks="film"):
        out = tmp_path / f"{face}.h5"
        inputs = read_inputs(tmp_path / "faces", InputConfig(landmarks=landmarks, face=face), beside=out, jobs=1)
        backbone = stand_in(lambda images, points: np.array([image.mean((0, 1)) for image in images]))
        given = {"landmarks": inputs.landmarks, "faces": inputs.face_counts, "failures": inputs.failures}
        report = extract(inputs.items, backbone, out, neutral="neutral", **given)
        with open_cache(out, verify=True) as cache:
            return inputs, report, cache.read()

    inputs, _, table = extracted("track")
    rows = Faces.of(faces).rows()
    mine = [found[place] for found, place in zip(rows, track(rows)[0], strict=True)]
    np.testing.assert_array_equal(table.landmarks, mine)
    assert table.faces.tolist() == [len(found) for found in faces]
    several = int((table.faces > 1).sum())
    assert inspect_cache(tmp_path / "track.h5").several_faces == several
    assert inputs.warnings[-1].startswith(f"more than one face in {several} frames of 1 person (s1: {several})")
    doubts = [json.loads(line) for line in (tmp_path / "track.doubt.jsonl").read_text().splitlines()]
    assert [Failure(**doubt) for doubt in doubts] == list(inputs.in_doubt) != []
    # What the detector found is given to another run, with all faces.
    _, _, same = extracted("track", landmarks=str(tmp_path / "track.h5.landmarks" / "landmarks.npz"))
    np.testing.assert_array_equal(same.landmarks, table.landmarks)
    np.testing.assert_array_equal(same.faces, table.faces)
    _, report, left = extracted("only")
    assert (len(left), len(report.failures)) == (30 - several, several)
    assert not (tmp_path / "only.doubt.jsonl").exists()
