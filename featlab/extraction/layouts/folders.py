"""The plain layout: folders of a subject's images, by label."""

from __future__ import annotations

from pathlib import Path

from featlab.extraction.folders import read_folder
from featlab.extraction.items import Item
from featlab.extraction.layouts.base import NoOptions
from featlab.extraction.layouts.registry import register_layout


@register_layout("folders", title="Folders subject/label/[clip/]image", subject="a person")
def read_folders(root: Path, options: NoOptions) -> list[Item]:
    """Images and videos in folders subject/label or subject/label/video.

    ::

        ROOT/
          s001/
            neutral/
              img1.jpg  img2.jpg  …
            smile/
              clip-a/
                0001.png  0002.png  …
              clip-b.mp4

    The names of the folders are the subjects, labels and clips; without a clip's folder a label's images are one clip.
    A video file is a clip by itself. Frames are numbered in natural order. The neutral class is the one called
    ``neutral``, or what ``--neutral`` says.

    Args:
        root: The folder that holds one folder a subject.
        options: None.
    """
    return read_folder(root)
