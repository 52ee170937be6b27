"""The layout of the released SFDA-PFT code: a folder a subject, the class at the end of an image's name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from featlab.config.options import Options, option
from featlab.errors import ConfigError, InputError
from featlab.extraction.items import Item
from featlab.extraction.layouts.base import register_layout
from featlab.extraction.layouts.tree import folders, images, mismatch, numbered, relative

EXPECTED = "SUBJECT/IMAGE_N.jpg and SUBJECT/IMAGE_P.jpg (or a clip's folder between the two)"


@dataclass(frozen=True)
class SFDAPFTOptions(Options):
    """Options of the layout sfda-pft."""

    labels: tuple[str, ...] = option(
        ("N=neutral", "P=pain"),
        "What follows the last underscore of a name, and the class that it stands for: LETTERS=CLASS, apart by commas.",
    )

    def check_together(self) -> None:
        """Refuse an entry that names no class."""
        for entry in self.labels:
            mark, equals, name = entry.partition("=")
            if not (mark and equals and name):
                raise ConfigError(f"{self.key('labels')}: {entry!r} isn't LETTERS=CLASS, as in N=neutral,P=pain")

    @property
    def classes(self) -> dict[str, str]:
        """Class by its letters."""
        return {mark: name for mark, _, name in (entry.partition("=") for entry in self.labels)}


def _recognises(root: Path) -> bool:
    if not root.is_dir():
        return False
    marks = SFDAPFTOptions().classes
    for person in folders(root):
        names = [path.stem for path in images(person)]
        if names:
            return all(_mark(name) in marks for name in names)
    return False


@register_layout(
    "sfda-pft",
    title="Folders as the released SFDA-PFT code has them",
    subject="a person",
    options=SFDAPFTOptions,
    recognises=_recognises,
)
def read_sfda_pft(root: Path, options: SFDAPFTOptions) -> list[Item]:
    """A folder a subject; an image's name ends in _N (neutral) or _P (pain).

    ::

        ROOT/
          source_sub1/
            Image1_P.jpg
            Image2_N.jpg
          source_sub2/
            clip-a/                      optional: a folder a recording
              Image1_N.jpg

    A subject is a person. The images of one class straight in a subject's folder are one clip, for their names don't
    say which recording they come from; in a folder below, they are one clip a folder and class. With one neutral clip
    a person's rows are split in time, with a gap, so folders a recording make a cleaner test. Where images are both
    in the subject's folder and below, both count. Frames are numbered in natural order.
    """
    classes = options.classes
    items: list[Item] = []
    for person in folders(root):
        for folder in (person, *folders(person)):
            by_label: dict[str, list[Path]] = {}
            for path in images(folder):
                label = classes.get(_mark(path.stem))
                if label is None:
                    marks = " or ".join(f"_{mark}" for mark in classes)
                    raise InputError(f"{root}: expected names that end in {marks}, found {relative(path, root)}")
                by_label.setdefault(label, []).append(path)
            for label, paths in by_label.items():
                video = label if folder == person else f"{folder.name}/{label}"
                items += [
                    Item(path, relative(path, root), person.name, label, video, frame, row=-1)
                    for frame, path in enumerate(paths)
                ]
    if not items:
        inside = folders(root)
        raise mismatch(root, EXPECTED, inside[0] if inside else None)
    return numbered(items)


def _mark(stem: str) -> str:
    return stem.rpartition("_")[2] if "_" in stem else ""
