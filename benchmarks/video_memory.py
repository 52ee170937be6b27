"""How much memory the extraction of a video takes above an idle process.

    python benchmarks/video_memory.py                              # 60 s of 1920x1080 at 25 frames a second, all frames
    python benchmarks/video_memory.py --width 640 --height 360 --fps 5 --window 2.0-5.0
    python benchmarks/video_memory.py --video clip.mp4             # a video of your own

One process draws the video, a fresh one extracts it with HOG, in that one process and alone, and reads its own highest
resident memory (`ru_maxrss`) twice: after all imports and one image, which is idle, and at the end. The alternative it
is held against, all frames in one array, is a product of numbers and needs no run.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from fractions import Fraction
from pathlib import Path

RATE = 25
MIB = 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--video", type=Path, help="default: one that is drawn")
    parser.add_argument("--width", type=int, default=1920)
    parser.add_argument("--height", type=int, default=1080)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--fps", type=float, help="frames a second that are taken; default: all")
    parser.add_argument("--window", help="seconds that are taken, as 2.0-5.0; default: all")
    parser.add_argument("--part", choices=("draw", "extract"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part == "draw":
        draw(options.video, options.width, options.height, options.seconds)
    elif options.part == "extract":
        print(json.dumps(extract_video(options.video, options.fps, options.window)))
    else:
        report(options)


def report(options: argparse.Namespace) -> None:
    # This process stays small: a child inherits the highest resident memory of the process that starts it.
    with tempfile.TemporaryDirectory() as folder:
        video = options.video
        if video is None:
            video = Path(folder) / "drawn.mp4"
            run("draw", video, options, capture=False)
        found = json.loads(run("extract", video, options, capture=True))
    print(f"{found['frames']} frames of {found['width']}x{found['height']} in {found['seconds']:.1f} s")
    print(f"idle {found['idle'] / MIB:.0f} MiB, highest {found['highest'] / MIB:.0f} MiB")
    print(f"above idle: {(found['highest'] - found['idle']) / MIB:.0f} MiB")
    print(f"all frames in one array would be {found['frames'] * found['width'] * found['height'] * 3 / MIB:.0f} MiB")


def run(part: str, video: Path, options: argparse.Namespace, *, capture: bool) -> str:
    command = [sys.executable, __file__, "--part", part, "--video", str(video)]
    for name in ("width", "height", "seconds", "fps", "window"):
        if (value := getattr(options, name)) is not None:
            command += [f"--{name}", str(value)]
    done = subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE if capture else None)
    return done.stdout or ""


def draw(path: Path, width: int, height: int, seconds: int) -> None:
    """Write a video of noise that moves and changes, with frames that the decoder has to keep for others."""
    import av
    import numpy as np

    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (-(-height // 16), -(-width // 16), 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(
            "libx264", rate=RATE, options={"preset": "ultrafast", "x264-params": "bframes=3:ref=4"}
        )
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(seconds * RATE):
            noise[rng.integers(len(noise))] = rng.integers(0, 256, noise.shape[1:], dtype=np.uint8)
            picture = np.roll(noise.repeat(16, axis=0).repeat(16, axis=1), 2 * number, axis=1)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture[:height, :width]), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def extract_video(video: Path, fps: float | None, window: str | None) -> dict[str, float]:
    import resource
    import time

    import numpy as np

    from featlab.extraction.backbones import make_backbone
    from featlab.extraction.decode import read_pixels
    from featlab.extraction.extract import ExtractConfig, extract
    from featlab.extraction.items import Item
    from featlab.extraction.video import Sampling, expand_videos, parse_window
    from featlab.extraction.video.frames import import_av

    def highest() -> int:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else 1024 * peak

    import_av()
    backbone = make_backbone("hog")
    backbone.embed([np.zeros((96, 96, 3), dtype=np.uint8)], None)
    idle = highest()
    start = time.perf_counter()
    sampling = Sampling(fps, None if window is None else parse_window(window))
    expanded = expand_videos([Item(video, video.name, "s", "neutral", video.name, 0, 0)], sampling)
    if expanded.failures:
        sys.exit(f"{video}: {expanded.failures[0].reason}")
    with tempfile.TemporaryDirectory() as folder:
        config = ExtractConfig(jobs=1)
        report = extract(expanded.items, backbone, Path(folder) / "cache.h5", neutral="neutral", config=config)
    seconds, peak = time.perf_counter() - start, highest()
    image = next(read_pixels(expanded.items[:1]))
    assert not isinstance(image, Exception)
    height, width = image.shape[:2]
    return {
        "frames": report.rows,
        "width": width,
        "height": height,
        "seconds": seconds,
        "idle": idle,
        "highest": peak,
    }


if __name__ == "__main__":
    main()
