"""Who is a target, and which of a target's rows are adapted on and which are tested."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featlab.cache.schema import one_form
from featlab.cache.table import LARGEST, FeatureTable, usable
from featlab.compute import generator, stable_hash
from featlab.errors import InputError, closest


@dataclass(frozen=True, eq=False)
class Target:
    """All that a method may see of a new person: neutral rows, without labels and without a name."""

    embeddings: NDArray[np.float32]  # (n, D0).
    video: NDArray[np.int32]  # (n,), which rows come from one video.
    frame: NDArray[np.int32]  # (n,), the order within a video.

    def __post_init__(self) -> None:
        if self.embeddings.ndim != 2 or not len(self.embeddings):
            raise InputError(f"a target needs rows (n, D) with n ≥ 1, got shape {self.embeddings.shape}")
        if not len(self.video) == len(self.frame) == len(self.embeddings):
            raise InputError(f"a target with {len(self.embeddings)} rows needs as many values of video and of frame")
        if not usable(self.embeddings).all():
            raise InputError(f"the target's embeddings hold NaN or infinity, or above {LARGEST:g}; extract them again")

    def __len__(self) -> int:
        return len(self.embeddings)


@dataclass(frozen=True, eq=False)
class Split:
    """The rows of one target subject, or of a target data set, as indices into the table that was split."""

    adapt: NDArray[np.intp]  # (n,), to adapt on: neutral ones of one person, or unlabelled ones of every class.
    test: NDArray[np.intp]  # (m,), to test on; disjoint from those in video, or in time with a gap.


def target_of(table: FeatureTable, rows: NDArray[np.intp] | None = None) -> Target:
    """Return the label-free view of some rows of a table; all of them by default.

    Videos that have one name and belong to two subjects are two videos.
    """
    part = table if rows is None else table.take(rows)
    video = part.video
    if len(part.subject_names_present()) > 1:
        video = (part.subject * len(part.videos) + part.video).astype(np.int32)
    return Target(part.embeddings, video, part.frame)


def split_target(table: FeatureTable, gap: int = 5) -> Split:
    """Split one subject's rows by video.

    Adapt: half of the purely neutral videos in name order, at least one. Test: every other video. With a single neutral
    video (or only videos that mix labels) the split is in time: the first half of that video's neutral rows is adapted
    on, rows between them and ``gap`` rows after them (at most half of what follows) are left out, and the rest is
    tested.

    Raises:
        InputError: No neutral row, or nothing left to test on.
    """
    names = table.subject_names_present()
    who = f"subject {names[0]!r}" if len(names) == 1 else "the target"
    is_neutral = table.label == table.neutral_code
    if not is_neutral.any():
        raise InputError(f"{who} has no {table.neutral!r} rows to adapt on; choose a subject with a neutral clip")
    codes = sorted(np.unique(table.video).tolist(), key=lambda code: table.videos[code])
    pure = [code for code in codes if is_neutral[table.video == code].all()]
    if len(pure) >= 2:
        in_adapt = np.isin(table.video, pure[: len(pure) // 2])
        split = Split(np.flatnonzero(in_adapt), np.flatnonzero(~in_adapt))
    else:
        clip = pure[0] if pure else next(code for code in codes if is_neutral[table.video == code].any())
        split = _split_in_time(table, clip, is_neutral, gap)
    if not len(split.test):
        raise InputError(f"{who} has no rows left to test on beside the neutral clip; add a second video")
    return split


def split_dataset(table: FeatureTable, gap: int = 5) -> Split:
    """Split the rows of a target data set by video: unlabelled rows of every class to adapt on, and the others to test.

    Among a subject's videos of one class (the most frequent label), every other one in name order is adapted on and the
    rest is tested; which of the two comes first alternates from class to class and from subject to subject, so that
    single videos are dealt to both sides. A subject with one video is split in time, with a gap. Labels deal videos to
    the two sides, and go no further.
    """
    adapt, test = [], []
    for number, code in enumerate(np.unique(table.subject)):
        rows = np.flatnonzero(table.subject == code)
        videos = sorted(np.unique(table.video[rows]).tolist(), key=lambda video: table.videos[video])
        if len(videos) == 1:
            rows = rows[np.argsort(table.frame[rows], kind="stable")]
            half = (len(rows) + 1) // 2
            adapt.append(rows[:half])
            test.append(rows[half:][min(gap, (len(rows) - half) // 2) :])
            continue
        classes: dict[int, list[int]] = {}
        for video in videos:
            labels = table.label[rows][table.video[rows] == video]
            classes.setdefault(int(np.bincount(labels + 1).argmax()) - 1, []).append(video)
        for place, label in enumerate(sorted(classes)):
            for turn, video in enumerate(classes[label]):
                side = adapt if (number + place + turn) % 2 == 0 else test
                side.append(rows[table.video[rows] == video])
    split = Split(*(np.sort(np.concatenate([np.empty(0, dtype=np.intp), *side])) for side in (adapt, test)))
    if not len(split.adapt) or not len(split.test):
        raise InputError("the target data set has too few videos to adapt on some and test on others; add subjects")
    return split


def untested_classes(table: FeatureTable, targets: Sequence[str], gap: int, scope: str) -> dict[str, list[str]]:
    """Return the classes of targets' rows of which the protocol's split leaves none to test on, by target.

    Who can't be split is left out: whoever evaluates them is told why. A data set is one target.
    """
    found: dict[str, list[str]] = {}
    for name in targets if scope == "person" else ("them",):
        rows = table.rows_of(name) if scope == "person" else table.rows_of(*targets)
        try:
            split = split_target(rows, gap) if scope == "person" else split_dataset(rows, gap)
        except InputError:
            continue
        left = np.setdiff1d(rows.label[rows.label >= 0], rows.label[split.test])
        if len(left):
            found[name] = [table.classes[code] for code in left]
    return found


def macro_f1(labels: NDArray[np.integer], predicted: NDArray[np.integer], classes: int) -> float:
    """Return the mean F1 over the classes among (n,) labels, all in [0, K): a subject's score."""
    shown, found, right = (
        np.bincount(codes, minlength=classes) for codes in (labels, predicted, labels[labels == predicted])
    )
    return float((2.0 * right / np.maximum(shown + found, 1))[shown > 0].mean())


def choose_targets(
    subjects: Sequence[str], spec: str, *, seed: int, draw: int = 0, pool: Sequence[str] | None = None
) -> tuple[str, ...]:
    """Return the target subjects that ``--targets`` means, sorted.

    ``spec`` is a number, or names of ``subjects`` as for `named_subjects`. A plain number is always a draw, also where
    someone is called that: ``10,`` means the subject 10. ``010`` is an id if someone has it. A draw, from the ``pool``
    or from everyone, ranks people by a hash of seed, draw and name and takes the first: a new person can take one place
    in it, and never reshuffles the others.

    Raises:
        InputError: An unknown subject, too few subjects, a file that can't be read, or a pool beside named targets.
    """
    spec = spec.strip()
    if spec.isdecimal() and len(spec) < 10 and (spec not in subjects or spec == str(int(spec))):
        wanted = int(spec)
        if pool is not None and not 1 <= wanted <= len(pool):
            raise InputError(
                f"--targets {wanted}: the pool has {len(pool)} subjects who are not named as sources; choose 1 or more "
                "and no more than that, or put more people into the pool"
            )
        if len(subjects) < 2:
            raise InputError("the cache has one person, and others are needed to learn from; extract more people")
        if not 1 <= wanted < len(subjects):
            raise InputError(
                f"--targets {wanted}: the cache has {len(subjects)} subjects, and at least one must stay a source; "
                f"choose 1 to {len(subjects) - 1}"
            )
        drawn_from = subjects if pool is None else pool
        ranked = sorted(drawn_from, key=lambda name: stable_hash("targets", seed, draw, name))
        return tuple(sorted(ranked[:wanted]))
    if pool is not None:
        raise InputError(
            f"--targets {spec} names the targets, and nothing is drawn from a pool; give --targets a number, or leave "
            "out --pool"
        )
    return named_subjects(subjects, spec)


def subjects_held_out(
    subjects: Sequence[str], targets: str | None, *, draws: int = 1, seed: int = 0, named: Sequence[str] = ()
) -> tuple[str, ...]:
    """Return everyone who is a target in any of the draws that `featlab evaluate` makes, and those named, sorted."""
    held, known = set(), set(subjects)
    for spec in named:
        held |= {spec} if spec in known else set(named_subjects(subjects, spec, "--subject"))
    for draw in range(draws if targets is not None else 0):
        held |= set(choose_targets(subjects, str(targets), seed=seed, draw=draw))
    return tuple(sorted(held))


def named_subjects(subjects: Sequence[str], spec: str, flag: str = "--targets") -> tuple[str, ...]:
    """Return the subjects that a text names, sorted: ids and patterns (``s0*``) with commas, or a file of them.

    A file has one a line (``#`` a comment). ``flag`` is where the text was given, for the message.
    """
    spec = spec.strip()
    names = [one_form(spec)] if one_form(spec) in subjects else _names(spec, flag)
    found = set()
    for name in names:
        if name in subjects or not any(mark in name for mark in "*?["):
            check_known([name], subjects)
            found.add(name)
        elif fits := [subject for subject in subjects if fnmatchcase(subject, name)]:
            found.update(fits)
        else:
            raise InputError(f"{flag} {name}: fits none of the {len(subjects)} subjects of the cache")
    return tuple(sorted(found))


def check_known(names: Sequence[str], subjects: Sequence[str]) -> None:
    """Raise an InputError that names the closest subjects when one of ``names`` is none of the cache's."""
    for name in names:
        if name not in subjects:
            raise InputError(
                f"unknown subject {name!r} among the {len(subjects)} of the cache{closest(name, subjects)}"
            )


def check_disjoint(sources: Sequence[str], targets: Sequence[str]) -> None:
    """Raise an InputError when a subject is both a source and a target."""
    both = sorted(set(map(one_form, sources)) & set(map(one_form, targets)))
    if both:
        raise InputError(
            f"subject {both[0]!r} is both source and target: its test rows would have been trained on; "
            "take it out of one of the two"
        )


def _names(spec: str, flag: str) -> list[str]:
    # Not Path.is_file: that raises where a text is too long for a file name.
    if "," not in spec and os.path.isfile(spec):
        try:
            text = Path(spec).read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{flag} {spec}: can't be read ({error}); give a UTF-8 text file of ids") from error
        lines = [one_form(line.partition("#")[0]) for line in text.splitlines()]
    else:
        lines = [one_form(name) for name in spec.split(",")]
    names = [name for name in lines if name]
    if not names:
        number = "a number, " if flag == "--targets" else ""
        raise InputError(f"{flag} {spec!r} names no subject; give {number}ids with commas, or a file of ids")
    return names


def _split_in_time(table: FeatureTable, clip: int, is_neutral: NDArray[np.bool_], gap: int) -> Split:
    rows = np.flatnonzero(table.video == clip)
    rows = rows[np.argsort(table.frame[rows], kind="stable")]
    neutral = rows[is_neutral[rows]]
    last = int(np.flatnonzero(rows == neutral[(len(neutral) - 1) // 2])[0])
    adapt = neutral[: (len(neutral) + 1) // 2]
    later = rows[last + 1 :]
    later = later[min(gap, len(later) // 2) :]
    others = np.flatnonzero(table.video != clip)
    return Split(np.sort(adapt), np.sort(np.concatenate([others, later])))


def reduced_split(
    table: FeatureTable, split: Split, seed: int, *, frames: int = 0, contamination: float = 0.0
) -> Split:
    """Shorten one subject's clip to so many frames (0: all), then replace a fraction of them, in [0, 1), by others.

    Frames are taken in time: videos in name order, frames in theirs. Those left out are neither adapted on nor tested.
    Then round(contamination × frames) random frames of the clip give way to as many random test rows with a known
    label that isn't neutral, and those leave the test. A larger fraction replaces what a smaller one does and more, for
    one seed.
    """
    adapt, test = split.adapt, split.test
    if frames:
        adapt = _in_time(table, adapt)[:frames]
    replaced = round(contamination * len(adapt))
    if replaced:
        name = table.subject_names_present()[0]
        label = table.label[test]
        others = _in_time(table, test[(label >= 0) & (label != table.neutral_code)])
        if replaced >= len(others):
            raise InputError(
                f"subject {name!r} has {len(others)} test frames of other classes, too few to replace {replaced} of "
                f"{len(adapt)} neutral ones and test on the rest; choose less --contamination or fewer --frames"
            )
        rng = generator("contamination", seed, name)
        # Two permutations whose beginnings are taken, so that a larger fraction holds a smaller one.
        gone = rng.permutation(_in_time(table, adapt))[:replaced]
        come = rng.permutation(others)[:replaced]
        adapt = np.concatenate([np.setdiff1d(adapt, gone), come])
        test = np.setdiff1d(test, come)
    return Split(np.sort(adapt), test)


def _in_time(table: FeatureTable, rows: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return rows by their video's name and frame: what is chosen must not depend on the order in the table."""
    names = np.array(table.videos)[table.video[rows]]
    return rows[np.lexsort((table.frame[rows], names))]
