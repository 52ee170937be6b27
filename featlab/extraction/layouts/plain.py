"""The plain layouts: folders subject/label/[video/]image, a manifest with one row an image or video, loose files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePath

from featlab.config.options import Options, option
from featlab.errors import ConfigError, InputError
from featlab.extraction.items import IMAGE_SUFFIXES, Item, counts_up, item_order
from featlab.extraction.layouts import register_layout, tree
from featlab.extraction.text import file_in
from featlab.extraction.video.frames import is_video

EXPECTED = "subject/label/image or subject/label/video/image"
_LOOSE = "an image, a video, or a folder of them, with or without a folder a clip"


@register_layout("folders", title="Folders subject/label/[clip/]image", subject="a person")
def read_folders(root: Path, options: Options) -> list[Item]:
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

    The names of the folders are the subjects, labels and clips. Without a clip's folder a label's images are one clip
    where their names count up as those of frames do, and else stills, each a clip by itself, as a video file is. Frames
    are numbered in natural order. The neutral class is the one called ``neutral``, or what ``--neutral`` says.
    """
    found: list[Item] = []
    for person in tree.folders(root):
        for label in tree.folders(person):
            for clip in (label, *tree.folders(label)):
                video = tree.relative(clip, root)
                pictures, alone = tree.images(clip), tree.videos(clip)
                if clip == label and not counts_up(path.name for path in pictures):
                    pictures, alone = [], pictures + alone
                paths = [(path, video, frame) for frame, path in enumerate(pictures)]
                paths += [(path, f"{video}/{path.name}", 0) for path in alone]
                for path, name, frame in paths:
                    found.append(Item(path, f"{video}/{path.name}", person.name, label.name, name, frame, row=-1))
                deeper = [path for folder in tree.folders(clip) if clip != label for path in tree.images(folder)]
                if deeper:
                    raise InputError(f"{root}: expected {EXPECTED}, found {deeper[0].name} below {deeper[0].parent}")
    for folder in (root, *tree.folders(root)):
        for path in (*tree.images(folder), *tree.videos(folder)):
            raise InputError(f"{root}: expected {EXPECTED}, found {tree.relative(path, root)}")
    if not found:
        unread = tree.kinds(tree.left_out(root))
        raise tree.mismatch(root, EXPECTED + (f" that can be read, not {unread}" if unread else ""))
    return tree.numbered(found)


def _recognises(root: Path) -> bool:
    if root.is_dir():
        return (root / "manifest.csv").is_file()
    return root.suffix.lower() == ".csv" and not {"emotion", "pixels"} & set(tree.header(root))


@register_layout(
    "manifest", title="A manifest.csv", subject="its column subject", recognises=_recognises, takes_files=True
)
def read_manifest(root: Path, options: Options) -> list[Item]:
    """A csv with a row an image or video, or the folder that holds it as manifest.csv.

    ::

        ROOT/
          manifest.csv      path,subject,label,video,frame
          …                 the images, where the paths say

    Only ``path`` and ``subject`` have to be there. Paths are relative to the csv, or absolute; a video stands for all
    of its frames. An empty label is unknown. The clip is by default the folder that the path names, or else the
    subject, for images whose names count up as those of frames do; other images are stills, each a clip of its own. A
    clip gives the frames of all rows or of none; by default they are numbered in natural order.
    """
    manifest = root / "manifest.csv" if root.is_dir() else root
    if not manifest.is_file():
        raise tree.mismatch(root, "a manifest.csv with path,subject,label,video,frame")
    from featlab.extraction.tables.index import make_index
    from featlab.extraction.tables.rows import INDEX_COLUMNS

    names, where = tree.read_columns(manifest, ("path", "subject"), INDEX_COLUMNS)
    for column in ("path", "subject"):
        if "" in names[column]:
            raise InputError(
                f"{where(names[column].index(''))}: the {column} is empty, or a word for nothing (NA, None, nan, …); "
                "write it otherwise"
            )
    # A manifest written on Windows must mean the same files here.
    paths = [path.replace("\\", "/") for path in names["path"]]
    names = {"video": [""] * len(paths), "frame": [""] * len(paths)} | names
    for place in [place for place, path in enumerate(paths) if is_video(PurePath(path))]:
        names["video"][place] = names["video"][place] or paths[place]
        names["frame"][place] = names["frame"][place] or "0"
    index = make_index(names, len(paths), where, without_folder=names["subject"])
    found = [file_in(manifest.parent, path) for path in paths]
    columns = found, paths, index.subject, index.label, index.video, index.frame.tolist(), range(len(paths))
    items = [Item(*values) for values in zip(*columns, strict=True)]
    return sorted(items, key=item_order)


@dataclass(frozen=True)
class LooseOptions(Options):
    """Of a person's images."""

    subject: str = option("person", "Who is seen in all of them.")


def is_loose(source: Path) -> bool:
    """Whether a source is an image, a video, or a folder whose images and videos lie in it or one folder down."""
    if source.is_file():
        return _wanted(source)
    if not source.is_dir() or (source / "manifest.csv").is_file():
        return False
    return any(_wanted(file) for folder in (source, *tree.folders(source)) for file in tree.files(folder))


@register_layout("loose", title="One person's images and videos", subject="one person", takes_files=True)
def read_loose(root: Path, options: LooseOptions) -> list[Item]:
    """One person's images and videos, without labels.

    ::

        ROOT/
          img1.jpg  img2.jpg  …
          talk.mp4
          clip-b/
            0001.png  0002.png  …

    All are of one subject, the option ``subject``. A folder's images are a clip where their names count up, numbered in
    natural order (``img2`` before ``img10``); other images are stills, each a clip by itself, as a video is.
    """
    if root.is_file():
        if not _wanted(root):
            raise InputError(f"{root}: neither an image nor a video by its name; expected {_LOOSE}")
        return [Item(root, root.name, options.subject, None, root.name, 0, 0)]
    found: list[Item] = []
    for folder, place in ((root, ""), *((folder, f"{folder.name}/") for folder in tree.folders(root))):
        frame, clip = 0, counts_up(path.name for path in tree.images(folder))
        for file in filter(_wanted, tree.files(folder)):
            if is_video(file) or not clip:
                found.append(Item(file, place + file.name, options.subject, None, place + file.name, 0, -1))
            else:
                # No clip below can be called that: a folder's name has no slash.
                video = folder.name if place else f"{folder.resolve().name}/"
                found.append(Item(file, place + file.name, options.subject, None, video, frame, -1))
                frame += 1
    if not found:
        raise InputError(f"{root}: expected {_LOOSE}, found no image in it")
    return tree.numbered(found)


def _wanted(file: Path) -> bool:
    return file.suffix.lower() in IMAGE_SUFFIXES or is_video(file)


_SFDA_PFT_TREE = "SUBJECT/IMAGE_N.jpg and SUBJECT/IMAGE_P.jpg (or a clip's folder between the two)"


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


def _is_sfda_pft(root: Path) -> bool:
    if not root.is_dir():
        return False
    marks = SFDAPFTOptions().classes
    for person in tree.folders(root):
        names = [path.stem for path in tree.images(person)]
        if names:
            return all(_mark(name) in marks for name in names)
    return False


@register_layout(
    "sfda-pft", title="Folders as the released SFDA-PFT code has them", subject="a person", recognises=_is_sfda_pft
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

    A subject is a person. The images of one class straight in a subject's folder are one clip, and in a folder below
    one clip a folder and class. Frames are numbered in natural order.
    """
    classes = options.classes
    items: list[Item] = []
    for person in tree.folders(root):
        for folder in (person, *tree.folders(person)):
            by_label: dict[str, list[Path]] = {}
            for path in tree.images(folder):
                label = classes.get(_mark(path.stem))
                if label is None:
                    marks = " or ".join(f"_{mark}" for mark in classes)
                    raise InputError(f"{root}: expected names that end in {marks}, found {tree.relative(path, root)}")
                by_label.setdefault(label, []).append(path)
            for label, paths in by_label.items():
                video = label if folder == person else f"{folder.name}/{label}"
                items += [
                    Item(path, tree.relative(path, root), person.name, label, video, frame, row=-1)
                    for frame, path in enumerate(paths)
                ]
    if not items:
        inside = tree.folders(root)
        raise tree.mismatch(root, _SFDA_PFT_TREE, inside[0] if inside else None)
    return tree.numbered(items)


def _mark(stem: str) -> str:
    return stem.rpartition("_")[2] if "_" in stem else ""
