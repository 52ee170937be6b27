"""What to know of resting faces before trusting them, as (who, why): short clips, clips that aren't neutral, drift."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, groupby

import numpy as np

from featlab.extraction.tables.calibrate import Calibration, Floats, Recordings, Rest

FAR, MOST_FAR = 3.5, 0.1
"""A frame is far at 3.5 spreads (Iglewicz and Hoaglin) in two features, or a tenth of many; a clip may have a tenth of
such frames."""
DRIFT, SURE = 2.0, 2.0
"""A rest has drifted by two spreads, if that is twice what chance allows: there are many features and pairs."""
ENOUGH, _FEWEST = 10, 10  # Independent frames of a rest; frames of a clip that can be judged.
PARTS = ("person", "session", "clip")
_HALF_WIDTH = 0.6744897501960817  # Half of normal values lie within so many standard deviations.


def named(who: Sequence[str]) -> str:
    """Return who, and in which session and clip."""
    return who[0] + "".join(f", {part} {name}" for part, name in zip(PARTS[1:], who[1:], strict=False) if name)


def cautions(found: Calibration, rows: Recordings, resting: Recordings) -> dict[str, list[tuple[str, str]]]:
    """Return (who, why) of everything that a reader has to know, by what it means."""
    short = [
        (named(rest.who), f"neutral frames: {len(rest.rows)}, which tell as much as {tell:.0f} independent ones")
        for rest in found.sessions or found.people.values()
        if (tell := np.median(rest.effective)) < ENOUGH
    ]
    moved = []
    for who, (first, second, size, chance) in (drifts(found.sessions, 1) | drifts(found.clips, 2)).items():
        place, parts = int(np.argmax(size)), (first.who[len(who)], second.who[len(who)])
        apart = (
            f"{abs(second.centre[place] - first.centre[place]):.2g} between {PARTS[len(who)]}s {' and '.join(parts)}"
        )
        sure = f"{size[place]:.1f} of their own spreads, where chance allows {chance[place]:.1f}"
        moved.append((named(who), f"{rows.names[place]} at rest differs by {apart}: {sure}"))
    constant = np.flatnonzero(np.ptp(rows.features, axis=0) == 0)
    return {
        "resting faces are known from too little (10 independent frames place one to about ±0.7 of its spreads, 30 to "
        "±0.5): record longer neutral clips, or more": short,
        "neutral clips aren't all neutral: leave them out, or name others by --neutral": mixed_clips(found, resting),
        "people rest otherwise at another time": moved,
        "sessions are held against the rest of their person's others": [
            (f"{who}, session {session}", "no neutral frame") for who, session in found.borrowed
        ],
        "people are left out": [(who, "no neutral frame") for who in found.left_out],
        "features never change: their columns are 0 and say nothing": [
            (rows.names[place], "one value in all rows") for place in constant
        ],
    }


def mixed_clips(calibration: Calibration, resting: Recordings) -> list[tuple[str, str]]:
    """Return the neutral clips of which many frames are far from where most of the clip rests."""
    found = []
    for rest in (rest for rest in calibration.clips if len(rest.rows) >= _FEWEST):
        values = resting.features[rest.rows].astype(np.float64)
        centre, scale = densest_half(values)
        far = np.abs(values - centre) > FAR * np.maximum(scale, 1.5 * calibration.floor)
        frames = far.sum(axis=1) >= min(far.shape[1], max(2, far.shape[1] // 10))
        if frames.mean() > MOST_FAR:
            numbers, often = resting.index.frame[rest.rows[frames]], far[frames].sum(axis=0)
            most = [resting.names[place] for place in np.argsort(-often, kind="stable")[:3] if often[place]]
            share = f"{100 * frames.mean():.0f} % of its {len(frames)} frames, from {numbers.min()} to {numbers.max()}"
            found.append(
                (named(rest.who), f"not all neutral: {share}, are far from where most rest ({', '.join(most)})")
            )
    return found


def densest_half(values: Floats) -> tuple[Floats, Floats]:
    """Return the middle of the shortest interval with half of (N, D) values, and its width as a standard deviation.

    Where up to half of the frames show something else, the median lies between the two, and this does not.
    """
    ordered = np.sort(values, axis=0)
    more = (len(values) - 1) // 2
    widths = ordered[more:] - ordered[: len(values) - more]
    start, columns = np.argmin(widths, axis=0), np.arange(values.shape[1])
    half = widths[start, columns] / 2
    return ordered[start, columns] + half, half / _HALF_WIDTH


def drifts(rests: Sequence[Rest], depth: int) -> dict[tuple[str, ...], tuple[Rest, Rest, Floats, Floats]]:
    """Return the people (1), or their sessions (2), whose rests differ: the two that differ most in any feature.

    Then come how much each feature differs (0 where chance may have done it), and what chance allows, in spreads.
    """
    moved: dict[tuple[str, ...], tuple[Rest, Rest, Floats, Floats]] = {}
    for who, group in groupby(rests, key=lambda rest: rest.who[:depth]):
        mine = list(group)
        spread, most = np.median([rest.spread for rest in mine], axis=0), DRIFT
        for first, second in combinations(mine, 2):
            apart = np.abs(second.centre - first.centre) / spread
            chance = np.hypot(first.half, second.half) / spread
            size = np.where(apart > SURE * chance, apart, 0.0)
            if size.max() >= most:
                most, moved[who] = size.max(), (first, second, size, chance)
    return moved
