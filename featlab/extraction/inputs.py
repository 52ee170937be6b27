"""From a source and what was said about it to items and landmarks: layout, videos, faces; before any backbone runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from featlab.config.options import check_choice
from featlab.errors import ConfigError, InputError
from featlab.extraction.backbones import Backbone
from featlab.extraction.decode import picture_size
from featlab.extraction.faces import check_eyes, lies_outside, order_problem, unit_problem
from featlab.extraction.faces.align import AlignConfig, with_alignment
from featlab.extraction.faces.detect import detect_landmarks, is_detector, make_detector
from featlab.extraction.faces.landmarks import find_landmarks, landmarks_for
from featlab.extraction.faces.track import Choice, Faces, Found, choose_faces
from featlab.extraction.items import SPELLINGS, STILLS, Failure, Item, Pseudonyms, refuse_equal, with_one_name_each
from featlab.extraction.layouts import resolve_layout
from featlab.extraction.layouts.tree import kinds, left_out, relative
from featlab.extraction.shards import DOUBT, NO_FACE, write_list
from featlab.extraction.video import Sampling, expand_videos, refuse_sampling
from featlab.extraction.video.frames import is_video

OnStage = Callable[[str, int, int], None]
"""Called with the name of a stage before the embedding, how much of it is done, and how much there is."""


# Of the pictures, so many are compared with the landmarks before anything runs; the rest when it is read.
_LOOKED_AT = 50


@dataclass(frozen=True)
class InputConfig:
    """How a source is read."""

    layout: str = "auto"
    layout_options: Mapping[str, Any] = field(default_factory=dict)
    landmarks: str = "auto"
    landmarks_unit: str = "pixels"
    face: Choice = "largest"
    align: AlignConfig | None = None
    sampling: Sampling | None = None
    neutral: str | None = None
    merge_names: bool = False
    pseudonyms: Pseudonyms | None = None

    def __post_init__(self) -> None:
        check_choice("--face", self.face, get_args(Choice))
        check_choice("--landmarks-unit", self.landmarks_unit, ("pixels", "fraction"))


@dataclass(frozen=True, eq=False)
class Inputs:
    """What an extraction starts from."""

    items: list[Item]
    landmarks: NDArray[np.float32] | None
    neutral: str
    failures: tuple[Failure, ...] = ()
    no_face: tuple[Failure, ...] = ()
    landmark_source: str = ""
    warnings: tuple[str, ...] = ()
    face_counts: NDArray[np.uint8] | None = None  # uint8 (rows,), by `Item.row`; None: nobody counted
    in_doubt: tuple[Failure, ...] = ()  # Whose face may be another person's


def read_inputs(
    source: Path,
    config: InputConfig,
    *,
    beside: Path,
    jobs: int = 0,
    notify: Callable[[str], None] | None = None,
    on_progress: OnStage | None = None,
) -> Inputs:
    """List the images of a source, and read or find their landmarks; with pseudonyms only errors name anyone."""
    say = notify or (lambda line: None)
    secret = config.pseudonyms
    called = secret.path if secret else str
    layout, root = resolve_layout(config.layout, source)
    if config.layout == "auto" and layout.name not in ("folders", "manifest"):
        say(f"layout {layout.name}: recognised by what is in {source}")
    elif root != source:
        say(f"reading {root}")
    items = layout.read(root, config.layout_options)
    whole = layout.name in _WHOLE_FOLDERS and root.is_dir()
    warnings, failures = _unread(root, items, called) if whole else ([], [])
    stills = sum(item.video == item.name and not is_video(item.path) for item in items)
    if stills > 1 and layout.name in (*_WHOLE_FOLDERS, "manifest"):
        say(STILLS.format(stills))
    items, names = with_one_name_each(items, merge=config.merge_names)
    if any(is_video(item.path) for item in items):
        report = partial(on_progress, "videos") if on_progress else None
        expanded = expand_videos(items, config.sampling or layout.sampling, jobs=jobs, on_progress=report)
        items, failures = expanded.items, [*failures, *expanded.failures]
        if expanded.jumping:
            which = f"{len(expanded.jumping)} videos jumps (first {called(expanded.jumping[0])})"
            joined = "as in recordings that were joined: their parts are taken one after the other"
            warnings.append(f"the clock of {which}, {joined}")
        if not items:
            path, reason = expanded.failures[0]
            videos = f"any of its {len(expanded.failures)} videos ({path}: {reason})"
            raise InputError(f"{source}: no frame could be taken from {videos}")
    elif config.sampling is not None:
        raise refuse_sampling(source)
    if names.warning:
        warnings.append(SPELLINGS if secret else names.warning)
    neutral = names.neutral(layout.neutral if config.neutral is None else config.neutral)
    found, origin = _faces(root, items, config, beside, jobs, on_progress)
    if secret:
        # Not sooner: videos and landmarks are found by the names of files.
        real, items, failures = items, secret.items(items), [*secret.failures(failures)]
        refuse_equal(*({item.subject for item in each} for each in (real, items)))
    chosen = choose_faces(items, found, config.face) if found else None
    # An earlier run's lists, left where nothing is to be listed, would speak of other landmarks.
    write_list(beside, chosen.missing if chosen else (), NO_FACE)
    write_list(beside, chosen.doubtful if chosen else (), DOUBT)
    if found is None or chosen is None:
        say(f"landmarks: {'none' if config.landmarks == 'none' else 'none beside the source'}")
        return Inputs(items, None, neutral, tuple(failures), warnings=tuple(warnings))
    say(f"landmarks: {', '.join(filter(None, [origin, found.matched]))}")
    refused = {failure.path for failure in chosen.refused}
    in_doubt = found.warning if layout.name != "manifest" else ""
    return Inputs(
        [item for item in items if item.name not in refused],
        chosen.landmarks,
        neutral,
        (*failures, *chosen.refused),
        chosen.missing,
        origin,
        (*warnings, *filter(None, [in_doubt, chosen.sentence])),
        chosen.counts if is_detector(config.landmarks) or chosen.sentence else None,
        chosen.doubtful,
    )


_WHOLE_FOLDERS = ("folders", "loose", "sfda-pft")
"""Layouts that take every picture of a folder."""


def _unread(root: Path, items: Sequence[Item], called: Callable[[str], str]) -> tuple[list[str], list[Failure]]:
    """Name the pictures in a folder that are no items, and the folders in it that have no others."""
    unread = list(left_out(root, {item.path for item in items}))
    if not unread:
        return [], []
    first = called(relative(unread[0], root))
    line = f"left out: {kinds(unread)} (first {first}); save them as .png or .jpg to have them read"
    kept = {item.path.relative_to(root).parts[0] for item in items}
    lost: dict[str, list[Path]] = defaultdict(list)
    for path in unread:
        first, *below = path.relative_to(root).parts
        if below and first not in kept:
            lost[first].append(path)
    return [line], [Failure(name, f"has no pictures but {kinds(paths)}") for name, paths in lost.items()]


def with_face_crop(backbone: Backbone, config: InputConfig, inputs: Inputs) -> Backbone:
    """Put the alignment that was asked for in front of a backbone."""
    if config.align is None:
        return backbone
    if inputs.landmarks is None:
        raise InputError(
            "--align needs landmarks: name a file with --landmarks, or find them with --landmarks mediapipe"
        )
    check_eyes(inputs.landmarks.shape[1])
    return with_alignment(backbone, config.align)


def _faces(
    root: Path, items: list[Item], config: InputConfig, beside: Path, jobs: int, on_progress: OnStage | None
) -> tuple[Found | None, str]:
    """Return all faces, and what they are from: a detector or a file."""
    spec, unit = config.landmarks, config.landmarks_unit
    if is_detector(spec):
        if unit != "pixels":
            raise ConfigError("--landmarks-unit is for landmarks that you have: a detector's are pixels")
        detector = make_detector(spec)
        report = partial(on_progress, "faces") if on_progress else None
        return detect_landmarks(items, detector, beside, jobs=jobs, on_progress=report), detector.info
    beside_source = find_landmarks(root) if spec == "auto" else None
    path = Path(spec) if spec not in ("auto", "none") else beside_source
    if path is None:
        if config.face != "largest":
            raise ConfigError("--face chooses among the faces that --landmarks finds or holds, and there are none")
        return None, ""
    given = landmarks_for(path, items, config.pseudonyms.path if config.pseudonyms else str)
    if not len(given.faces.points):
        raise InputError(f"{path}: none of its rows is a face (all are empty, zeros or not finite)")
    faces = given.faces if unit == "pixels" else _in_pixels(given.faces, items)
    if problem := unit_problem(faces.points):
        raise InputError(f"{path}: {problem}; --landmarks-unit fraction scales them, if they go from 0 to 1")
    if problem := order_problem(faces.points):
        raise InputError(f"{path}: {problem}")
    _check_place(faces, items, str(path))
    return replace(given, faces=faces), str(path)


def _in_pixels(faces: Faces, items: Sequence[Item]) -> Faces:
    """Scale faces that are shares of their pictures' width and height."""
    if any(item.box is not None for item in items):
        raise ConfigError(
            "--landmarks-unit fraction: the source takes parts of pictures; scale the landmarks to pixels"
        )
    sizes = np.ones((len(faces.counts), 2), dtype=np.float32)
    sizes[[item.row for item in items]] = _sizes(items)
    return replace(faces, points=faces.points * np.repeat(sizes, faces.counts, axis=0)[:, None])


def _sizes(items: Sequence[Item]) -> list[tuple[int, int]]:
    """Return the width and height of each picture; those of one file are of one size."""
    known = {(item.path, item.box): item for item in items}
    sizes = {key: picture_size(item) for key, item in known.items()}
    return [sizes[item.path, item.box] for item in items]


def _check_place(faces: Faces, items: Sequence[Item], where: str) -> None:
    """Raise an InputError when most faces lie outside of their pictures; of many pictures some are looked at."""
    seen = [item for item in items if faces.counts[item.row]]
    some, largest = seen[:: max(len(seen) // _LOOKED_AT, 1)], faces.largest()
    looked = zip(some, _sizes(some), strict=True)
    outside = [(item, size) for item, size in looked if lies_outside(largest[item.row], size)]
    if 2 * len(outside) > len(some):
        item, (width, height) = outside[0]
        (left, top), (right, bottom) = (edge(largest[item.row], axis=0) for edge in (np.min, np.max))
        raise InputError(
            f"{where}: the landmarks lie outside of the pictures: in {item.name}, {width}x{height} pixels, they go "
            f"from ({left:.0f}, {top:.0f}) to ({right:.0f}, {bottom:.0f}); they are of pictures of another size, or no "
            "pixels"
        )
