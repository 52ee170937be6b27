"""What data sets look like on disk: from a root folder to a list of images."""

from featlab.extraction.layouts.base import (
    Layout,
    NoOptions,
    detect_layout,
    get_layout,
    layout_names,
    read_layout,
    register_layout,
    resolve_layout,
)

__all__ = [
    "Layout",
    "NoOptions",
    "detect_layout",
    "get_layout",
    "layout_names",
    "read_layout",
    "register_layout",
    "resolve_layout",
]
