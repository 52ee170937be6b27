"""Videos in folders to a cache: rows, failures, resuming, memory."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from featlab.cache import open_cache
from featlab.errors import InputError
from featlab.extraction.backbones import make_backbone
from featlab.extraction.decode import read_pixels
from featlab.extraction.extract import ExtractConfig, extract
from featlab.extraction.items import Failure
from featlab.extraction.layouts import read_layout
from featlab.extraction.shards import failures_path
from featlab.extraction.video import Expanded, Sampling, expand_videos

HOG = make_backbone("hog", size=16)
ONE = ExtractConfig(jobs=1, shard_rows=7, batch=3)
BENCHMARK = Path(__file__).parents[3] / "benchmarks" / "video_memory.py"


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
    listed = [json.loads(line) for line in failures_path(tmp_path / "c.h5").read_text().splitlines()]
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
    broken = Expanded([], (Failure("a.mp4", "the file is empty"), Failure("b.mp4", "no such file")))
    reasons = "(a.mp4: the file is empty; b.mp4: no such file)"
    with refused(InputError, f"there is nothing to extract: all of it failed {reasons}"):
        run(broken, tmp_path / "d.h5")
    # Frames that fail while reading are listed after the rest.
    (people / "s1/pain/heat/a.mkv").unlink()
    report = run(expanded, tmp_path / "e.h5")
    assert report.failures[:2] == expanded.failures
    assert report.failures[2] == Failure("s1/pain/heat/a.mkv#t=0.000", "no such file")
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


@pytest.mark.slow
@pytest.mark.skipif(not BENCHMARK.is_file(), reason="needs the checkout's benchmarks")
def test_a_video_takes_little_memory():
    pytest.importorskip("av", reason="needs the extra 'video'")
    pytest.importorskip("resource", reason="reads the highest memory by getrusage")
    command = [sys.executable, str(BENCHMARK), "--width", "640", "--height", "352", "--seconds", "15"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    above = re.search(r"^above idle: (\d+) MiB$", output, re.MULTILINE)
    assert "375 frames of 640x352" in output
    # The bar for any video is 400; all frames of this one would be 242, and half of that as the decoder has them.
    assert int(above[1]) < 100
