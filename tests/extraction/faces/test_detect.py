import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image as PilImage

from featlab.errors import InputError
from featlab.extraction.faces import detect
from featlab.extraction.faces.detect import detect_landmarks
from featlab.extraction.faces.landmarks import landmarks_for
from featlab.extraction.items import Item

FACELESS, BROKEN = 2, 5
ROWS = 9
# A module of its own: a worker process imports it by name.
DETECTOR = '''
from dataclasses import dataclass, field
import numpy as np

@dataclass(frozen=True)
class Colour:
    """Says of a picture that it has a face unless it is black, and puts three points where its first pixel says."""

    points: int = 3
    info: str = "colour 1"
    seen: list = field(default_factory=list)
    stop_after: int = 99

    def detect(self, image):
        if len(self.seen) == self.stop_after:
            raise KeyboardInterrupt
        value = int(image[0, 0, 0])
        self.seen.append(value)
        places = np.arange(2 * self.points, dtype=np.float32).reshape(1, -1, 2)
        return places[:0] if value == 0 else np.float32(value) + places
'''


@pytest.fixture
def colour(tmp_path, monkeypatch):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "colour_detector.py").write_text(DETECTOR)
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.delitem(sys.modules, "colour_detector", raising=False)
    from colour_detector import Colour

    return Colour


def paint(path, value, height=6):
    PilImage.fromarray(np.full((height, 8, 3), value, np.uint8)).save(path)


@pytest.fixture
def items(tmp_path):
    """Nine pictures, one of them black, one of them no picture; the source lists them in another order."""
    paths = [tmp_path / f"{number}.png" for number in range(ROWS)]
    for number, path in enumerate(paths):
        paint(path, 0 if number == FACELESS else 10 * number + 1)
    paths[BROKEN].write_bytes(b"no picture")
    return [Item(path, path.name, "s", None, "v", row, row=ROWS - 1 - row) for row, path in enumerate(paths)]


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch):
    monkeypatch.setattr(detect, "_SHARD", 2)


def find(items, detector, out, jobs=1):
    """Detect, check every row, and return what was found and what was told."""
    told = []
    found = detect_landmarks(items, detector, out, jobs=jobs, on_progress=lambda *now: told.append(now))
    landmarks = found.faces.largest()
    assert (landmarks.shape, landmarks.dtype) == ((ROWS, 3, 2), np.float32)
    for item in items:
        points = landmarks[item.row]
        if item.frame in (FACELESS, BROKEN):
            assert np.isnan(points).all()
        else:
            np.testing.assert_array_equal(points[0], (10 * item.frame + 1, 10 * item.frame + 2))
    # What can't be read is the extraction's to list.
    assert found.unreadable == {ROWS - 1 - BROKEN}
    return found, told


def test_every_row_gets_its_landmarks_and_a_killed_run_goes_on_where_it_stopped(items, tmp_path, colour):
    out = tmp_path / "cache.h5"
    found, told = find(items[::-1], colour(), out)
    kept = out.with_name("cache.h5.landmarks")
    assert told == [(0, 9), (2, 9), (4, 9), (6, 9), (8, 9), (9, 9), (9, 9)]
    assert [path.name for path in kept.iterdir()] == ["landmarks.npz"]
    # The file can be named as landmarks for another backbone.
    np.testing.assert_array_equal(landmarks_for(kept / "landmarks.npz", items).faces.largest(), found.faces.largest())
    out = tmp_path / "c.h5"
    with pytest.raises(KeyboardInterrupt):
        detect_landmarks(items, colour(stop_after=4), out, jobs=1)
    rest, idle = colour(), colour()
    # Two shards of two were finished when it was killed in the third.
    assert find(items, rest, out)[1][0] == (4, 9)
    assert rest.seen == [41, 61, 71, 81]
    find(items, idle, out)
    assert idle.seen == []


def test_what_changed_is_detected_again(items, tmp_path, colour):
    out, other = tmp_path / "c.h5", [replace(item, row=item.frame) for item in items]

    def changed(items=items, expected=1, **options):
        detector = colour(**options)
        found = detect_landmarks(items, detector, out, jobs=1)
        assert len(detector.seen) == ROWS - 1
        assert found.faces.largest()[items[0].row, 0, 0] == expected

    changed()
    changed(info="colour 2")
    changed(points=4)
    changed()
    path = tmp_path / "c.h5.landmarks" / "landmarks.npz"
    path.write_bytes(path.read_bytes()[:-40])
    changed()
    changed(items=other)
    paint(items[0].path, 200, height=9)
    changed(expected=200)


def test_only_the_rows_of_the_items_count_and_nothing_found_at_all_is_refused(items, tmp_path, colour, refused):
    found = detect_landmarks(items[:2], colour(), tmp_path / "c.h5", jobs=1).faces
    assert (found.largest().shape, found.counts.tolist()) == ((ROWS, 3, 2), [0] * 7 + [1] * 2)
    for given, says in (
        ([items[FACELESS], items[BROKEN]], "no face was found in 1 images (first: 2.png); look at one"),
        ([items[BROKEN]], "no image can be read (first: 5.png)"),
    ):
        with refused(InputError, says):
            detect_landmarks(given, colour(), tmp_path / "c.h5", jobs=1)


def test_workers_change_nothing_but_the_time(items, tmp_path, colour):
    for name, jobs in (("many", 2), ("one", 1)):
        find(items, colour(), tmp_path / f"{name}.h5", jobs=jobs)
    many, one = (tmp_path / f"{name}.h5.landmarks" / "landmarks.npz" for name in ("many", "one"))
    assert many.read_bytes() == one.read_bytes()
