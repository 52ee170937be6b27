"""The house style of every figure: colour-blind safe, readable at column width, vector, the numbers saved beside it."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from featlab.analysis.render import csv_text
from featlab.cache.atomic import atomic_path, atomic_write_text
from featlab.config.analysis import FIGURE_FORMATS, LARGEST_DRAWING

COLUMN = 3.4  # Width of a paper's column, inches.
FULL = 7.0  # Width of a paper's page, inches.

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
"""Okabe and Ito (2008), the ones that stand out on white first."""
GAIN, LOSS, MUTED = COLOURS[0], COLOURS[1], "#8A8A8A"
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")

# Any: the type of the keys differs between releases of matplotlib.
_RC: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 7.5,
    "axes.titlesize": 8,
    "axes.titley": 1.0,
    "axes.labelsize": 7.5,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.edgecolor": "#444444",
    "axes.axisbelow": True,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.2,
    "lines.markersize": 4,
    "savefig.dpi": 300,
    "figure.facecolor": "white",
    # Letters as outlines look the same on every machine; type 42 is what publishers ask of a PDF.
    "svg.fonttype": "path",
    "pdf.fonttype": 42,
    # A name with two dollar signs is no formula.
    "text.parse_math": False,
    # The same figure gives the same bytes.
    "svg.hashsalt": "featlab",
}


@contextmanager
def house_style() -> Iterator[None]:
    """Apply the style to what is drawn inside the block; the user's own settings are back after it."""
    with mpl.rc_context(_RC):
        yield


def figure(width: float = COLUMN, height: float = 2.4) -> Figure:
    """Return an empty figure that draws without a display, whatever backend the user has chosen."""
    drawn = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(drawn)
    return drawn


def panels(drawn: Figure, count: int, across: int, **options: Any) -> list[Axes]:
    """Return so many panels, at most ``across`` on a line, which the last of them may leave half empty."""
    grid = drawn.subplots(math.ceil(count / across), across, squeeze=False, **options)
    for spare in grid.flat[count:]:
        spare.set_axis_off()
    return list(grid.flat[:count])


def names_down(axes: Axes, names: Sequence[str]) -> None:
    """Name the lines of a chart, the first at the top; lines across, and no spine beside the names."""
    axes.set_yticks(range(len(names)), names, linespacing=1.05)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")


def in_percent(axis: Axis) -> None:
    """Label an axis of fractions in percent."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g}"))


def folded(name: str, most: int) -> str:
    """Return a name in lines of at most ``most`` letters; broken before its last bracket where that is enough."""
    start, bracket, rest = name.rpartition(" (")
    if len(name) > most and bracket and max(len(start), len(rest) + 1) <= most:
        return f"{start}\n({rest}"
    long_word = any(len(word) > most for word in name.split())
    return textwrap.fill(name, most, break_on_hyphens=long_word)


def folded_name(name: str, most: int) -> str:
    """Return one word of many parts in lines of at most ``most`` letters, broken after the signs that join them."""
    lines = [""]
    for part in re.findall(r"[^_\-. ]+[_\-. ]*|[_\-. ]+", name):
        pieces = [part[start : start + most] for start in range(0, len(part), most)]
        if len(lines[-1] + part) > most and lines[-1]:
            lines.append("")
        lines[-1] += pieces[0]
        lines += pieces[1:]
    return "\n".join(lines)


def save_figure(drawn: Figure, path: Path) -> None:
    """Write a figure as .svg, .pdf or .png, whole or not at all; the same figure gives the same bytes."""
    # A date in the file would make every run a change.
    undated: Mapping[str, dict[str, Any]] = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}, ".png": {}}
    suffix = Path(path).suffix
    with house_style(), atomic_path(path) as partial:
        if layout := drawn.get_layout_engine():
            # Once: matplotlib would place everything again for each format, and draw it for that.
            layout.execute(drawn)
            drawn.set_layout_engine(None)
        drawn.savefig(partial, format=suffix[1:], metadata=undated[suffix])


def save_data(path: Path, columns: Mapping[str, Sequence[Any]]) -> Path:
    """Write the numbers of a figure as csv beside it: ``figure.svg`` gets ``figure.csv``."""
    beside = Path(path).with_suffix(".csv")
    atomic_write_text(beside, csv_text((list(columns), *zip(*columns.values(), strict=True))))
    return beside


def save_plot(
    folder: Path, name: str, drawn: Figure, data: Mapping[str, Sequence[Any]], formats: Sequence[str] = ()
) -> list[Path]:
    """Write a figure as .svg and in further ``formats`` (.png where it is too large to report), its numbers as .csv."""
    paths = {ending: folder / f"{name}.{ending}" for ending in FIGURE_FORMATS}
    save_figure(drawn, paths["svg"])
    large = ["png"] if paths["svg"].stat().st_size > LARGEST_DRAWING else []
    wanted = ["svg", *(ending for ending in ("pdf", "png") if ending in (*formats, *large))]
    for ending in wanted[1:]:
        save_figure(drawn, paths[ending])
    for ending in set(paths).difference(wanted):
        paths[ending].unlink(missing_ok=True)
    return [*(paths[ending] for ending in wanted), save_data(paths["svg"], data)]
