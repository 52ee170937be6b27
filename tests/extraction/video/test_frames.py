import struct
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from featlab.errors import InputError
from featlab.extraction.decode import read_pixels
from featlab.extraction.items import Item
from featlab.extraction.video import expand_videos, probe_video
from featlab.extraction.video import frames as video_frames
from featlab.extraction.video.frames import decode_frames

OPEN = {"x264-params": "open-gop=1:scenecut=0"}
KINDS = [
    ("a.mp4", "libx264", {}),
    ("open.mov", "libx264", {"b_frames": 3, "stream": OPEN}),
    ("a.mkv", "libx264", {"b_frames": 3}),
    ("a.ts", "libx264", {"stream": OPEN}),
    ("a.avi", "libx264", {}),
    ("b.avi", "mpeg4", {"b_frames": 0}),
    ("a.m4v", "mpeg4", {}),
    ("a.mpg", "mpeg2video", {}),
    ("a.webm", "libvpx-vp9", {"stream": {"cpu-used": "5", "lag-in-frames": "16"}}),
    ("b.webm", "libvpx", {}),
    ("a.wmv", "wmv2", {"b_frames": 0}),
    ("a.flv", "flv", {"b_frames": 0}),
]


def decode(path, places):
    stamps = probe_video(path).stamps
    return list(decode_frames(path, [stamps[place] for place in places]))


def shown_at(path):
    times = probe_video(path)
    assert (times.cut_short, times.jumps) == (None, False)
    return pytest.approx([times.seconds(place) for place in range(len(times.stamps))], abs=1e-3)


@pytest.mark.parametrize(("name", "codec", "more"), KINDS)
def test_times_and_pixels_of_a_frame_do_not_depend_on_the_way_in(tmp_path, make_video, read_number, name, codec, more):
    path = make_video(tmp_path / name, range(150), codec=codec, **more)
    assert shown_at(path) == [frame / 25 for frame in range(150)]
    whole = decode(path, range(150))
    assert [read_number(image) for image in whole] == list(range(150))
    for start in range(0, 140, 9):
        places = range(start, min(start + 30, 150), 13)
        for place, image in zip(places, decode(path, places), strict=True):
            np.testing.assert_array_equal(image, whole[place], err_msg=f"frame {place}, entered at {start}")


def test_trimmed_late_and_uneven_videos_show_the_right_frames_at_their_times(tmp_path, make_video, read_number):
    trimmed = {"file": {"use_editlist": "1", "avoid_negative_ts": "disabled"}}  # what is before 0 isn't there
    uneven = [0, 40, 41, 300, 333, 367, 400, 2000, 2001, 2500]
    for name, stamps, more, first, times in (
        ("trimmed.mp4", range(-10, 40), trimmed, 10, [frame / 25 for frame in range(40)]),
        *((f"late.{kind}", range(30, 60), {}, 0, [frame / 25 for frame in range(30)]) for kind in ("mp4", "mkv", "ts")),
        ("uneven.mkv", uneven, {"unit": Fraction(1, 1000)}, 0, [stamp / 1000 for stamp in uneven]),
    ):
        path = make_video(tmp_path / name, stamps, **more)
        assert shown_at(path) == times, name
        last = len(times) - 1
        assert [read_number(image) for image in decode(path, [0, 1, last])] == [first, first + 1, first + last]


def test_missing_stamps_fail_alone(tmp_path, make_video, read_number):
    path = make_video(tmp_path / "a.mkv")
    results = list(decode_frames(path, [-5, 40, 41, 80, 1920, 1961, 99999]))
    gone = "the frame can't be decoded"
    expected = [gone, 1, gone, 2, 48, gone, gone]
    assert [str(r) if isinstance(r, InputError) else read_number(r) for r in results] == expected
    path.unlink()
    gone = "not a video that can be read: No such file or directory"
    assert [str(result) for result in decode_frames(path, [0, 1])] == [gone, gone]


def test_a_video_is_entered_near_the_frame_and_not_at_its_beginning(tmp_path, make_video, read_number, monkeypatch):
    path = make_video(tmp_path / "a.mp4", range(400))
    seen = []
    original = video_frames.decode_packets

    def counted(video, packets):
        for result in original(video, packets):
            seen.append(1)
            yield result

    monkeypatch.setattr(video_frames, "decode_packets", counted)
    assert [read_number(image) for image in decode(path, [390, 399])] == [390, 399]
    assert len(seen) < 30


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts open files through /proc")
def test_frames_come_one_at_a_time_and_the_file_is_closed_by_a_caller_who_stops(tmp_path, make_video, read_number):
    path = make_video(tmp_path / "a.mp4")

    def opened():
        return sum(entry.resolve() == path for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink())

    images = read_pixels(expand_videos([Item(path, path.name, "s", None, "v", 0, 0)]).items)
    assert read_number(next(images)) == 0
    assert opened() == 1
    images.close()
    assert opened() == 0


def test_a_telephones_video_is_upright(tmp_path, make_video):
    path = make_video(tmp_path / "a.mp4", range(5))
    (stored,) = decode(path, [3])
    content = bytearray(path.read_bytes())
    matrix = content.index(b"tkhd") + 44
    # ISO/IEC 14496-12, 8.3.2: stored (x, y) is shown at (a x + c y, b x + d y).
    for a, b, c, d, turned in (
        (0, 1, -1, 0, lambda image: np.rot90(image, -1)),
        (-1, 0, 0, -1, lambda image: np.rot90(image, 2)),
        (0, -1, 1, 0, lambda image: np.rot90(image, 1)),
        (-1, 0, 0, 1, lambda image: image[:, ::-1]),
        (1, 0, 0, -1, lambda image: image[::-1]),
        (0, 1, 1, 0, lambda image: image.swapaxes(0, 1)),
        (1, 0, 0, 1, lambda image: image),
    ):
        content[matrix : matrix + 36] = struct.pack(">9i", *(v << 16 for v in (a, b, 0, c, d, 0, 0, 0)), 1 << 30)
        path.write_bytes(content)
        (image,) = decode(path, [3])
        assert image.flags.c_contiguous
        np.testing.assert_array_equal(image, turned(stored))


def test_damage_fails_the_frames_up_to_the_next_key_frame_and_always_the_same_ones(tmp_path, make_video):
    av = pytest.importorskip("av")
    path = make_video(tmp_path / "a.mp4", range(60), stream={"x264-params": "scenecut=0"})
    whole = decode(path, range(60))
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        (broken,) = (packet for packet in packets if round(packet.pts * packet.time_base * 25) == 28)
        place, size = broken.pos, broken.size
    content = bytearray(path.read_bytes())
    content[place : place + size] = b"\xff" * size
    path.write_bytes(content)
    damaged = decode(path, range(60))
    bad = [number for number, image in enumerate(damaged) if isinstance(image, InputError)]
    assert 28 in bad
    assert set(bad) <= set(range(24, 36))
    assert all("the video is damaged here" in str(damaged[number]) or number == 28 for number in bad)
    for number in set(range(60)) - set(bad):
        np.testing.assert_array_equal(damaged[number], whole[number])
    for start in range(0, 60, 4):
        part = decode(path, range(start, start + 4))
        assert [isinstance(image, InputError) for image in part] == [start + k in bad for k in range(4)]
