"""What a layout is: a function from a root to items, and the facts around it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from featlab.config.options import Options, with_options
from featlab.errors import ConfigError, InputError
from featlab.extraction.items import Item
from featlab.extraction.video.times import Sampling

__all__ = ["EVERY_FRAME", "Layout", "NoOptions", "Reader"]

EVERY_FRAME = Sampling()

Reader = Callable[[Path, Any], list[Item]]
"""From a root and the layout's options to its items: sorted by subject, video and frame, at least one."""


@dataclass(frozen=True)
class NoOptions(Options):
    """The options of a layout that has none."""


@dataclass(frozen=True)
class Layout:
    """One way in which a data set lies on disk.

    Attributes:
        name: What ``--layout`` takes.
        title: The data set's own name.
        subject: What a subject is, in a few words: a person, or the data set where people have no names.
        reader: The function that lists the images; its docstring shows the tree that it expects.
        options: A frozen dataclass with a default for everything.
        recognises: Whether a root looks like this, told from a few names. Never by opening an image.
        neutral: Name of the neutral class.
        sampling: Which frames of its videos are usually taken.
        takes_files: Whether the root may be a file.
    """

    name: str
    title: str
    subject: str
    reader: Reader
    options: type[Any]
    recognises: Callable[[Path], bool]
    neutral: str
    sampling: Sampling
    takes_files: bool

    @property
    def description(self) -> str:
        """The tree that is expected and what is made of it: the reader's docstring, up to its ``Args``."""
        return (inspect.getdoc(self.reader) or self.title).partition("\nArgs:\n")[0].rstrip()

    def read(self, root: Path, options: Mapping[str, Any] | None = None) -> list[Item]:
        """List the images below a root.

        Args:
            root: The data set's folder (for some layouts: its file).
            options: Option name to value; text is converted to the option's type.

        Returns:
            The items, sorted by subject, video and frame; at least one. A video that is annotated as a whole is one
            item, frame 0. ``row`` is the place in the list, except in a manifest, which has rows of its own.

        Raises:
            InputError: The tree is another one; says what was expected and what was found.
            ConfigError: An unknown option, or a value that doesn't fit.
        """
        config = self._config(options or {})
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
        return items

    def _config(self, options: Mapping[str, Any]) -> Any:
        if options and not fields(self.options):
            raise ConfigError(f"the layout {self.name} has no options, got {', '.join(options)}")
        return with_options(self.options(), options, self.name)
