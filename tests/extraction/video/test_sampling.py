import json
import sys
from fractions import Fraction

import numpy as np
import pytest

from featlab import open_cache
from featlab.errors import ConfigError, InputError
from featlab.extraction import video
from featlab.extraction.backbones import make_backbone
from featlab.extraction.decode import read_pixels
from featlab.extraction.extract import ExtractConfig, extract
from featlab.extraction.items import Failure, Item
from featlab.extraction.layouts import read_layout
from featlab.extraction.shards import list_path
from featlab.extraction.video import Sampling, VideoTimes, expand_videos, frames, parse_window, probe_video, sample
from featlab.extraction.video.frames import decode_frames


def test_a_file_is_decoded_only_when_its_packets_lack_time_stamps(tmp_path, make_video, monkeypatch):
    path = make_video(tmp_path / "a.mp4")
    with monkeypatch.context() as patch:
        patch.setattr("featlab.extraction.video.decode_packets", None)
        expected = probe_video(path)
    assert len(expected.stamps) == 50
    monkeypatch.setattr("featlab.extraction.video._from_packets", lambda video: None)
    assert probe_video(path) == expected


def cover_alone(path):
    """A picture on the sleeve, as of a song."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 32, 32, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic.value
        frame = av.VideoFrame(32, 32, "yuvj420p")
        frame.pts = 0
        container.mux([*cover.encode(frame), *cover.encode()])


PLAYLIST = b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n"


def test_a_broken_file_says_why_in_one_line(tmp_path, make_video, capfd, monkeypatch, refused):
    whole = make_video(tmp_path / "whole.mp4").read_bytes()
    for number, (content, says) in enumerate(
        (
            (b"no video" * 99, "not a video that can be read: Invalid data"),
            (whole[: len(whole) // 2], "not a video that can be read: Invalid data"),
            (PLAYLIST, "not a video that can be read"),
            (b"", "the file is empty"),
            (lambda path: None, "not a video that can be read: No such file or directory"),
            (lambda path: path.mkdir(), "a folder, not a video"),
            (cover_alone, "there is no video in it"),
            (lambda path: make_video(path, (), codec="mpeg4", format="avi"), "the video has no frames"),
        )
    ):
        path = tmp_path / f"{number}.mp4"
        content(path) if callable(content) else path.write_bytes(content)
        capfd.readouterr()
        with refused(InputError, says):
            probe_video(path)
        assert capfd.readouterr() == ("", "")
    monkeypatch.setitem(sys.modules, "av", None)
    with refused(ConfigError, "video frames need PyAV: pip install 'featlab[video]'"):
        probe_video(path)


def steady(frames, unit=Fraction(1, 25), first=0):
    return VideoTimes(tuple(range(first, first + frames)), unit)


def by_the_rules(times, sampling):
    """The slow way: every moment against every frame."""
    seconds = [(stamp - times.stamps[0]) * times.unit for stamp in times.stamps]
    start, end = (Fraction(str(bound)) for bound in sampling.window or (0, 10**9))
    inside = [place for place, second in enumerate(seconds) if start <= second < end]
    if sampling.fps is not None and inside:
        step, moment, picked = 1 / Fraction(str(sampling.fps)), start, []
        while moment <= seconds[inside[-1]]:
            picked.append(min(inside, key=lambda place: (abs(seconds[place] - moment), place)))
            moment += step
        inside = sorted(set(picked))
    return inside[:: sampling.stride]


def test_sampling_by_window_rate_and_stride():
    for times, sampling, expected in (
        (steady(7), Sampling(), range(7)),
        (steady(138, first=90_000), Sampling(window=(2.0, 5.0)), range(50, 125)),  # BioVid's; half open
        (steady(25), Sampling(fps=5, window=(1.0, 2.0)), []),
        (VideoTimes(tuple(range(40)), Fraction(1, 10)), Sampling(window=(2.1, 2.3)), [21, 22]),
        # 0.1 s is as far from 0.08 s as from 0.12 s: the earlier one.
        (steady(11), Sampling(fps=10), [0, 2, 5, 7, 10]),
        (steady(20), Sampling(fps=240), range(20)),
        (steady(1), Sampling(fps=5), [0]),
        # A stride counts what window and rate left.
        (steady(100), Sampling(fps=5, window=(1.0, 3.0), stride=4), [25, 45, 65]),
    ):
        assert list(sample(times, sampling)) == list(expected), sampling
    assert steady(138, first=90_000).seconds(50) == 2.0
    units = (Fraction(1, 1000), Fraction(1001, 30000), Fraction(1, 90))
    for seed in range(60):
        rng = np.random.default_rng(seed)
        stamps = np.cumsum(rng.integers(1, 400 if seed % 2 else 60, 40)) + int(rng.integers(-500, 500))
        times = VideoTimes(tuple(stamps.tolist()), units[seed % 3])
        length = times.seconds(39)
        start = round(float(rng.uniform(0, length)), 2)
        window = (start, round(start + float(rng.uniform(0.1, length)), 2)) if seed % 4 else None
        sampling = Sampling((None, 5, 12.5, 29.97, 3)[seed % 5], window, int(rng.integers(1, 4)))
        assert list(sample(times, sampling)) == by_the_rules(times, sampling)


def test_a_value_out_of_range_is_one_line(refused):
    nowhere = ((5.0, 2.0), (2.0, 2.0), (-1.0, 2.0), (0.0, float("inf")))
    for name, values in {"fps": (0, float("nan")), "stride": (0,), "window": nowhere}.items():
        for value in values:
            with refused(ConfigError, "video: ", name, f"got {value}"):
                Sampling(**{name: value})
    assert (parse_window("2.0-5.0"), parse_window(" 0 - .5 ")) == ((2.0, 5.0), (0.0, 0.5))
    for text in ("", "2", "2-", "-2-5", "2.0:5.0", "2-5-7", "two-five"):
        with refused(ConfigError, "video: expected a window FROM-TO in seconds, for example 2.0-5.0"):
            parse_window(text)


def test_a_clock_that_starts_anew_loses_neither_part(tmp_path, make_video, read_number):
    def join(first=(0, 0), **options):
        """Recordings of 40 and of 30 frames in one file, numbered from where they start."""
        ranges = [range(start, start + count) for start, count in zip(first, (40, 30), strict=True)]
        parts = [make_video(tmp_path / "part.ts", stamps, **options).read_bytes() for stamps in ranges]
        (tmp_path / "a.ts").write_bytes(b"".join(parts))
        return tmp_path / "a.ts"

    for options in ({}, {"b_frames": 0}, {"first": (0, 100_000)}, {"first": (100_000, 0)}, {"first": (50, 0)}):
        path = join(**options)
        times = probe_video(path)
        assert (times.jumps, times.cut_short) == (True, None)
        steps = np.diff([times.seconds(place) for place in range(70)])
        np.testing.assert_allclose(steps, 1 / 25, atol=1e-3)
        for places in (range(70), [39, 40], [3], [69], [5, 45]):
            shown = [read_number(frame) for frame in decode_frames(path, [times.stamps[place] for place in places])]
            assert shown == [place % 40 for place in places], options
        found = expand_videos([Item(path, "a.ts", "s", None, "v", 0, 0)], Sampling(fps=5))
        assert [item.frame for item in found.items] == list(range(0, 70, 5))
        assert (found.jumping, found.failures) == (("a.ts",), ())
    assert not probe_video(join((0, 60))).jumps  # a pause


def test_a_repeated_time_stamp_costs_one_frame_and_is_said(tmp_path, make_video, read_number, monkeypatch):
    path = make_video(tmp_path / "a.mkv", b_frames=0)
    whole = probe_video(path).stamps
    read = frames.read_packets

    def repeated(video):
        for number, packet in enumerate(read(video)):
            if number == 7:
                packet.pts = packet.dts = whole[6]
            yield packet

    for module in (frames, video):
        monkeypatch.setattr(module, "read_packets", repeated)
    times = probe_video(path)
    assert times.stamps == (*whole[:7], *whole[8:])
    assert times.cut_short.startswith("time stamps of 1 frames are missing or repeated")
    shown = [read_number(frame) for frame in decode_frames(path, times.stamps)]
    assert shown == [*range(7), *range(8, 50)]


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
        *((f"s1/pain/a.mp4#t={0.04 * frame:.3f}", frame, 512 * frame, frame + 1) for frame in range(3)),
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
        (f"a.mp4#t={frame / 25:.3f}", frame, f"label {frame}") for frame in (0, 10, 20, 25)
    ]
    assert expanded.failures == tuple(Failure(f"a.mp4#frame={k}", "the video has 50 frames") for k in (50, 51))
    nothing = Failure("a.mp4", "none of its labelled frames is among the sampled ones")
    assert (expand(3, 4).items, expand(3, 4).failures) == ([], (nothing,))
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


def test_frames_become_rows_and_a_finished_cache_knows_what_failed_before(tmp_path, make_video, make_image, refused):
    def run(**more):
        expanded = expand_videos(read_layout("folders", tmp_path / "people"), Sampling(fps=12.5))
        given = {"neutral": "neutral", "failures": expanded.failures, "config": ExtractConfig(jobs=1, batch=3)}
        return expanded.items, extract(expanded.items, make_backbone("hog", size=16), out, **given | more)

    out, pain = tmp_path / "c.h5", tmp_path / "people/s1/pain"
    make_video(tmp_path / "people/s1/neutral/rest.AVI", range(20), codec="mpeg4")
    make_image(tmp_path / "people/s1/neutral/img.png")
    make_video(pain / "a.mkv", range(10))
    (pain / "broken.mp4").write_bytes(b"no video" * 99)
    items, report = run()
    listed = [json.loads(line) for line in list_path(out).read_text().splitlines()]
    assert [Failure(**entry) for entry in listed] == list(report.failures)
    assert [failure.path for failure in report.failures] == ["s1/pain/broken.mp4"]
    with open_cache(out, verify=True) as cache:
        table = cache.read()
    clips = {"s1/neutral": 1, "s1/neutral/rest.AVI": 10, "s1/pain/a.mkv": 5}
    assert [table.videos[video] for video in table.video] == [
        name for name, count in clips.items() for _ in range(count)
    ]
    assert table.paths[1:3] == ("s1/neutral/rest.AVI#t=0.000", "s1/neutral/rest.AVI#t=0.080")
    assert table.frame[1:4].tolist() == [0, 2, 4]
    np.testing.assert_array_equal(table.embeddings, make_backbone("hog", size=16).embed([*read_pixels(items)], None))
    again = run()[1]
    assert (again.digest, again.failures, again.resumed_rows) == (report.digest, report.failures, 16)
    (pain / "more.mp4").write_bytes(b"broken too")
    with refused(InputError, "s1/pain/more.mp4 is new, and fails (not a video", "--if-exists overwrite"):
        run()
    (pain / "more.mp4").unlink()
    make_video(pain / "broken.mp4", range(5))
    with refused(InputError, "s1/pain/broken.mp4#t=0.000 is new"):
        run()
    assert run(if_exists="overwrite")[1].failures == ()
