"""From a source and what was said about it to items and landmarks: layout, videos, faces; before any backbone runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featlab.errors import InputError
from featlab.extraction.backbones import Backbone
from featlab.extraction.faces.align import AlignConfig, with_alignment
from featlab.extraction.faces.detect import detect_landmarks, is_detector, make_detector, without_face, write_no_face
from featlab.extraction.faces.landmarks import find_landmarks, landmarks_for
from featlab.extraction.items import STILLS, Failure, Item, with_one_name_each
from featlab.extraction.layouts import resolve_layout
from featlab.extraction.layouts.tree import kinds, left_out, relative
from featlab.extraction.video import Sampling, expand_videos
from featlab.extraction.video.frames import is_video

OnStage = Callable[[str, int, int], None]
"""Called with the name of a stage before the embedding, how much of it is done, and how much there is."""


@dataclass(frozen=True)
class InputConfig:
    """How a source is read."""

    layout: str = "auto"
    layout_options: Mapping[str, Any] = field(default_factory=dict)
    landmarks: str = "auto"
    align: AlignConfig | None = None
    sampling: Sampling | None = None
    neutral: str | None = None
    merge_names: bool = False


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


def read_inputs(
    source: Path,
    config: InputConfig,
    *,
    beside: Path,
    jobs: int = 0,
    notify: Callable[[str], None] | None = None,
    on_progress: OnStage | None = None,
) -> Inputs:
    """List the images of a source, and read or find their landmarks."""
    say = notify or (lambda line: None)
    layout, root = resolve_layout(config.layout, source)
    if config.layout == "auto" and layout.name not in ("folders", "manifest"):
        say(f"layout {layout.name}: recognised by what is in {source}")
    elif root != source:
        say(f"reading {root}")
    items = layout.read(root, config.layout_options)
    warnings, lost = _unread(root, items) if layout.name in _WHOLE_FOLDERS and root.is_dir() else ((), ())
    stills = sum(item.video == item.name and not is_video(item.path) for item in items)
    if stills and layout.name in (*_WHOLE_FOLDERS, "manifest"):
        say(STILLS.format(stills))
    items, names = with_one_name_each(items, merge=config.merge_names)
    failures: tuple[Failure, ...] = ()
    if any(is_video(item.path) for item in items):
        report = None if on_progress is None else (lambda done, total: on_progress("videos", done, total))
        sampling = config.sampling if config.sampling is not None else layout.sampling
        expanded = expand_videos(items, sampling, jobs=jobs, on_progress=report)
        items, failures = list(expanded.items), expanded.failures
        if not items:
            raise InputError(
                f"{source}: no frame could be taken from any of its {len(failures)} videos "
                f"({failures[0].path}: {failures[0].reason})"
            )
    elif config.sampling is not None:
        raise InputError(
            f"{source} has no videos, so there are no frames to choose: leave out --fps, --window, --stride"
        )
    points, no_face, origin = _landmarks(root, items, config.landmarks, beside, jobs, on_progress)
    say(f"landmarks: {origin or ('none' if config.landmarks == 'none' else 'none beside the source')}")
    neutral = names.neutral(layout.neutral if config.neutral is None else config.neutral)
    warnings = (*warnings, *filter(None, [names.warning]))
    return Inputs(items, points, neutral, (*lost, *failures), no_face, origin, warnings)


_WHOLE_FOLDERS = ("folders", "loose", "sfda-pft")
"""Layouts that take every picture of a folder."""


def _unread(root: Path, items: Sequence[Item]) -> tuple[tuple[str, ...], tuple[Failure, ...]]:
    """Name the pictures in a folder that are no items, and the folders in it that have no others."""
    unread = list(left_out(root, {item.path for item in items}))
    if not unread:
        return (), ()
    line = f"left out: {kinds(unread)} (first {relative(unread[0], root)}); save them as .png or .jpg to have them read"
    kept = {item.path.relative_to(root).parts[0] for item in items}
    lost: dict[str, list[Path]] = defaultdict(list)
    for path in unread:
        first, *below = path.relative_to(root).parts
        if below and first not in kept:
            lost[first].append(path)
    return (line,), tuple(Failure(name, f"has no pictures but {kinds(paths)}") for name, paths in lost.items())


def with_face_crop(backbone: Backbone, config: InputConfig, inputs: Inputs) -> Backbone:
    """Put the alignment that was asked for in front of a backbone."""
    if config.align is None:
        return backbone
    if inputs.landmarks is None:
        raise InputError(
            "--align needs landmarks: name a file with --landmarks, or find them with --landmarks mediapipe"
        )
    return with_alignment(backbone, config.align, points=inputs.landmarks.shape[1])


def _landmarks(
    root: Path, items: list[Item], spec: str, beside: Path, jobs: int, on_progress: OnStage | None
) -> tuple[NDArray[np.float32] | None, tuple[Failure, ...], str]:
    if is_detector(spec):
        detector = make_detector(spec)
        report = None if on_progress is None else (lambda done, total: on_progress("faces", done, total))
        found = detect_landmarks(items, detector, beside, jobs=jobs, on_progress=report)
        return found.landmarks, found.missing, detector.info
    path = Path(spec)
    if spec in ("auto", "none"):
        beside_source = find_landmarks(root) if spec == "auto" else None
        if beside_source is None:
            # A list that an earlier run left would speak of other landmarks.
            write_no_face(beside, ())
            return None, (), ""
        path = beside_source
    points = landmarks_for(path, items)
    missing = without_face(items, points)
    write_no_face(beside, missing)
    return points, missing, str(path)
