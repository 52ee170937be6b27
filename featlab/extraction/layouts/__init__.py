"""What a layout is, and layouts by name: a decorator registers a reader, an entry point brings one from elsewhere."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_type_hints

from featlab.config.options import Options, Registry, with_options
from featlab.errors import ConfigError, InputError
from featlab.extraction.items import Item, with_one_name_each
from featlab.extraction.video import EVERY_FRAME, Sampling

Reader = Callable[[Path, Any], list[Item]]
"""From a root and the layout's options to its items, at least one, in any order; ``row`` is mostly left to `Layout`."""


@dataclass(frozen=True)
class Layout:
    """One way in which a data set lies on disk."""

    name: str  # What ``--layout`` takes.
    title: str  # The data set's own name.
    subject: str  # What a subject is, in a few words: a person, or the data set where people have no names.
    reader: Reader  # The function that lists the images; its docstring shows the tree that it expects.
    options: type[Any]  # A frozen dataclass with a default for everything.
    # Whether a folder (with ``takes_files``: or a file) looks like this, told from a few names, never by opening an
    # image; by default it has to be named.
    recognises: Callable[[Path], bool] = lambda root: False
    neutral: str = "neutral"  # Name of the neutral class.
    sampling: Sampling = EVERY_FRAME  # Which frames of its videos are usually taken.
    takes_files: bool = False  # Whether the root may be a file.

    @property
    def description(self) -> str:
        """The tree that is expected and what is made of it: the reader's docstring."""
        return inspect.getdoc(self.reader) or self.title

    def read(self, root: Path, options: Mapping[str, Any] | None = None) -> list[Item]:
        """List the images below a root, sorted by subject, video and frame; at least one.

        A video that is annotated as a whole is one item, frame 0. ``row`` is the place in the list, except in a
        manifest, which has rows of its own. Options that are text are converted to their types.
        """
        config = with_options(self.options(), options or {}, self.name)
        if not root.exists():
            raise InputError(f"{root}: no such file or folder")
        if not root.is_dir() and not self.takes_files:
            raise InputError(f"{root}: the layout {self.name} expects the data set's folder, found a file")
        try:
            items = self.reader(root, config)
        except OSError as error:
            raise InputError(f"{error.filename}: can't be read: {error.strerror}") from None
        if not items:
            raise InputError(f"{root}: the layout {self.name} found no image in it")
        for item in items:
            if not (item.name.isprintable() and item.subject.isprintable() and item.video.isprintable()):
                raise InputError(f"{item.name!r}: the name has characters that can't be stored; rename it")
        items = with_one_name_each(items)[0]
        return [replace(item, row=place) if item.row < 0 else item for place, item in enumerate(items)]


LAYOUTS: Registry[Layout] = Registry(
    "layout",
    {
        "manifest": f"{__name__}.plain",
        "folders": f"{__name__}.plain",
        "biovid": f"{__name__}.lab_videos",
        "stressid": f"{__name__}.lab_videos",
        "bah": f"{__name__}.bah",
        "aff-wild2": f"{__name__}.aff_wild2",
        "fer2013": f"{__name__}.web_photos",
        "expw": f"{__name__}.web_photos",
        "raf-db": f"{__name__}.web_photos",
        "sfda-pft": f"{__name__}.plain",
        "loose": f"{__name__}.plain",
    },
    "featlab.layouts",
)


def register_layout(name: str, *, title: str, subject: str, **more: Any) -> Callable[[Reader], Reader]:
    """Decorator: make a function from a root and options to items known as a layout; the keywords are `Layout`'s.

    Its second argument's annotation says which options there are. A package's own module goes by the entry-point group
    ``featlab.layouts``, under the layout's name.
    """

    def register(reader: Reader) -> Reader:
        known = LAYOUTS.found.get(name)
        taken = known is not None and known.reader.__module__ != reader.__module__
        built_in = name in LAYOUTS.built_in and reader.__module__ != LAYOUTS.built_in[name]
        if name in ("", "auto") or taken or built_in:
            raise ConfigError(f"a layout can't be registered as {name!r}: the name is taken or empty")
        options = get_type_hints(reader).get([*inspect.signature(reader).parameters][1], Options)
        LAYOUTS.add(name, Layout(name, title, subject, reader, options, **more))
        return reader

    return register


def read_layout(name: str, root: Path, **options: Any) -> list[Item]:
    """List the images below a root that lies in a named layout, or ``auto``; see `Layout.read`."""
    layout, place = resolve_layout(name, root)
    return layout.read(place, options)


def detect_layout(root: Path) -> str | None:
    """Return the one layout that a root looks like, or None: none, or more than one."""
    if _recognises("manifest", root):
        return "manifest"
    found = [name for name in LAYOUTS.names() if name != "manifest" and _recognises(name, root)]
    return found[0] if len(found) == 1 else None


def resolve_layout(name: str, source: Path) -> tuple[Layout, Path]:
    """Return the layout that is meant and the root that it reads: the source, or the manifest in it."""
    if name == "auto":
        found = detect_layout(source)
        if found is None and source.is_file():
            raise InputError(f"{source}: expected a manifest (.csv with path,subject,...) or a folder")
        name = found or "folders"
    layout = LAYOUTS.get(name)
    inside = source / "manifest.csv"
    return layout, inside if name == "manifest" and inside.is_file() else source


def _recognises(name: str, root: Path) -> bool:
    try:
        layout = LAYOUTS.get(name)
        return (layout.takes_files or root.is_dir()) and layout.recognises(root)
    except (OSError, ValueError):
        return False
