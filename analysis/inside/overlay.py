"""A video with what a person's model says of it: a bar a class, and the probabilities up to the frame that is shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from matplotlib.font_manager import findfont
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from featlab.analysis.style import COLOURS, MUTED
from featlab.cache.atomic import atomic_path
from featlab.errors import ConfigError, InputError
from featlab.extraction.video import VideoTimes, probe_video
from featlab.extraction.video.frames import decode_frames, import_av, is_video
from featlab.workspace.predict_images import Embedded

_NARROWEST, _WIDEST = 480, 1280  # Pixels between which the picture's width is kept.
_LETTERS = 26  # The panel's width in heights of a letter: what a phone's screen still shows large enough.
_FINER = 3  # Curves are drawn that much larger and scaled down: their edges become smooth.
_INK, _GRID, _EMPTY = "#222222", "#DDDDDD", "#F0F0F0"


def check_overlay(path: Path, source: Path | None) -> None:
    """Raise a FeatlabError where there is no video to draw over or none can be written, before any work is done."""
    if source is None or not is_video(source) or source.is_dir():
        raise ConfigError("--overlay draws over one video; name it with --images CLIP")
    if path.suffix.lower() != ".mp4" or path.resolve() == source.resolve() or path.is_dir():
        raise ConfigError(f"--overlay {path}: name a new file that ends in .mp4")
    if "libx264" not in import_av().codecs_available:
        raise ConfigError("this build of PyAV writes no H.264: pip install --force-reinstall 'featlab[video]'")


def write_overlay(
    path: Path,
    video: Path,
    title: str,
    classes: Sequence[str],
    found: Embedded,
    probabilities: NDArray[np.float32],
    on_progress: Callable[[int, int], None],
) -> None:
    """Write a video as mp4 (H.264, no sound), each frame at its own time, whole or not at all.

    ``found`` are n frames that were embedded; their (n, K) probabilities hold up to the next that was looked at.
    """
    av, times = import_av(), probe_video(video)
    values, reasons = _by_frame(times, found, probabilities)
    seconds = np.array([times.seconds(place) for place in range(len(reasons))])
    first = next((each for each in decode_frames(video, times.stamps) if not isinstance(each, InputError)), None)
    if first is None:
        raise InputError(f"{video}: none of its frames can be decoded")
    width = min(max(first.shape[1], _NARROWEST), _WIDEST) // 2 * 2
    height = round(first.shape[0] * width / first.shape[1])
    panel = _Panel(title, classes, seconds, values, width)
    # H.264 wants even sides.
    canvas = Image.new("RGB", (width, (height + panel.height + 1) // 2 * 2), "white")
    with atomic_path(path) as partial, av.open(str(partial), "w", format="mp4") as written:
        # How long the last frame is shown; a single one, a second.
        rate = Fraction((len(reasons) - 1) / (seconds[-1] or 1.0) or 1.0).limit_denominator(1001)
        stream = written.add_stream("libx264", rate, {"crf": "20", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = *canvas.size, "yuv420p"
        stream.codec_context.time_base = times.unit
        for frame, pixels in enumerate(decode_frames(video, times.stamps)):
            on_progress(frame + 1, len(reasons))
            if isinstance(pixels, InputError):
                reasons[frame] = str(pixels)
            else:
                canvas.paste(Image.fromarray(pixels).resize((width, height)))
            if reasons[frame]:
                pen, middle, why = ImageDraw.Draw(canvas), height / 2, _cut(reasons[frame], panel.font, 0.9 * width)
                pen.rectangle((0, middle - panel.letter, width, middle + panel.letter), _INK)
                pen.text((width / 2, middle), why, "white", panel.font, "mm")
            canvas.paste(panel.draw(frame), (0, height))
            made = av.VideoFrame.from_image(canvas)
            made.pts, made.time_base = times.stamps[frame] - times.stamps[0], times.unit
            written.mux(stream.encode(made))
        written.mux(stream.encode(None))


def _by_frame(
    times: VideoTimes, found: Embedded, probabilities: NDArray[np.float32]
) -> tuple[NDArray[np.float32], list[str]]:
    """Return (N, K) probabilities of all N frames of a video, NaN where there are none, and why; empty if unknown."""
    failed = {failure.path.rpartition("#t=")[2]: failure.reason for failure in found.failures}
    nothing, frames = np.full_like(probabilities[0], np.nan), np.arange(len(times.stamps))
    named = {frame: failed.get(f"{times.seconds(frame):.3f}", "") for frame in frames.tolist()}
    seen = {frame: (nothing, why) for frame, why in named.items() if why}
    points = found.table.landmarks
    for row, item in enumerate(found.items):
        faceless = points is not None and bool(np.isnan(points[row]).any())
        seen[item.frame] = (nothing, "no face was found") if faceless else (probabilities[row], "")
    places = np.array(sorted(seen))
    # What was seen holds up to the next sampled frame; not before the first, nor after the end of a window.
    last = places[(np.searchsorted(places, frames, side="right") - 1).clip(0)]
    held = (last <= frames) & (frames - last < np.diff(places).max(initial=1))
    shown = [seen[place] if ok else (nothing, "") for place, ok in zip(last.tolist(), held, strict=True)]
    return np.stack([line for line, _ in shown]), [why for _, why in shown]


class _Panel:
    """What stands below the picture: a title, a line a class, the curves and their axis."""

    def __init__(
        self, title: str, classes: Sequence[str], seconds: NDArray[np.float64], values: NDArray[np.float32], width: int
    ) -> None:
        self.letter = unit = width // _LETTERS
        self.font, self.strong = _font("DejaVu Sans", unit), _font("DejaVu Sans:bold", unit)
        self.classes, self.seconds, self.values = classes, seconds, values
        self.width, self.height = width, int(unit * (2.2 + 1.6 * len(classes) + 9.5))
        self.top, self.bottom = self.height - 9 * unit, self.height - 2 * unit
        self.across = 3 * unit + (width - 4 * unit) * seconds / max(float(seconds[-1]), 1e-9)
        self.empty, self.whole = self._sheets(title)

    def _sheets(self, title: str) -> tuple[Image.Image, Image.Image]:
        """Return the panel without curves, and with all of them."""
        sheet, unit = Image.new("RGB", (self.width * _FINER, self.height * _FINER), "white"), self.letter * _FINER
        pen, font, small = ImageDraw.Draw(sheet), _font("DejaVu Sans", unit), _font("DejaVu Sans", int(0.75 * unit))
        x, y = self.across * _FINER, _FINER * (self.bottom - self.values * (self.bottom - self.top))
        pen.text((unit, 1.3 * unit), _cut(title, font, 0.75 * sheet.width), MUTED, font, "lm")
        for share in (0, 0.5, 1):
            level = _FINER * (self.bottom - share * (self.bottom - self.top))
            pen.line((x[0], level, x[-1], level), fill=_GRID, width=_FINER)
            pen.text((x[0] - unit / 3, level), f"{100 * share:.0f} %", MUTED, small, "rm")
        pen.text((x[0], self.bottom * _FINER + unit), "0 s", MUTED, small, "lm")
        pen.text((x[-1], self.bottom * _FINER + unit), f"{self.seconds[-1]:.1f} s", MUTED, small, "rm")
        empty = sheet.resize((self.width, self.height), Image.Resampling.BOX)
        for code in range(len(self.classes)):
            for part in np.ma.clump_unmasked(np.ma.masked_invalid(y[:, code])):  # type: ignore[no-untyped-call]
                points = np.column_stack([x[part], y[part, code]]).ravel().tolist()
                pen.line(points, COLOURS[code % len(COLOURS)], unit // 5)
        return empty, sheet.resize((self.width, self.height), Image.Resampling.BOX)

    def draw(self, frame: int) -> Image.Image:
        """Return the panel of one frame: its bars, the curves up to it, the cursor."""
        here, unit, line = float(self.across[frame]), self.letter, self.values[frame]
        panel = self.empty.copy()
        panel.paste(self.whole.crop((0, 0, int(here) + 1, self.height)))
        pen = ImageDraw.Draw(panel)
        pen.line((here, self.top - unit // 2, here, self.bottom), _INK, max(unit // 8, 1))
        end, left, right = self.width - unit, 0.4 * self.width, self.width - 4.5 * unit
        pen.text((end, 1.3 * unit), f"{self.seconds[frame]:.1f} s", _INK, self.font, "rm")
        for code, value in enumerate(line.tolist()):
            middle, font = (3 + 1.6 * code) * unit, self.strong if value == line.max() else self.font
            high, low = middle - unit // 2, middle + unit // 2
            pen.text((unit, middle), _cut(self.classes[code], font, left - 1.5 * unit), _INK, font, "lm")
            pen.rectangle((left, high, right, low), _EMPTY)
            if value > 0:
                pen.rectangle((left, high, left + value * (right - left), low), COLOURS[code % len(COLOURS)])
            pen.text((end, middle), "–" if np.isnan(value) else f"{100 * value:.0f} %", _INK, font, "rm")
        return panel


def _font(name: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(findfont(name), size)


def _cut(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """Return a text so short that it fits a width in pixels."""
    whole = text
    while font.getlength(text) > width:
        whole = whole[:-1]
        text = f"{whole}…"
    return text
