import json
import sys
from fractions import Fraction

import numpy as np
import pytest

from featlab import open_cache
from featlab.errors import ConfigError, InputError
from featlab.extraction.backbones import make_backbone
from featlab.extraction.decode import read_pixels
from featlab.extraction.extract import ExtractConfig, extract
from featlab.extraction.items import Failure, Item
from featlab.extraction.layouts import read_layout
from featlab.extraction.shards import list_path
from featlab.extraction.video import Expanded, Sampling, expand_videos

# Milliseconds of a camera that slows down in the dark: 40 ms apart, then 100, then 40 again.
UNEVEN = [*range(0, 2000, 40), *range(2000, 4000, 100), *range(4000, 6000, 40)]


def whole(path, name="s1/pain/a.mp4", row=0):
    return Item(path, name, "s1", "pain", name, 0, row)


def test_a_video_is_sampled_at_the_right_times(tmp_path, make_video, read_number):
    path = make_video(tmp_path / "a.mkv", UNEVEN, unit=Fraction(1, 1000))
    expanded = expand_videos([whole(path)], Sampling(fps=5, window=(1.0, 5.0)))
    assert [(item.at, item.row, item.name) for item in expanded.items] == [
        (ms, row, f"s1/pain/a.mp4#t={ms / 1000:.3f}") for row, ms in enumerate(range(1000, 5000, 200))
    ]
    numbers = [read_number(image) for image in read_pixels(expanded.items)]
    assert [UNEVEN[number] for number in numbers] == list(range(1000, 5000, 200))
    assert numbers == [item.frame for item in expanded.items]


def test_what_is_no_video_stays_and_needs_no_pyav(tmp_path, make_video, monkeypatch, refused):
    path = make_video(tmp_path / "a.mp4", range(3))
    image = Item(tmp_path / "i.png", "i.png", "s0", "neutral", "v", 4, 7)
    known = Item(path, "a.mp4#t=0.080", "s2", "smile", "v", 2, 5, at=1024)
    expanded = expand_videos([image, whole(path, row=9), known])
    assert [(item.name, item.frame, item.at, item.row) for item in expanded.items] == [
        ("i.png", 4, None, 0),
        ("s1/pain/a.mp4#t=0.000", 0, 0, 1),
        ("s1/pain/a.mp4#t=0.040", 1, 512, 2),
        ("s1/pain/a.mp4#t=0.080", 2, 1024, 3),
        ("a.mp4#t=0.080", 2, 1024, 4),
    ]
    assert {(item.subject, item.label, item.video) for item in expanded.items[1:4]} == {("s1", "pain", "s1/pain/a.mp4")}
    monkeypatch.setitem(sys.modules, "av", None)
    image = Item(tmp_path / "i.png", "i.png", "s0", "neutral", "v", 4, 0)
    assert expand_videos([image], Sampling(fps=1)).items == [image]
    with refused(ConfigError, "pip install 'featlab[video]'"):
        expand_videos([whole(tmp_path / "a.mp4")])


def test_labelled_frames_are_looked_up_and_sampled(tmp_path, make_video):
    path = make_video(tmp_path / "a.mp4")

    def expand(*frames, stride=5, subjects=("s1",)):
        labelled = [Item(path, "a.mp4", s, f"label {f}", "a", f, row) for s in subjects for row, f in enumerate(frames)]
        return expand_videos(labelled, Sampling(stride=stride))

    expanded = expand(0, 1, 10, 20, 25, 49, 50, 51)
    assert [(item.name, item.frame, item.label) for item in expanded.items] == [
        ("a.mp4#t=0.000", 0, "label 0"),
        ("a.mp4#t=0.400", 10, "label 10"),
        ("a.mp4#t=0.800", 20, "label 20"),
        ("a.mp4#t=1.000", 25, "label 25"),
    ]
    gone = [Failure(f"a.mp4#frame={frame}", "the video has 50 frames") for frame in (50, 51)]
    assert list(expanded.failures) == gone
    expanded = expand(3, 4)
    assert expanded.items == []
    assert expanded.failures == (Failure("a.mp4", "none of its labelled frames is among the sampled ones"),)
    # Two people share a video.
    items = expand(0, stride=20, subjects=("left", "right")).items
    assert [(item.subject, item.frame) for item in items] == [(s, f) for s in ("left", "right") for f in (0, 20, 40)]


@pytest.mark.parametrize("jobs", [1, 2])
def test_broken_videos_are_listed_and_the_others_go_on(tmp_path, make_video, jobs):
    names = [f"v{number:02}.mp4" for number in range(18)]
    source = make_video(tmp_path / "source.mp4", range(60)).read_bytes()
    for name in names:
        (tmp_path / name).write_bytes(source)
    make_video(tmp_path / names[2], range(20))
    (tmp_path / names[3]).write_bytes(b"")
    (tmp_path / names[9]).unlink()
    # A video that breaks off gives its frames and is listed.
    content = make_video(tmp_path / names[11], file={"movflags": "faststart"}).read_bytes()
    (tmp_path / names[11]).write_bytes(content[: len(content) * 9 // 10])
    told = []
    items, sampling = [whole(tmp_path / name, name) for name in names], Sampling(window=(0.8, 3.0))
    expanded = expand_videos(items, sampling, jobs=jobs, on_progress=lambda *now: told.append(now))
    reasons = {failure.path: failure.reason for failure in expanded.failures}
    broken_off = reasons.pop("v11.mp4")
    assert reasons == {
        "v02.mp4": "no frame from 0.8 to 3 s; its last frame is at 0.760 s",
        "v03.mp4": "the file is empty",
        "v09.mp4": "not a video that can be read: No such file or directory",
    }
    found = {name: [item for item in expanded.items if item.video == name] for name in names}
    frames = found["v11.mp4"][-1].frame + 1
    assert 20 < frames < 50
    assert broken_off == f"the file breaks off: {frames} of its 50 frames are there"
    for name in set(names) - set(reasons) - {"v11.mp4"}:
        assert [item.frame for item in found[name]] == list(range(20, 60))
    assert told == [(done, 18) for done in range(1, 19)]


HOG = make_backbone("hog", size=16)
ONE = ExtractConfig(jobs=1, shard_rows=7, batch=3)


@pytest.fixture
def people(tmp_path, make_video, make_image):
    """Two people: whole videos, one in a clip's folder, images beside a video, and two files that are broken."""
    root = tmp_path / "people"
    make_video(root / "s1/neutral/rest.mp4", range(40))
    make_video(root / "s1/pain/heat/a.mkv", range(30))
    make_video(root / "s2/neutral/rest.AVI", range(20), codec="mpeg4")
    for frame in range(3):
        make_image(root / f"s2/neutral/img{frame}.png", frame)
    (root / "s2/pain").mkdir()
    (root / "s2/pain/broken.mp4").write_bytes(b"no video" * 99)
    (root / "s2/pain/empty.mov").write_bytes(b"")
    return root


def expand(root):
    return expand_videos(read_layout("folders", root), Sampling(fps=12.5))


def run(expanded, out, config=ONE, **more):
    return extract(expanded.items, HOG, out, neutral="neutral", failures=expanded.failures, config=config, **more)


def test_a_video_folder_becomes_a_cache_with_its_failures_listed(tmp_path, people, refused):
    expanded = expand(people)
    report = run(expanded, tmp_path / "c.h5")
    two = run(expanded, tmp_path / "two.h5", ExtractConfig(jobs=2, shard_rows=11, batch=4))
    assert (two.digest, two.failures) == (report.digest, report.failures)
    assert [failure.path for failure in report.failures] == ["s2/pain/broken.mp4", "s2/pain/empty.mov"]
    listed = [json.loads(line) for line in list_path(tmp_path / "c.h5").read_text().splitlines()]
    assert listed == [{"path": failure.path, "reason": failure.reason} for failure in report.failures]
    with open_cache(tmp_path / "c.h5", verify=True) as cache:
        table = cache.read()
    clips = (
        ("s1/neutral/rest.mp4", "neutral", 20),
        ("s1/pain/heat/a.mkv", "pain", 15),
        ("s2/neutral", "neutral", 3),
        ("s2/neutral/rest.AVI", "neutral", 10),
    )
    rows = [(table.videos[video], table.classes[label]) for video, label in zip(table.video, table.label, strict=True)]
    assert rows == [(video, label) for video, label, frames in clips for _ in range(frames)]
    assert table.paths[:3] == tuple(f"s1/neutral/rest.mp4#t={time}" for time in ("0.000", "0.080", "0.160"))
    assert table.frame[:3].tolist() == [0, 2, 4]
    images = [image for image in read_pixels(expanded.items) if not isinstance(image, InputError)]
    np.testing.assert_array_equal(table.embeddings, HOG.embed(images, None))
    with refused(InputError, "there is nothing to extract: all of it failed (a.mp4: empty; b.mp4: no such file)"):
        run(Expanded([], (Failure("a.mp4", "empty"), Failure("b.mp4", "no such file"))), tmp_path / "d.h5")
    # Frames that fail while reading are listed after the rest.
    (people / "s1/pain/heat/a.mkv").unlink()
    report = run(expanded, tmp_path / "e.h5")
    assert report.failures[:2] == expanded.failures
    assert report.failures[2] == Failure(
        "s1/pain/heat/a.mkv#t=0.000", "not a video that can be read: No such file or directory"
    )
    assert (report.rows, len(report.failures)) == (33, 17)


def test_a_finished_cache_knows_what_failed_before(tmp_path, people, make_video, refused):
    first = run(expand(people), tmp_path / "c.h5")
    again = run(expand(people), tmp_path / "c.h5")
    assert (again.digest, again.failures, again.resumed_rows) == (first.digest, first.failures, first.rows)
    (people / "s2/pain/more.mp4").write_bytes(b"broken too")
    with refused(InputError, "s2/pain/more.mp4 is new, and fails (not a video", "--if-exists overwrite"):
        run(expand(people), tmp_path / "c.h5")
    (people / "s2/pain/more.mp4").unlink()
    make_video(people / "s2/pain/broken.mp4", range(5))
    with refused(InputError, "s2/pain/broken.mp4#t=0.000 is new"):
        run(expand(people), tmp_path / "c.h5")
    repaired = run(expand(people), tmp_path / "c.h5", if_exists="overwrite")
    assert [failure.path for failure in repaired.failures] == ["s2/pain/empty.mov"]
