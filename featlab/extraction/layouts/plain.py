"""The plain layouts: folders subject/label/[video/]image, a manifest with one row an image or video, loose files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePath

from featlab.config.options import Options, option
from featlab.errors import InputError
from featlab.extraction.items import IMAGE_SUFFIXES, Item, counts_up
from featlab.extraction.layouts import register_layout, tree
from featlab.extraction.text import file_in, first_names, read_columns
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
            clips = tree.folders(label)
            found += _items(label, root, person.name, label.name, tree.relative(label, root))
            for clip in clips:
                video = tree.relative(clip, root)
                found += tree.in_clip(tree.images(clip), root, person.name, label.name, video)
                found += _each_alone(tree.videos(clip), root, person.name, label.name)
            for deeper in (path for clip in clips for folder in tree.folders(clip) for path in tree.images(folder)):
                raise InputError(f"{root}: expected {EXPECTED}, found {deeper.name} below {deeper.parent}")
    for folder in (root, *tree.folders(root)):
        for path in filter(_is_wanted, tree.files(folder)):
            raise InputError(f"{root}: expected {EXPECTED}, found {tree.relative(path, root)}")
    if not found:
        unread = tree.kinds(tree.left_out(root))
        raise tree.mismatch(root, EXPECTED + (f" that can be read, not {unread}" if unread else ""))
    return found


def _items(folder: Path, root: Path, subject: str, label: str | None, video: str) -> list[Item]:
    """Return the items of a folder: its images are one clip if their names count up; all else is a clip by itself."""
    pictures, alone = tree.images(folder), tree.videos(folder)
    if not counts_up(path.name for path in pictures):
        pictures, alone = [], pictures + alone
    return tree.in_clip(pictures, root, subject, label, video) + _each_alone(alone, root, subject, label)


def _each_alone(paths: list[Path], root: Path, subject: str, label: str | None) -> list[Item]:
    return [item for path in paths for item in tree.in_clip([path], root, subject, label, tree.relative(path, root))]


def _is_manifest(root: Path) -> bool:
    if root.is_dir():
        return (root / "manifest.csv").is_file()
    return root.suffix.lower() == ".csv" and not {"emotion", "pixels"} & set(first_names(root))


@register_layout(
    "manifest", title="A manifest.csv", subject="its column subject", recognises=_is_manifest, takes_files=True
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

    names, where = read_columns(manifest, ("path", "subject"), INDEX_COLUMNS, filled=True)
    # A manifest written on Windows must mean the same files here.
    paths = [path.replace("\\", "/") for path in names["path"]]
    names = {"video": [""] * len(paths), "frame": [""] * len(paths)} | names
    for place in [place for place, path in enumerate(paths) if is_video(PurePath(path))]:
        names["video"][place] = names["video"][place] or paths[place]
        names["frame"][place] = names["frame"][place] or "0"
    index = make_index(names, len(paths), where, without_folder=names["subject"])
    found = [file_in(manifest.parent, path) for path in paths]
    columns = found, paths, index.subject, index.label, index.video, index.frame.tolist(), range(len(paths))
    return [Item(*values) for values in zip(*columns, strict=True)]


@dataclass(frozen=True)
class LooseOptions(Options):
    """Of a person's images."""

    subject: str = option("person", "Who is seen in all of them.")


def is_loose(source: Path) -> bool:
    """Whether a source is an image, a video, or a folder whose images and videos lie in it or one folder down."""
    if source.is_file():
        return _is_wanted(source)
    if not source.is_dir() or (source / "manifest.csv").is_file():
        return False
    return any(_is_wanted(file) for folder in (source, *tree.folders(source)) for file in tree.files(folder))


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
        if not _is_wanted(root):
            raise InputError(f"{root}: neither an image nor a video by its name; expected {_LOOSE}")
        return tree.in_clip([root], root, options.subject, None, root.name)
    # No clip below can be called as the root's is: a folder's name has no slash.
    found = _items(root, root, options.subject, None, f"{root.resolve().name}/")
    for folder in tree.folders(root):
        found += _items(folder, root, options.subject, None, folder.name)
    if not found:
        raise InputError(f"{root}: expected {_LOOSE}, found no image in it")
    return found


def _is_wanted(file: Path) -> bool:
    return file.suffix.lower() in IMAGE_SUFFIXES or is_video(file)


_SFDA_PFT_TREE = "SUBJECT/IMAGE_N.jpg and SUBJECT/IMAGE_P.jpg (or a clip's folder between the two)"
_SFDA_PFT = {"N": "neutral", "P": "pain"}


@dataclass(frozen=True)
class SFDAPFTOptions(Options):
    """The layout sfda-pft has none."""

    removed = {"labels": "_N is neutral and _P pain; name other classes with the layout folders"}  # noqa: RUF012


def _is_sfda_pft(root: Path) -> bool:
    first = next(filter(None, map(tree.images, tree.folders(root))), [])
    return bool(first) and all(_end(path) in _SFDA_PFT for path in first)


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

    The images of one class straight in a subject's folder are one clip, and in a folder below one clip a folder and
    class. Frames are numbered in natural order.
    """
    items: list[Item] = []
    for person in tree.folders(root):
        for folder in (person, *tree.folders(person)):
            pictures = tree.images(folder)
            for path in (path for path in pictures if _end(path) not in _SFDA_PFT):
                raise InputError(f"{root}: expected names that end in _N or _P, found {tree.relative(path, root)}")
            for end, label in _SFDA_PFT.items():
                video = label if folder == person else f"{folder.name}/{label}"
                mine = [path for path in pictures if _end(path) == end]
                items += tree.in_clip(mine, root, person.name, label, video)
    if not items:
        raise tree.mismatch(root, _SFDA_PFT_TREE, next(iter(tree.folders(root)), None))
    return items


def _end(path: Path) -> str:
    """Return what follows the last underscore of a picture's name; empty without one."""
    return path.stem.rpartition("_")[2] if "_" in path.stem else ""
