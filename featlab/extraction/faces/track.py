"""Which of the faces in a picture is the person's: the largest, the only one, or one person through a clip."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from featlab.extraction.faces import is_no_face
from featlab.extraction.items import Failure, Item, item_order

Floats = NDArray[np.float64]

# A face is looked for this many of its sizes from where it is expected; further off it is somebody else.
_REACH, _FARTHEST = 1.5, 3.0
# Least spread of the place (in sizes), of the logarithm of the size and of the shape from one frame to the next.
_CALM = np.array([0.02, 0.05, 0.03])
# A new person's: nothing is known of how they move.
_UNKNOWN = np.array([0.3, 0.1, 0.06])
# Two ways to go on are alike when one is less than e^5 times as likely as the other.
_ALIKE = 5.0
# The place is no longer known when it may be this many sizes off; two are one behind the other when no more apart.
_LOST = 0.5
# Who was seen in so many frames is waited for in so many times as many: what a detector took for a face once is not.
_PATIENCE = 10
_FAR = 1e6
_NAMED = 8


@dataclass(frozen=True, eq=False)
class Faces:
    """All faces of a source, in pixels."""

    points: NDArray[np.float32]  # float32 (n, P, 2): row after row, the largest face of a row first
    counts: NDArray[np.int64]  # int64 (rows,): how many a row has

    @classmethod
    def of(cls, rows: Sequence[NDArray[np.float32]]) -> Faces:
        """Join the faces of each row, float32 (F, P, 2) in any order, without those that are none."""
        kept = []
        for faces in rows:
            whole = faces[~is_no_face(faces)]
            kept.append(whole[np.argsort(-np.ptp(whole, axis=1).prod(axis=1), kind="stable")])
        return cls(np.concatenate(kept).astype(np.float32), np.array([len(faces) for faces in kept], dtype=np.int64))

    @classmethod
    def by_row(cls, found: Mapping[int, NDArray[np.float32]], rows: int) -> Faces:
        """Join the faces of some of the rows, (F, P, 2); the others have none."""
        nobody = next(iter(found.values()))[:0]
        return cls.of([found.get(row, nobody) for row in range(rows)])

    def rows(self) -> list[NDArray[np.float32]]:
        """Return the faces of each row, (F, P, 2)."""
        return np.split(self.points, np.cumsum(self.counts)[:-1])

    def largest(self) -> NDArray[np.float32]:
        """Return the largest face of each row, (rows, P, 2); NaN without any."""
        return self.chosen(np.where(self.counts > 0, 0, -1))

    def chosen(self, places: NDArray[np.integer[Any]]) -> NDArray[np.float32]:
        """Return the face of each row that has its place there, (rows, P, 2); NaN for -1."""
        landmarks = np.full((len(self.counts), *self.points.shape[1:]), np.nan, dtype=np.float32)
        taken = places >= 0
        landmarks[taken] = self.points[(np.cumsum(self.counts) - self.counts + places)[taken]]
        return landmarks


@dataclass(frozen=True, eq=False)
class Found:
    """All faces of a source, and how they came to its rows."""

    faces: Faces
    unreadable: frozenset[int] = frozenset()  # Rows whose pictures a detector couldn't read
    matched: str = ""  # "by name", "by frame number", "row by row"; empty: they were detected
    warning: str = ""  # That the order of the rows is not certain; empty: it is


Choice = Literal["largest", "track", "only"]


@dataclass(frozen=True, eq=False)
class Chosen:
    """One face a row, and what there is to say of the others."""

    landmarks: NDArray[np.float32]  # float32 (rows, P, 2); NaN where the person isn't seen
    counts: NDArray[np.uint8]  # uint8 (rows,): faces in the picture, 255 for more
    missing: tuple[Failure, ...]  # Pictures in which the person isn't seen
    refused: tuple[Failure, ...]  # Pictures of several faces, with "only"
    doubtful: tuple[Failure, ...]  # Frames in which the face may be another's, with "track"
    sentence: str  # That there were several, in one line; empty: there never were


def choose_faces(items: Sequence[Item], found: Found, how: Choice) -> Chosen:
    """Choose a face for each item: the largest, that of the person who is followed, or the only one."""
    ordered = sorted(items, key=item_order)
    faces, counts = found.faces, found.faces.counts
    several = [item for item in ordered if counts[item.row] > 1]
    places = np.where(counts > 0, 0, -1)
    doubtful: list[Item] = []
    sentence = f"more than one face in {_where(several)}" if several else ""
    if several and how == "largest":
        sentence += "; --face track follows one person through each clip"
    elif several and how == "track":
        rows = faces.rows()
        for _, group in groupby(ordered, key=lambda item: (item.subject, item.video)):
            clip = list(group)
            places[[item.row for item in clip]], doubt = track(
                [rows[item.row] for item in clip], [item.frame for item in clip]
            )
            doubtful += [item for item, unsure in zip(clip, doubt.tolist(), strict=True) if unsure]
        sentence += f"; one person a clip was followed, with doubt in {_where(doubtful)}"
    refused = several if how == "only" else []
    missing = [item for item in ordered if places[item.row] < 0 and item.row not in found.unreadable]
    none, others = "no face was found", "none of the {} faces is the person's"
    clips = "frame {0.frame} of {0.subject}, {0.video}: the face may be another person's"
    return Chosen(
        faces.chosen(places),
        np.minimum(counts, 255).astype(np.uint8),
        tuple(Failure(item.name, others.format(n) if (n := counts[item.row]) else none) for item in missing),
        tuple(
            Failure(item.name, f"{counts[item.row]} faces, and --face only takes pictures of one") for item in refused
        ),
        tuple(Failure(item.name, clips.format(item)) for item in doubtful),
        sentence,
    )


def _where(items: Sequence[Item]) -> str:
    """Return how many frames there are, and of whom."""
    if not items:
        return "no frame"
    people = Counter(item.subject for item in items).most_common()
    told = ", ".join(f"{name}: {count}" for name, count in people[:_NAMED]) + (", …" if len(people) > _NAMED else "")
    persons = "1 person" if len(people) == 1 else f"{len(people)} people"
    return f"{len(items)} frame{'' if len(items) == 1 else 's'} of {persons} ({told})"


@dataclass
class _Person:
    """One of the people in a clip, as seen so far: where they are, how they move, how much that varies."""

    at: Floats  # x, y
    size: float
    shape: Floats  # Points without place and size, (2P,)
    when: float
    speed: Floats = field(default_factory=lambda: np.zeros(2))
    spread: Floats = field(default_factory=lambda: _UNKNOWN.copy())
    seen: int = 1
    hidden: bool = False  # Another face was where they were expected, and they weren't seen
    faces: dict[int, int] = field(default_factory=dict)
    doubtful: set[int] = field(default_factory=set)

    def off(self, at: Floats, size: Floats, shape: Floats, now: float) -> tuple[Floats, Floats]:
        """How far faces are from what is expected, (F, 3): place, size, shape; and what is usual by now, (3,)."""
        expected = self.at + self.speed * (now - self.when)
        place = np.linalg.norm(at - expected, axis=1) / self.size
        differs = np.sqrt(np.mean((shape - self.shape) ** 2, axis=1))
        usual = self.spread * np.array([max(now - self.when, 1.0), 1.0, 1.0])
        return np.stack([place, np.log(size / self.size), differs], axis=1), usual

    def take(self, at: Floats, size: float, shape: Floats, now: float, off: Floats) -> None:
        """Take a face as the person's; the more were seen, the less does one change."""
        elapsed, self.seen = now - self.when, self.seen + 1
        many = self.seen * (self.seen + 1)
        near, fast = max(2 * (2 * self.seen - 1) / many, 0.5), max(6 / many, 0.15)
        expected = self.at + self.speed * elapsed
        self.at, self.speed = expected + near * (at - expected), self.speed + fast * (at - expected) / elapsed
        slow = max(1 / self.seen, 0.05)
        self.size *= float((size / self.size) ** max(slow, 0.2))
        self.shape = self.shape + slow * (shape - self.shape)
        spread = np.sqrt((1 - slow) * self.spread**2 + slow * (off / np.array([max(elapsed, 1.0), 1.0, 1.0])) ** 2)
        self.spread, self.when = np.maximum(spread, _CALM), now


def track(
    faces: Sequence[NDArray[np.floating[Any]]], times: Sequence[float] | None = None
) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Follow through a clip the person whose face is there longest and largest.

    Everybody is followed at once, each to the face that fits best in place, size and shape, and no two to one. Of the
    landmarks of each frame's faces, (F_t, P, 2), returns the place of the person's, -1 where they aren't seen, and
    where that is in doubt.
    """
    people: list[_Person] = []
    awaited: list[_Person] = []
    for frame, found in enumerate(faces):
        if not len(found):
            continue
        awaited = [person for person in awaited if frame - next(reversed(person.faces)) <= _PATIENCE * person.seen]
        now = float(frame if times is None else times[frame])
        points = np.asarray(found, dtype=np.float64)
        at = points.mean(axis=1)
        centred = points - at[:, None]
        size = np.maximum(np.sqrt((centred**2).sum(axis=2).mean(axis=1)), 1e-6)
        shape = (centred / size[:, None, None]).reshape(len(points), -1)
        free = set(range(len(points)))
        for person, face, off, doubtful in _assigned(awaited, at, 2 * size, shape, now):
            free.discard(face)
            person.take(at[face], 2 * size[face], shape[face], now, off)
            person.faces[frame] = face
            if doubtful:
                person.doubtful.add(frame)
        new = [_Person(at[face], 2 * size[face], shape[face], now, faces={frame: face}) for face in sorted(free)]
        people += new
        awaited += new
    chosen, doubt = np.full(len(faces), -1, dtype=np.intp), np.zeros(len(faces), dtype=np.bool_)
    if people:
        followed = max(people, key=lambda person: person.seen * person.size)
        chosen[list(followed.faces)] = list(followed.faces.values())
        doubt[list(followed.doubtful)] = True
    return chosen, doubt


def _assigned(
    people: Sequence[_Person], at: Floats, size: Floats, shape: Floats, now: float
) -> list[tuple[_Person, int, Floats, bool]]:
    """Give each person at most one face, as is likeliest on the whole: person, face, how far off, whether in doubt."""
    if not people:
        return []
    cost = np.full((len(people), len(at)), _FAR)
    offs, vague = [], []
    for row, person in enumerate(people):
        off, usual = person.off(at, size, shape, now)
        fits = off[:, 0] < min(_REACH + 3 * usual[0], _FARTHEST)
        likelihood = 0.5 * ((off / usual) ** 2).sum(axis=1) + 2 * np.log(usual[0]) + np.log(usual[1:]).sum()
        cost[row, fits] = likelihood[fits]
        offs.append(off)
        vague.append(usual[0] > _LOST and person.seen > 2)
    pairs = [(row, face) for row, face in zip(*linear_sum_assignment(cost), strict=True) if cost[row, face] < _FAR]
    assigned = []
    for row, face in pairs:
        others = np.concatenate([np.delete(cost[row], face), np.delete(cost[:, face], row)])
        near = any(offs[other][face, 0] < _LOST for other in range(len(people)) if other != row and not vague[other])
        doubtful = bool(near or vague[row] or people[row].hidden or (others < cost[row, face] + _ALIKE).any())
        assigned.append((people[row], int(face), offs[row][face], doubtful))
    seen = {row for row, _ in pairs}
    for row, person in enumerate(people):
        person.hidden = row not in seen and (person.hidden or bool(offs[row][:, 0].min() < _REACH))
    return assigned
