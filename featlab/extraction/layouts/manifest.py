"""The most general layout: a csv with one row an image or video."""

from __future__ import annotations

from pathlib import Path

from featlab.extraction.items import Item
from featlab.extraction.layouts.base import NoOptions
from featlab.extraction.layouts.registry import register_layout
from featlab.extraction.layouts.tables import header
from featlab.extraction.layouts.tree import mismatch
from featlab.extraction.manifest import read_manifest


def _recognises(root: Path) -> bool:
    if root.is_dir():
        return (root / "manifest.csv").is_file()
    return root.suffix.lower() == ".csv" and not {"emotion", "pixels"} & set(header(root))


@register_layout(
    "manifest", title="A manifest.csv", subject="its column subject", recognises=_recognises, takes_files=True
)
def read_manifest_layout(root: Path, options: NoOptions) -> list[Item]:
    """A csv with a row an image or video, or the folder that holds it as manifest.csv.

    ::

        ROOT/
          manifest.csv      path,subject,label,video,frame
          …                 the images, where the paths say

    Only ``path`` and ``subject`` have to be there. Paths are relative to the csv, or absolute; a video stands for all
    of its frames. An empty label is unknown. The neutral class is the one called ``neutral``, or what ``--neutral``
    says. Landmarks go by the manifest's own rows.

    Args:
        root: The csv, or its folder.
        options: None.
    """
    if not root.is_dir():
        return read_manifest(root)
    path = root / "manifest.csv"
    if not path.is_file():
        raise mismatch(root, "a manifest.csv with path,subject,label,video,frame")
    return read_manifest(path)
