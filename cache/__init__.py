"""The embedding cache: one HDF5 file, rows grouped by subject, then video, then frame.

Names are loaded on first use, so that importing this package costs neither numpy nor h5py.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from featlab.errors import CacheError as CacheError

if TYPE_CHECKING:
    from featlab.cache.assemble import write_table as write_table
    from featlab.cache.atomic import atomic_write_bytes as atomic_write_bytes
    from featlab.cache.atomic import atomic_write_text as atomic_write_text
    from featlab.cache.merge import MergedInput as MergedInput
    from featlab.cache.merge import MergeReport as MergeReport
    from featlab.cache.merge import merge_caches as merge_caches
    from featlab.cache.reader import Cache as Cache
    from featlab.cache.reader import CacheSummary as CacheSummary
    from featlab.cache.reader import inspect_cache as inspect_cache
    from featlab.cache.reader import open_cache as open_cache
    from featlab.cache.schema import ExtractorInfo as ExtractorInfo
    from featlab.cache.table import FeatureTable as FeatureTable
    from featlab.cache.table import Rows as Rows
    from featlab.cache.verify import verify_cache as verify_cache
    from featlab.cache.writer import CacheBuilder as CacheBuilder

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

__all__ = sorted(["CacheError", *_HOME])


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
