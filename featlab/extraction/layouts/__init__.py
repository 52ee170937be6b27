"""What data sets look like on disk: from a root folder to a list of images."""

from featlab.extraction.layouts.base import Layout, NoOptions
from featlab.extraction.layouts.registry import (
    combine_items,
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
    "combine_items",
    "detect_layout",
    "get_layout",
    "layout_names",
    "read_layout",
    "register_layout",
    "resolve_layout",
]
