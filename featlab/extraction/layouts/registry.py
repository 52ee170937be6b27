"""Layouts by name: a decorator registers a function, an entry point brings one from another package.

The module behind a name is imported when the name is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from featlab.errors import ConfigError, InputError, closest
from featlab.extraction.items import Item, item_order
from featlab.extraction.layouts.base import EVERY_FRAME, Layout, NoOptions, Reader
from featlab.extraction.video.times import Sampling

__all__ = [
    "combine_items",
    "detect_layout",
    "get_layout",
    "layout_names",
    "read_layout",
    "register_layout",
    "resolve_layout",
]

ENTRY_POINTS = "featlab.layouts"
_BUILT_IN = {
    "manifest": "manifest",
    "folders": "folders",
    "biovid": "biovid",
    "stressid": "stressid",
    "bah": "bah",
    "aff-wild2": "aff_wild2",
    "fer2013": "fer2013",
    "expw": "expw",
    "raf-db": "raf_db",
    "sfda-pft": "sfda_pft",
    "loose": "loose",
}
_REGISTRY: dict[str, Layout] = {}


def register_layout(
    name: str,
    *,
    title: str,
    subject: str,
    options: type[Any] = NoOptions,
    recognises: Callable[[Path], bool] | None = None,
    neutral: str = "neutral",
    sampling: Sampling = EVERY_FRAME,
    takes_files: bool = False,
) -> Callable[[Reader], Reader]:
    """Decorator: make a function from a root and options to items known as a layout.

    A package of its own names the module in the entry-point group ``featlab.layouts``, under the layout's name.

    Args:
        name: What ``--layout`` takes.
        title: The data set's own name.
        subject: What a subject is, in a few words.
        options: A frozen dataclass, the function's second argument.
        recognises: Whether a root looks like this; None: it has to be named.
        neutral: Name of the neutral class.
        sampling: Which frames of its videos are usually taken.
        takes_files: Whether the root may be a file.

    Raises:
        ConfigError: The name is taken.
    """

    def register(reader: Reader) -> Reader:
        known = _REGISTRY.get(name)
        module = getattr(reader, "__module__", "")
        built_in = name in _BUILT_IN and module != f"{__package__}.{_BUILT_IN[name]}"
        if not name or name == "auto" or built_in or (known is not None and known.reader.__module__ != module):
            raise ConfigError(f"a layout can't be registered as {name!r}: the name is taken or empty")
        _REGISTRY[name] = Layout(
            name=name,
            title=title,
            subject=subject,
            reader=reader,
            options=options,
            recognises=recognises or _never,
            neutral=neutral,
            sampling=sampling,
            takes_files=takes_files,
        )
        return reader

    return register


def layout_names() -> tuple[str, ...]:
    """Return the known names: the built-in ones, then the plug-ins, sorted. Imports none of them."""
    plugins = {*_REGISTRY, *_plugins()} - set(_BUILT_IN)
    return (*_BUILT_IN, *sorted(plugins))


def get_layout(name: str) -> Layout:
    """Return a layout by its name.

    Raises:
        ConfigError: No such layout (names the closest), or a plug-in that can't be loaded.
    """
    if name not in _REGISTRY:
        if name in _BUILT_IN:
            import_module(f"{__package__}.{_BUILT_IN[name]}")
        elif name in _plugins():
            _load(_plugins()[name])
        else:
            known = layout_names()
            raise ConfigError(f"no layout is called {name!r} (known: auto, {', '.join(known)}){closest(name, known)}")
    return _REGISTRY[name]


def read_layout(name: str, root: Path, **options: Any) -> list[Item]:
    """List the images below a root that lies in a named layout.

    Args:
        name: A name of `layout_names`, or ``auto``.
        root: The data set's folder (for some layouts: its file).
        **options: The layout's options.

    Returns:
        The items, sorted by subject, video and frame; at least one.

    Raises:
        ConfigError: An unknown layout or option.
        InputError: The tree is another one; says what was expected and what was found.
    """
    layout, place = resolve_layout(name, root)
    return layout.read(place, options)


def detect_layout(root: Path) -> str | None:
    """Return the one layout that a root looks like, or None: none, or more than one.

    A ``manifest.csv`` in the folder decides. ``folders`` is never guessed: it is what is left.
    """
    if _recognises(get_layout("manifest"), root):
        return "manifest"
    found = [name for name in layout_names() if name != "manifest" and _recognises(get_layout(name), root)]
    return found[0] if len(found) == 1 else None


def resolve_layout(name: str, source: Path) -> tuple[Layout, Path]:
    """Return the layout that is meant and the root that it reads.

    Args:
        name: A layout's name; ``auto`` takes the one that the source looks like, ``folders`` when it looks like none.
        source: A folder or a file.

    Returns:
        The layout, and the source or, for a folder with a manifest in it, the manifest.

    Raises:
        ConfigError: No such layout.
        InputError: ``auto``, and the source isn't there or is a file of an unknown kind.
    """
    if name == "auto":
        if not source.exists():
            raise InputError(f"{source}: no such file or folder")
        found = detect_layout(source)
        if found is None and not source.is_dir():
            raise InputError(f"{source}: expected a manifest (.csv with path,subject,...) or a folder")
        name = found or "folders"
    layout = get_layout(name)
    inside = source / "manifest.csv"
    return layout, inside if name == "manifest" and inside.is_file() else source


def combine_items(*parts: Iterable[Item]) -> list[Item]:
    """Put the items of several data sets into one list, for one cache in which each of them is a domain.

    Args:
        *parts: Items of each, as `read_layout` returns them; their subjects have to differ.

    Returns:
        All of them, sorted by subject, video and frame, ``row`` counted anew.

    Raises:
        InputError: Two parts have a subject in common.
    """
    owner: dict[str, int] = {}
    items: list[Item] = []
    for number, part in enumerate(parts):
        for item in part:
            if owner.setdefault(item.subject, number) != number:
                raise InputError(f"two of the data sets have a subject {item.subject!r}; give one of them another name")
            items.append(item)
    items.sort(key=item_order)
    return [replace(item, row=row) for row, item in enumerate(items)]


def _never(root: Path) -> bool:
    return False


def _recognises(layout: Layout, root: Path) -> bool:
    try:
        return layout.recognises(root)
    except (OSError, ValueError):
        return False


@cache
def _plugins() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=ENTRY_POINTS) if point.name not in _BUILT_IN}


def _load(point: EntryPoint) -> None:
    try:
        point.load()
    except Exception as error:
        raise ConfigError(f"the layout plug-in {point.name!r} ({point.value}) can't be loaded: {error}") from error
    if point.name not in _REGISTRY:
        raise ConfigError(f"the layout plug-in {point.name!r} ({point.value}) registers no layout of that name")
