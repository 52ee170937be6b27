"""A person's own resting face: where each feature rests, how far it strays there, what to know before trusting it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, groupby

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from featlab.cache.table import codes_of
from featlab.extraction.tables.index import RowIndex

Floats = NDArray[np.float64]

MAD, MEAN_DEVIATION, GROUP, RANGE = "MAD", "mean deviation", "half of the group's", "5 % of a person's range"
"""Where a spread comes from; the last two are floors."""
# Makes the median and the mean of |x - centre| the standard deviation of normal values.
_MAD, _MEAN_DEVIATION = 1.4826022185056018, 1.2533141373155001
_GROUP_SHARE, _GROUP, _RANGE_SHARE, _TINY = 0.5, 3, 0.05, 1e-12  # People of a group, three at least.
_BLOCKS = 10  # Stretches that a person's frames are cut into; none reaches over the end of a clip.

FAR, MOST_FAR = 3.5, 0.1
"""A frame is far at 3.5 spreads (Iglewicz and Hoaglin) in two features, or a tenth of many; a clip may have a tenth of
such frames."""
DRIFT, SURE = 2.0, 2.0
"""A rest has drifted by two spreads, if that is twice what chance allows: there are many features and pairs."""
ENOUGH, _FEWEST = 10, 10  # Independent frames of a rest; frames of a clip that can be judged.
PARTS = ("person", "session", "clip")


@dataclass(frozen=True, eq=False)
class Recordings:
    """N rows of D named features, and who, what and when they are."""

    features: NDArray[np.float32]
    index: RowIndex
    names: tuple[str, ...]

    def take(self, rows: NDArray[np.intp]) -> Recordings:
        """Return the rows at these places, in their order."""
        return Recordings(self.features[rows], self.index.take(rows), self.names)


@dataclass(frozen=True, eq=False)
class Rest:
    """How a person rests in a session and a clip; "" stands for all of them. Arrays are (D,)."""

    who: tuple[str, ...]  # Subject, session, clip.
    rows: NDArray[np.intp]  # Places of the neutral frames, clip by clip in the order of time.
    clips: int
    centre: Floats
    spread: Floats
    spread_from: NDArray[np.str_]
    half: Floats  # Half of the centre's 95 % interval; NaN with one frame.
    effective: Floats  # How many independent frames would tell as much.


@dataclass(frozen=True, eq=False)
class Calibration:
    """Every row's distance from its person's resting face."""

    difference: Floats  # (N, D), in each feature's own unit; NaN in rows of people who are left out.
    in_spreads: Floats  # (N, D)
    people: dict[str, Rest]
    sessions: tuple[Rest, ...]  # Empty where no row names a session.
    clips: tuple[Rest, ...]
    floor: Floats  # (D,), what no spread is below.
    left_out: tuple[str, ...]  # People without a neutral frame.
    borrowed: tuple[tuple[str, str], ...]  # Sessions without one: held against the rest of all the person's others.


def calibrate(rows: Recordings, resting: Recordings) -> Calibration:
    """Return the distance of ``rows`` from each person's centre in ``resting``, of the row's own session if it has one.

    A centre is a median and a spread the MAD, or the mean deviation where more than half of the frames are equal (an
    action unit at 0 has a MAD of 0 whatever the other frames do). No spread is below half of the middle one of three or
    more people, nor below 5 % of the middle person's range.
    """
    names = resting.index.subject, resting.index.session, resting.index.video
    people, sessions, clips = (
        [_rest(resting, places, depth) for places in _groups(names[:depth], resting)] for depth in (1, 2, 3)
    )
    sessions = [rest for rest in sessions if rest.who[1]]
    ranges = [np.ptp(rows.features[places], axis=0) for places in _groups((rows.index.subject,), rows)]
    floor, floor_from = _floor(np.array([rest.spread for rest in sessions or people]), np.array(ranges, dtype=float))
    for level in (people, sessions, clips):
        for place, each in enumerate(level):
            own = each.spread >= floor
            spread_from = np.where(own, each.spread_from, floor_from)
            level[place] = replace(each, spread=np.where(own, each.spread, floor), spread_from=spread_from)
    by_person = {rest.who[0]: rest for rest in people}
    by_session = {rest.who[:2]: rest for rest in sessions}
    difference = np.full(rows.features.shape, np.nan)
    in_spreads, left_out, borrowed = difference.copy(), dict[str, None](), []
    for places in _groups((rows.index.subject, rows.index.session), rows):
        who = rows.index.subject[places[0]], rows.index.session[places[0]]
        rest = by_session.get(who) or by_person.get(who[0])
        if rest is None:
            left_out[who[0]] = None
            continue
        if who[1] and who not in by_session:
            borrowed.append(who)
        difference[places] = rows.features[places] - rest.centre
        in_spreads[places] = difference[places] / rest.spread
    found = by_person, tuple(sessions), tuple(clips)
    return Calibration(difference, in_spreads, *found, floor, tuple(left_out), tuple(borrowed))


def _groups(names: Sequence[Sequence[str]], rows: Recordings) -> Iterator[NDArray[np.intp]]:
    """Yield the places of the rows that have the same names, clip by clip in the order of time."""
    keys = [codes_of(each)[1] for each in (*names, rows.index.video)]
    order = np.lexsort((rows.index.frame, *reversed(keys)))
    changes = np.any([np.diff(key[order]) != 0 for key in keys[:-1]], axis=0)
    yield from np.split(order, np.flatnonzero(changes) + 1)


def _rest(rows: Recordings, places: NDArray[np.intp], depth: int) -> Rest:
    """Measure the resting face in some rows; its spread has no floor yet."""
    values = rows.features[places].astype(np.float64)
    clip = [(rows.index.session[row], rows.index.video[row]) for row in places.tolist()]
    starts = [place for place in range(len(clip)) if place == 0 or clip[place] != clip[place - 1]]
    centre = np.median(values, axis=0)
    away = np.abs(values - centre)
    mad = _MAD * np.median(away, axis=0)
    spread = np.where(mad > 0, mad, _MEAN_DEVIATION * away.mean(axis=0))
    spread_from = np.where(mad > 0, MAD, MEAN_DEVIATION)
    names = (rows.index.subject[int(places[0])], *clip[0])[:depth]
    who = names + ("",) * (3 - depth)
    return Rest(who, places, len(starts), centre, spread, spread_from, *_how_well(values, starts))


def _how_well(values: Floats, starts: Sequence[int]) -> tuple[Floats, Floats]:
    """Return half of the centre's 95 % interval and the effective number of frames, (D,) each."""
    # Both come from how much about ten stretches of frames differ (batch means), and the number also from how alike
    # neighbouring frames are, which stretches of a few frames don't show; the smaller counts.
    frames = len(values)
    if frames == 1:
        return np.full(values.shape[1], np.nan), np.ones(values.shape[1])
    blocks = [
        block
        for clip in np.split(values, starts[1:])
        for block in np.array_split(clip, min(len(clip), max(1, round(_BLOCKS * len(clip) / frames))))
    ]
    means, centres = (np.array([pick(block, axis=0) for block in blocks]) for pick in (np.mean, np.median))
    within = ~np.isin(np.arange(1, frames), starts)
    away = values - values.mean(axis=0)
    total = (away**2).sum(axis=0)
    # What never changed has shown one frame, however often; of one frame a clip, no two are neighbours.
    alike = (
        (away[:-1] * away[1:])[within].mean(axis=0) * frames / np.where(total > 0, total, 1) if within.any() else 0.0
    )
    by_neighbours = frames * (1 - alike) / np.maximum(1 + alike, _TINY)
    between = means.var(axis=0, ddof=1) / len(blocks) * (frames - 1)
    by_blocks = np.clip(total / np.where(between > 0, between, total / frames + (total == 0)), 1, frames)
    effective = np.clip(by_neighbours, 1, by_blocks)
    error = centres.std(axis=0, ddof=1) * np.sqrt(by_blocks / effective / len(blocks))
    return stdtrit(len(blocks) - 1, 0.975) * error, effective


def _floor(spreads: Floats, ranges: Floats) -> tuple[Floats, NDArray[np.str_]]:
    """Return what no spread is below, (D,), and why; 1 for a feature that never changes."""
    span = _middle(ranges, 1)
    by_range = np.where(span > 0, _RANGE_SHARE * span, 1.0)
    by_group = _GROUP_SHARE * _middle(np.where(spreads > _TINY * span, spreads, 0.0), _GROUP)
    return np.maximum(by_range, by_group), np.where(by_group > by_range, GROUP, RANGE)


def _middle(values: Floats, fewest: int) -> Floats:
    """Return the median of what is above 0 in each column; 0 where that are fewer."""
    columns = [column[column > 0] for column in values.T]
    return np.array([np.median(column) if len(column) >= fewest else 0.0 for column in columns])


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
    """Return the middle and width (as a deviation) of the shortest interval with half of (N, D) values: a mode's."""
    ordered = np.sort(values, axis=0)
    more = (len(values) - 1) // 2
    widths = ordered[more:] - ordered[: len(values) - more]
    start, columns = np.argmin(widths, axis=0), np.arange(values.shape[1])
    half = widths[start, columns] / 2
    return ordered[start, columns] + half, _MAD * half


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
