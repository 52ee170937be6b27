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
    return extract(
        expanded.items, HOG, out, neutral="neutral", failures=expanded.failures, config=config, **more
    )  # fmt: skip


def test_a_folder_lists_a_video_in_the_place_of_an_image_as_a_clip_of_its_own(people):
    assert [(item.name, item.video, item.frame, item.label) for item in read_layout("folders", people)] == [
        ("s1/neutral/rest.mp4", "s1/neutral/rest.mp4", 0, "neutral"),
        ("s1/pain/heat/a.mkv", "s1/pain/heat/a.mkv", 0, "pain"),
        ("s2/neutral/img0.png", "s2/neutral", 0, "neutral"),
        ("s2/neutral/img1.png", "s2/neutral", 1, "neutral"),
        ("s2/neutral/img2.png", "s2/neutral", 2, "neutral"),
        ("s2/neutral/rest.AVI", "s2/neutral/rest.AVI", 0, "neutral"),
        ("s2/pain/broken.mp4", "s2/pain/broken.mp4", 0, "pain"),
        ("s2/pain/empty.mov", "s2/pain/empty.mov", 0, "pain"),
    ]


def test_sources_without_a_readable_video_are_refused(tmp_path, refused):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "clip.mp4").write_bytes(b"x")
    with refused(InputError, "expected subject/label/image ", "found a/clip.mp4"):
        read_layout("folders", tmp_path)
    broken = Expanded([], (Failure("a.mp4", "the file is empty"), Failure("b.mp4", "no such file")))
    reasons = "(a.mp4: the file is empty; b.mp4: no such file)"
    with refused(InputError, f"there is nothing to extract: all of it failed {reasons}"):
        run(broken, tmp_path / "c.h5")


def test_a_video_folder_becomes_a_cache_with_its_failures_listed(tmp_path, people):
    expanded = expand(people)
    report = run(expanded, tmp_path / "c.h5")
    assert report.rows == 20 + 15 + 10 + 3
    assert [failure.path for failure in report.failures] == ["s2/pain/broken.mp4", "s2/pain/empty.mov"]
    listed = [json.loads(line) for line in failures_path(tmp_path / "c.h5").read_text().splitlines()]
    assert listed == [{"path": failure.path, "reason": failure.reason} for failure in report.failures]
    with open_cache(tmp_path / "c.h5", verify=True) as cache:
        table = cache.read()
    assert table.paths is not None
    assert table.paths[:3] == (
        "s1/neutral/rest.mp4#t=0.000",
        "s1/neutral/rest.mp4#t=0.080",
        "s1/neutral/rest.mp4#t=0.160",
    )
    assert table.frame[:3].tolist() == [0, 2, 4]
    images = [image for image in read_pixels(expanded.items) if not isinstance(image, InputError)]
    np.testing.assert_array_equal(table.embeddings, HOG.embed(images, None))


def test_jobs_batches_and_an_interruption_do_not_change_the_digest(tmp_path, people):
    expanded = expand(people)
    whole = run(expanded, tmp_path / "whole.h5")
    two = run(expanded, tmp_path / "two.h5", ExtractConfig(jobs=2, shard_rows=11, batch=4))
    left = [7]

    def stop(progress):
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(expanded, tmp_path / "resumed.h5", on_progress=stop)
    resumed = run(expanded, tmp_path / "resumed.h5")
    assert 0 < resumed.resumed_rows < resumed.rows
    assert whole.digest == two.digest == resumed.digest
    assert whole.failures == two.failures == resumed.failures


def test_a_finished_cache_knows_what_failed_before(tmp_path, people, make_video):
    first = run(expand(people), tmp_path / "c.h5")
    again = run(expand(people), tmp_path / "c.h5")
    assert (again.digest, again.failures, again.resumed_rows) == (first.digest, first.failures, first.rows)
    (people / "s2/pain/more.mp4").write_bytes(b"broken too")
    with pytest.raises(InputError, match=r"s2/pain/more.mp4 is new, and fails \(not a video.*--if-exists overwrite"):
        run(expand(people), tmp_path / "c.h5")
    (people / "s2/pain/more.mp4").unlink()
    make_video(people / "s2/pain/broken.mp4", range(5))
    with pytest.raises(InputError, match=r"s2/pain/broken.mp4#t=0.000 is new"):
        run(expand(people), tmp_path / "c.h5")
    repaired = run(expand(people), tmp_path / "c.h5", if_exists="overwrite")
    assert [failure.path for failure in repaired.failures] == ["s2/pain/empty.mov"]


def test_frames_that_fail_while_reading_are_listed_after_the_rest(tmp_path, people, make_video):
    expanded = expand(people)
    (people / "s1/pain/heat/a.mkv").unlink()
    report = run(expanded, tmp_path / "c.h5")
    assert report.failures[:2] == expanded.failures
    assert report.failures[2] == Failure("s1/pain/heat/a.mkv#t=0.000", "no such file")
    assert (report.rows, len(report.failures)) == (33, 17)


@pytest.mark.slow
@pytest.mark.skipif(not BENCHMARK.is_file(), reason="needs the checkout's benchmarks")
def test_a_video_takes_little_memory():
    pytest.importorskip("av", reason="needs the extra 'video'")
    pytest.importorskip("resource", reason="reads the highest memory by getrusage")
    command = [sys.executable, str(BENCHMARK), "--width", "640", "--height", "352", "--seconds", "15"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    above = re.search(r"^above idle: (\d+) MiB$", output, re.MULTILINE)
    assert above is not None
    assert "375 frames of 640x352" in output
    # The bar for any video is 400; all frames of this one would be 242, and half of that as the decoder has them.
    assert int(above[1]) < 100
