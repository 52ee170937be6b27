"""One person's images and videos as they lie about: a file, a folder of them, or a folder with a folder a clip."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from featlab.config.options import Options, option
from featlab.errors import InputError
from featlab.extraction.items import IMAGE_SUFFIXES, Item
from featlab.extraction.layouts.base import register_layout
from featlab.extraction.layouts.tree import files, folders, numbered
from featlab.extraction.video.frames import is_video

EXPECTED = "an image, a video, or a folder of them, with or without a folder a clip"


@dataclass(frozen=True)
class LooseOptions(Options):
    """Of a person's images."""

    subject: str = option("person", "Who is seen in all of them.")


def is_loose(source: Path) -> bool:
    """Whether a source is an image, a video, or a folder whose images and videos lie in it or one folder down.

    A folder with a ``manifest.csv`` is not: the manifest says more about its images.
    """
    if source.is_file():
        return _wanted(source)
    if not source.is_dir() or (source / "manifest.csv").is_file():
        return False
    return any(_wanted(file) for folder in (source, *folders(source)) for file in files(folder))


@register_layout(
    "loose", title="One person's images and videos", subject="one person", options=LooseOptions, takes_files=True
)
def read_loose(root: Path, options: LooseOptions) -> list[Item]:
    """One person's images and videos, without labels.

    ::

        ROOT/
          img1.jpg  img2.jpg  …
          talk.mp4
          clip-b/
            0001.png  0002.png  …

    All are of one subject, the option ``subject``. A folder's images are a clip, their frames numbered in natural order
    (``img2`` before ``img10``); a video is a clip by itself. The root may also be one image or one video. Hidden files
    and folders, and files of other kinds, are ignored.
    """
    if root.is_file():
        if not _wanted(root):
            raise InputError(f"{root}: neither an image nor a video by its name; expected {EXPECTED}")
        return [Item(root, root.name, options.subject, None, root.name, 0, 0)]
    found: list[Item] = []
    for folder, place in ((root, ""), *((folder, f"{folder.name}/") for folder in folders(root))):
        frame = 0
        for file in files(folder):
            if is_video(file):
                found.append(Item(file, place + file.name, options.subject, None, place + file.name, 0, -1))
            elif _wanted(file):
                # No clip below can be called that: a folder's name has no slash.
                video = folder.name if place else f"{folder.resolve().name}/"
                found.append(Item(file, place + file.name, options.subject, None, video, frame, -1))
                frame += 1
    if not found:
        raise InputError(f"{root}: expected {EXPECTED}, found no image in it")
    return numbered(found)


def _wanted(file: Path) -> bool:
    return file.suffix.lower() in IMAGE_SUFFIXES or is_video(file)
