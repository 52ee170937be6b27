"""A video with probabilities drawn over time: its frames' times, and what a frame shows."""

from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from featlab.analysis.inside.overlay import check_overlay, write_overlay
from featlab.analysis.style import COLOURS
from featlab.errors import ConfigError, InputError
from featlab.extraction.items import Failure, Item

av = pytest.importorskip("av", reason="the extra `video` is not installed")

CLASSES = ("neutral", "a name that is too long for its place", "joy", "anger", "fear", "disgust", "sadness")
WIDTH, HEIGHT = 200, 150
SHOWN = 480  # Pixels across: a small picture is shown larger.
TIMES = [0, 40, 80, 170, 200, 240, 250, 330, 360, 400]  # Milliseconds: no fixed rate.


@pytest.fixture
def clip(tmp_path):
    """Ten green frames at uneven times."""
    path = tmp_path / "clip.mkv"
    with av.open(path, "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height = WIDTH, HEIGHT
        stream.codec_context.time_base = Fraction(1, 1000)
        green = np.full((HEIGHT, WIDTH, 3), (40, 160, 40), np.uint8)
        for time in TIMES:
            frame = av.VideoFrame.from_ndarray(green)
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def of_frames(clip, failures=(), landmarks=None):
    """Every second frame up to the sixth, as if embedded; all of them "joy" by 0.6, and the others by 0.1 or 0."""
    frames = [0, 2, 4, 6]
    items = [Item(clip, f"clip.mkv#t={TIMES[n] / 1000:.3f}", "p", None, "clip.mkv", n, n) for n in frames]
    kept = [place for place, item in enumerate(items) if item.name not in {name for name, _ in failures}]
    line = np.array([0.1, 0.1, 0.6, 0.1, 0.1, 0, 0], np.float32)
    points = None if landmarks is None else landmarks[kept]
    found = SimpleNamespace(
        table=SimpleNamespace(landmarks=points), items=[items[place] for place in kept], failures=failures
    )
    return found, np.tile(line, (len(kept), 1))


def drawn(path):
    """Return times, and frames as RGB."""
    with av.open(path) as container:
        frames = list(container.decode(video=0))
        assert container.streams.video[0].codec_context.name == "h264"
    return [float(frame.pts * frame.time_base) for frame in frames], [
        frame.to_ndarray(format="rgb24") for frame in frames
    ]


def near(picture, colour):
    return np.abs(picture.astype(int) - 255 * np.array(to_rgb(colour))).max(axis=2) < 60


def test_each_frame_is_shown_at_its_time_with_the_bars_of_the_last_sampled_one(clip, tmp_path):
    landmarks = np.zeros((4, 68, 2), np.float32)
    landmarks[1] = np.nan  # Frame 2 has no face,
    failures = (Failure("clip.mkv#t=0.200", "the video is damaged here"),)  # and frame 4 was not embedded.
    found, probabilities = of_frames(clip, failures, landmarks)
    steps, out = [], tmp_path / "new/o.mp4"
    write_overlay(out, clip, "p, pft", CLASSES, found, probabilities, lambda *step: steps.append(step))
    times, frames = drawn(out)
    assert times == pytest.approx(np.array(TIMES) / 1000, abs=1e-6)
    assert steps == [(number + 1, 10) for number in range(10)]
    assert [path.name for path in out.parent.iterdir()] == ["o.mp4"]
    top, bars = SHOWN * HEIGHT // WIDTH, slice(192, 399)
    for number, frame in enumerate(frames):
        assert frame.shape[1] == SHOWN
        picture, panel = frame[:top], frame[top:]
        curves = panel[-170:-40, 60:]
        # The bar of joy, then the curve: its long side is time.
        bar = near(panel[:-180, bars], COLOURS[2]).any(axis=0).mean()
        curve = near(curves, COLOURS[2]).any(axis=0)
        known = number in (0, 1, 6, 7)
        assert bar == pytest.approx(0.6 if known else 0, abs=0.02), number
        # A reason is written across the picture of a frame without a face.
        assert near(picture, "#222222").any() == (number in (2, 3, 4, 5)), number
        assert not curve[TIMES[number] + 8 :].any(), number
        assert curve.any() == (number > 0), number


def test_what_can_not_be_drawn_over_is_refused(clip, tmp_path, monkeypatch):
    (tmp_path / "folder.mp4").mkdir()
    for path, source, why in (
        ("o.mp4", None, "--images"),
        ("o.mp4", tmp_path, "one video"),
        ("o.avi", clip, "ends in .mp4"),
        (str(tmp_path / "folder.mp4"), clip, "new file"),
        (str(tmp_path / "same.mp4"), tmp_path / "same.mp4", "new file"),
    ):
        with pytest.raises(ConfigError, match=why):
            check_overlay(Path(path), source)
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    with pytest.raises(InputError):
        write_overlay(tmp_path / "o.mp4", tmp_path / "broken.mp4", "p", CLASSES, *of_frames(clip), lambda *step: None)
    assert not (tmp_path / "o.mp4").exists()
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(ConfigError, match=r"featlab\[video\]"):
        check_overlay(tmp_path / "o.mp4", clip)
