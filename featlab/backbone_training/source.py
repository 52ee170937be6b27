"""The images of a source, listed without opening any; frames are taken of source subjects' videos only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from featlab.errors import InputError
from featlab.extraction.failures import Failure
from featlab.extraction.inputs import InputConfig
from featlab.extraction.items import Item, item_order
from featlab.extraction.layouts import resolve_layout
from featlab.extraction.video import Sampling, expand_videos
from featlab.extraction.video_files import is_video

__all__ = ["Listed", "list_items", "take_frames"]


@dataclass(frozen=True, eq=False)
class Listed:
    """What a source holds, by its names alone.

    Attributes:
        items: Images, and videos as a whole.
        neutral: Name of the neutral class, by the layout.
        sampling: Which frames of videos are taken.
    """

    items: list[Item]
    neutral: str
    sampling: Sampling

    @property
    def subjects(self) -> tuple[str, ...]:
        """Everyone, sorted."""
        return tuple(sorted({item.subject for item in self.items}))


def list_items(source: Path, config: InputConfig) -> Listed:
    """List a source in any known layout. No image and no video is opened.

    Args:
        source: A manifest, or a folder.
        config: Its layout and sampling are read.

    Raises:
        InputError: Nothing there, or it doesn't fit; one line.
        ConfigError: An unknown layout or option.
    """
    layout, root = resolve_layout(config.layout, source)
    items = layout.read(root, config.layout_options)
    if config.sampling is not None and not any(is_video(item.path) for item in items):
        raise InputError(
            f"{source} has no videos, so there are no frames to choose: leave out --fps, --window, --stride"
        )
    return Listed(items, layout.neutral, config.sampling if config.sampling is not None else layout.sampling)


def take_frames(
    listed: Listed,
    held_out: Sequence[str],
    *,
    jobs: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[list[Item], tuple[Failure, ...]]:
    """Put frames in the place of source subjects' videos; those of held-out subjects stay as they are, unopened.

    Args:
        listed: From `list_items`.
        held_out: Target subjects.
        jobs: Worker processes that open videos; 0 takes all cores.
        on_progress: Called with how many videos have been opened, and how many there are.

    Returns:
        The items, and the videos that can't be opened.
    """
    held = set(held_out)
    source = [item for item in listed.items if item.subject not in held]
    if not any(is_video(item.path) for item in source):
        return listed.items, ()
    expanded = expand_videos(source, listed.sampling, jobs=jobs, on_progress=on_progress)
    rest = [item for item in listed.items if item.subject in held]
    return sorted([*expanded.items, *rest], key=item_order), tuple(expanded.failures)
