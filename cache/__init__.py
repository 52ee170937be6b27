"""The embedding cache: one HDF5 file, rows grouped by subject, then video, then frame.

Names are loaded on first use, so that importing this package costs neither numpy nor h5py.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from featlab.errors import CacheError

if TYPE_CHECKING:
    from featlab.cache.assemble import write_table
    from featlab.cache.atomic import atomic_write_bytes, atomic_write_text
    from featlab.cache.merge import MergedInput, MergeReport, merge_caches
    from featlab.cache.reader import Cache, CacheSummary, inspect_cache, open_cache
    from featlab.cache.schema import ExtractorInfo
    from featlab.cache.table import FeatureTable, Rows
    from featlab.cache.verify import verify_cache
    from featlab.cache.writer import CacheBuilder

_HOME = {
    name: module
    for module, names in {
        "assemble": "write_table",
        "atomic": "atomic_write_bytes atomic_write_text",
        "merge": "MergeReport MergedInput merge_caches",
        "reader": "Cache CacheSummary inspect_cache open_cache",
        "schema": "ExtractorInfo",
        "table": "FeatureTable Rows",
        "verify": "verify_cache",
        "writer": "CacheBuilder",
    }.items()
    for name in names.split()
}

__all__ = [
    "Cache",
    "CacheBuilder",
    "CacheError",
    "CacheSummary",
    "ExtractorInfo",
    "FeatureTable",
    "MergeReport",
    "MergedInput",
    "Rows",
    "atomic_write_bytes",
    "atomic_write_text",
    "inspect_cache",
    "merge_caches",
    "open_cache",
    "verify_cache",
    "write_table",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
