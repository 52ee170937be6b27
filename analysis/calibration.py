"""`featlab calibrate`: recordings of any table, what was found as columns, in words and in pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from featlab.analysis import style
from featlab.analysis.page import DrawnFigure, Result
from featlab.analysis.table import Column, columns_of, count_text, make_table
from featlab.cache.atomic import atomic_path
from featlab.cache.schema import as_cell
from featlab.errors import InputError, closest
from featlab.extraction.items import Failure, natural_key
from featlab.extraction.tables import good_rows
from featlab.extraction.tables.calibrate import DRIFT, GROUP, PARTS, RANGE, Calibration, Recordings, Rest, drifts
from featlab.extraction.tables.rows import ReadRows, Selection
from featlab.extraction.tables.sources import read_source

_PANELS, _MOST_PEOPLE = 4, 40

_TABLES = (".csv", ".tsv", ".npz", ".parquet")


def read_recordings(
    source: Path, manifest: Path | None, selection: Selection, neutral: str, *, skip_bad: bool, merge_names: bool
) -> tuple[Recordings, tuple[Failure, ...], ReadRows]:
    """Return the rows of numbers, what has no row (refused without ``skip_bad``), and all that was read."""
    read = read_source(source, manifest, selection, neutral, skip_bad=skip_bad)
    read, failures = good_rows(read, source, "float32", skip_bad=skip_bad)
    index = read.index.one_name_each(neutral, merge=merge_names)
    names = read.rows.columns or tuple(f"f{place}" for place in range(read.rows.features.shape[1]))
    return Recordings(read.rows.features[read.kept], index, names), failures, read.rows


def resting_rows(rows: Recordings, neutral: str, read: Callable[[Path], Recordings]) -> Recordings:
    """Return the rows of some labels, of videos (``video:NAME,…``, with ``*`` and ``?``), or all of another table."""
    if Path(neutral).suffix.lower() in _TABLES:
        other = read(Path(neutral))
        if missing := [name for name in rows.names if name not in other.names]:
            raise InputError(f"{neutral} has no feature {missing[0]!r}{closest(missing[0], other.names)}")
        order = [other.names.index(name) for name in rows.names]
        return replace(other, features=other.features[:, order], names=rows.names)
    by_video = neutral.startswith("video:")
    what, patterns = ("video", neutral[6:]) if by_video else ("label", rows.index.neutral or neutral)
    mine = [name or "" for name in getattr(rows.index, what)]
    fits: set[str] = set()
    for pattern in (each.strip() for each in patterns.split(",")):
        found = {name for name in set(mine) if name and (name == pattern or fnmatchcase(name, pattern))}
        if not found:
            held = sorted(set(mine) - {""})
            listed = f"{what}s: {', '.join(held[:8]) or 'none'}"
            raise InputError(f"--neutral: no row has the {what} {pattern!r} ({listed}){closest(pattern, held)}")
        fits |= found
    return rows.take(np.flatnonzero([name in fits for name in mine]))


def calibrated_columns(rows: Recordings, calibration: Calibration) -> dict[str, Sequence[Any]]:
    """Return the calibrated table: what the rows are, each feature's difference, then each in spreads (``NAME_z``)."""
    kept = np.flatnonzero(np.isin(rows.index.subject, calibration.left_out, invert=True))
    mine = rows.take(kept)
    columns: dict[str, Any] = {name: getattr(mine.index, name) for name in ("subject", "label", "video", "frame")}
    columns |= {} if mine.index.paths is None else {"path": mine.index.paths}
    columns |= {"session": mine.index.session} if any(mine.index.session) else {}
    for values, ending in ((calibration.difference, ""), (calibration.in_spreads, "_z")):
        columns |= {name + ending: values[kept, place] for place, name in enumerate(rows.names)}
    return columns


def rest_columns(calibration: Calibration, names: Sequence[str]) -> dict[str, Sequence[Any]]:
    """Return every resting face, a line a person (and session) and feature; the interval of one frame is empty."""
    rests = [*calibration.people.values(), *calibration.sessions]
    names_of = "subject", "session", "frames", "clips"
    facts = [(rest.who[0], rest.who[1] or "all", len(rest.rows), rest.clips) for rest in rests for _ in names]
    columns: dict[str, Any] = dict(zip(names_of, zip(*facts, strict=True), strict=True))
    columns["feature"] = [*names] * len(rests)
    parts = {"effective_frames": "effective", "centre": "centre", "plus_minus": "half", "spread": "spread"}
    for head, name in parts.items():
        columns[head] = np.concatenate([getattr(rest, name) for rest in rests])
    return columns | {"spread_from": [each for rest in rests for each in rest.spread_from.tolist()]}


def write_columns(path: Path, columns: Mapping[str, Any]) -> None:
    """Write columns as .csv or .parquet, whole or not at all; NaN is empty."""
    import pyarrow as arrow
    from pyarrow import csv, parquet

    kept = {name: _rounded(column) for name, column in columns.items()}
    if path.suffix.lower() == ".csv":
        kept = {
            str(as_cell(name)): each if isinstance(each, np.ndarray) else [*map(as_cell, each)]
            for name, each in kept.items()
        }
    table = arrow.table({name: arrow.array(column, from_pandas=True) for name, column in kept.items()})
    with atomic_path(path) as partial, partial.open("wb") as file:
        if path.suffix.lower() == ".parquet":
            parquet.write_table(table, file)
        else:
            csv.write_csv(table, file, csv.WriteOptions(quoting_style="needed"))


def _rounded(column: Any) -> Any:
    """Return floats with seven digits of the largest: what float32 adds behind them is noise."""
    if not isinstance(column, np.ndarray) or column.dtype.kind != "f":
        return column
    largest = np.nanmax(np.abs(column), initial=0.0)
    return np.round(column, 6 - int(np.floor(np.log10(largest))) if largest > 0 else 0)


def calibration_result(
    found: Calibration, rows: Recordings, mark: float, *, plots: bool, data: Mapping[str, Any]
) -> Result:
    """Return what the resting faces say of the value ``mark`` (in a feature's unit): words, a table, figures."""
    people = sorted(found.people.values(), key=lambda rest: rest.who)
    centres, spreads = (np.array([getattr(rest, name) for rest in people]) for name in ("centre", "spread"))
    # The features in which people rest furthest apart come first; of one person, those that move most.
    apart = np.ptp(centres, axis=0) if len(people) > 1 else np.nanpercentile(np.abs(found.difference), 95, axis=0)
    order = np.argsort(-apart / np.median(spreads, axis=0), kind="stable").tolist()
    main = order[:_PANELS]
    marked = (mark - centres) / spreads
    who = "1 person" if len(people) == 1 else f"{len(people)} people"
    said = [
        f"{_signed(marked[one, main[0]])} of their own spreads from rest in {people[one].who[0]}"
        for one in np.argsort(marked[:, main[0]])
    ]
    frames, tell = sum(len(rest.rows) for rest in people), np.median([np.median(rest.effective) for rest in people])
    floors = np.mean([np.isin(rest.spread_from, (GROUP, RANGE)) for rest in people])
    columns = [
        Column[Rest]("Person", lambda rest: rest.who[0], text=True),
        Column[Rest]("Clips", lambda rest: str(rest.clips)),
        Column[Rest]("Neutral frames", lambda rest: str(len(rest.rows))),
        Column[Rest]("Tell as much as", lambda rest: f"{np.median(rest.effective):.0f}"),
        *(_mark_column(rows.names[place], place, mark) for place in main),
    ]
    return Result(
        kind="calibrate",
        title=f"Where {mark:g} is in {who}",
        summary=[
            f"{who}, {count_text(len(found.clips), 'neutral clip')}, {count_text(frames, 'neutral frame')}. Neighbours "
            f"are alike: those of the middle person tell as much as {tell:.0f} independent ones.",
            f"{mark:g} in {rows.names[main[0]]} is {said[0]}{f', and {said[-1]}' if len(people) > 1 else ''}.",
            f"{100 * floors:.0f} % of the spreads are a floor: half of the group's, or 5 % of a person's range.",
            "Next: compare people by the columns NAME_z, in spreads; the columns NAME are in the feature's own unit.",
        ],
        tables={"people": make_table(f"How many of a person's own spreads {mark:g} lies above rest", columns, people)},
        figures=list(_figures(found, rows, people, order, mark)) if plots else [],
        data=data,
        printed=["people"] if len(people) <= _MOST_PEOPLE else [],
    )


def _mark_column(name: str, place: int, mark: float) -> Column[Rest]:
    return Column(name, lambda rest: _signed((mark - rest.centre[place]) / rest.spread[place]))


def _signed(value: float) -> str:
    return f"{value:+.1f}".replace("-", "−").replace("−0.0", "+0.0")


def _figures(
    found: Calibration, rows: Recordings, people: Sequence[Rest], order: Sequence[int], mark: float
) -> Iterator[DrawnFigure]:
    """Draw where people rest, and how it moves where anyone has several sessions or clips."""
    by_rest = sorted(people, key=lambda rest: float(rest.centre[order[0]]))
    some = [by_rest[place] for place in np.unique(np.linspace(0, len(people) - 1, _MOST_PEOPLE).round().astype(int))]
    who = np.array(rows.index.subject)
    ranges = [np.percentile(rows.features[who == rest.who[0]], (5, 95), axis=0) for rest in some]
    lines = [
        (rows.names[place], rest.who[0], *ends[:, place], rest.centre[place], rest.spread[place])
        for place in order[:_PANELS]
        for rest, ends in zip(some, ranges, strict=True)
    ]
    data = columns_of(("feature", "person", "low", "high", "centre", "spread"), lines)
    caption = (
        "Dot: where the person rests. Dark: one of their own spreads to each side. Light: the middle 90 % of all their "
        f"frames. Dashed: the middle resting face. Right: how many spreads {mark:g} (the line) is above rest."
    )
    yield DrawnFigure("rest", f"Where {mark:g} is in each person", caption, plot_rest(data, mark), data)
    depth = 1 if found.sessions else 2
    parts = sorted(found.sessions or found.clips, key=lambda rest: (rest.who[0], natural_key(rest.who[depth])))
    if len(parts) > len(people):
        moved = {who[0]: size for who, (_, _, size, _) in drifts(parts, depth).items()}
        size = np.max([np.zeros(len(rows.names)), *moved.values()], axis=0)
        lines = [
            (rows.names[place], rest.who[0], rest.who[depth], rest.centre[place], rest.half[place], drift)
            for place in sorted(order, key=lambda place: -size[place])[:_PANELS]
            for rest in parts
            for drift in [bool(rest.who[0] in moved and moved[rest.who[0]][place] >= DRIFT)]
        ]
        data = columns_of(("feature", "person", "part", "centre", "half", "drifts"), lines)
        what = PARTS[depth]
        caption = (
            "A line is a person; bars: 95 % intervals of the resting face. In colour: who drifts in this feature, by "
            "two of their own spreads and twice what chance allows."
        )
        drawn = plot_drift(data, what.capitalize())
        yield DrawnFigure("drift", f"The resting face from one {what} to the next", caption, drawn, data)


def plot_rest(data: Mapping[str, Sequence[Any]], mark: float) -> Figure:
    """Draw a panel a feature and a line a person: rest, spread and range, and where ``mark`` lies."""
    features, people = (list(dict.fromkeys(data[name])) for name in ("feature", "person"))
    columns = [np.reshape(data[name], (len(features), -1)) for name in ("low", "high", "centre", "spread")]
    places = np.arange(len(people))
    with style.house_style():
        drawn = style.figure(style.FULL, 0.8 + 0.17 * max(4, len(people)))
        axes = drawn.subplots(1, len(features), sharey=True, squeeze=False)[0]
        for panel, feature, low, high, centre, spread in zip(axes, features, *columns, strict=True):
            panel.hlines(places, low, high, color="#D5E4EE", linewidth=5)
            panel.hlines(places, centre - spread, centre + spread, color=style.COLOURS[5], linewidth=5)
            panel.plot(centre, places, "o", color="black", markersize=3)
            panel.axvline(np.median(centre), color=style.MUTED, linestyle="--", linewidth=0.8)
            panel.axvline(mark, color=style.LOSS, linewidth=0.9)
            for place, above in enumerate((mark - centre) / spread):
                at = panel.get_yaxis_transform()
                panel.text(1.03, place, _signed(above), transform=at, va="center", fontsize=6.5, color=style.LOSS)
            panel.text(1.03, 1.02, f"{mark:g} is", transform=panel.transAxes, fontsize=6.5, color=style.LOSS)
            panel.set_title(feature, fontweight="bold")
            style.names_down(panel, people)
        drawn.supxlabel(f"Value; on the right, {mark:g} in the person's own spreads above rest", fontsize=7.5)
    return drawn


def plot_drift(data: Mapping[str, Sequence[Any]], what: str) -> Figure:
    """Draw a panel a feature: each person's rest from part to part, those who drift in colour."""
    feature, person, centre, half, drifts = (np.array(data[name]) for name in data if name != "part")
    looks = dict(zip(dict.fromkeys(person[drifts]), style.COLOURS[:7], strict=False))
    with style.house_style():
        drawn = style.figure(style.FULL, 2.5)
        axes = drawn.subplots(1, len(set(feature)), squeeze=False)[0]
        for panel, name in zip(axes, dict.fromkeys(feature), strict=True):
            for who in dict.fromkeys([*person, *looks]):
                mine = (feature == name) & (person == who)
                thick, colour = (1.2, looks[who]) if who in looks and drifts[mine].any() else (0.6, "#C0C0C0")
                look = {"linewidth": thick, "elinewidth": thick / 2, "markersize": 2 + thick, "zorder": 2 + thick}
                panel.errorbar(
                    range(1, mine.sum() + 1), centre[mine], np.nan_to_num(half[mine]), fmt="o-", color=colour, **look
                )
            panel.set_title(name, fontweight="bold")
            panel.set_xlabel(what)
            panel.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
            panel.margins(x=0.15)
            panel.grid(axis="y")
        axes[0].set_ylabel("Rest")
        if looks:
            handles = [Line2D([], [], color=colour, marker="o", label=who) for who, colour in looks.items()]
            drawn.legend(handles=handles, loc="outside lower center", ncols=len(looks))
    return drawn
