"""What is kept of pairs: a summary for people, a csv to read, arrays to store."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featlab.cache import FeatureTable, atomic_write_text
from featlab.config.sections import LABEL_RULES, STRATEGIES
from featlab.errors import BundleError
from featlab.pairing.pairs import Pairs

__all__ = ["pairs_from_arrays", "pairs_summary", "pairs_to_arrays", "write_pairs_csv"]


def pairs_summary(pairs: Pairs, table: FeatureTable) -> dict[str, Any]:
    """Count what the pairs look like.

    Args:
        pairs: Of `table`.
        table: The rows that were paired.

    Returns:
        JSON-ready: strategy, label_rule, pairs, skipped (rows without a reference), median_score (None for random),
        same_label_share (of the pairs whose two labels are known; None if there are none), reference_rows (different
        rows that serve as a reference), most_used_row (how often the most used one does: hubs pull all identities
        towards a few), references (by subject name: how often a row of that subject is the reference).
    """
    row_label, reference_label = table.label[pairs.row], table.label[pairs.reference]
    known = (row_label >= 0) & (reference_label >= 0)
    used = np.bincount(pairs.reference, minlength=len(table))
    by_subject = np.bincount(table.subject[pairs.reference], minlength=len(table.subjects))
    scored = pairs.score[~np.isnan(pairs.score)]
    return {
        "strategy": pairs.strategy,
        "label_rule": pairs.label_rule,
        "pairs": len(pairs),
        "skipped": pairs.skipped,
        "median_score": float(np.median(scored)) if len(scored) else None,
        "same_label_share": float((row_label == reference_label)[known].mean()) if known.any() else None,
        "reference_rows": int((used > 0).sum()),
        "most_used_row": int(used.max(initial=0)),
        "references": {table.subjects[code]: int(by_subject[code]) for code in np.unique(table.subject)},
    }


def write_pairs_csv(path: str | os.PathLike[str], pairs: Pairs, table: FeatureTable) -> None:
    """Write the pairs by name, one a line: subject, video, frame and label of row and reference, and the score.

    Unknown labels and the scores of random pairs are empty cells.

    Raises:
        FeatlabError: The file can't be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    sides = ("row", "reference")
    writer.writerow([f"{side}_{name}" for side in sides for name in ("subject", "video", "frame", "label")] + ["score"])
    for row, reference, score in zip(pairs.row, pairs.reference, pairs.score, strict=True):
        cells = _names(table, int(row)) + _names(table, int(reference))
        writer.writerow([*cells, "" if np.isnan(score) else f"{score:.6f}"])
    atomic_write_text(path, text.getvalue())


def pairs_to_arrays(pairs: Pairs) -> dict[str, NDArray[Any]]:
    """Return the pairs as arrays alone, for a safetensors file; words become their UTF-8 bytes."""
    return {
        "row": pairs.row,
        "reference": pairs.reference,
        "score": pairs.score,
        "strategy": np.frombuffer(pairs.strategy.encode(), dtype=np.uint8),
        "label_rule": np.frombuffer(pairs.label_rule.encode(), dtype=np.uint8),
        "skipped": np.array([pairs.skipped], dtype=np.int64),
    }


def pairs_from_arrays(arrays: Mapping[str, NDArray[Any]], *, rows: int) -> Pairs:
    """Return the pairs that `pairs_to_arrays` made into `arrays`.

    Args:
        arrays: The arrays by name.
        rows: Rows of the table that was paired; pairs may point to no others.

    Raises:
        BundleError: A missing array, or one of another dtype, shape or content than `pairs_to_arrays` makes.
    """
    dtypes = {"row": np.int64, "reference": np.int64, "score": np.float32}
    dtypes |= {"strategy": np.uint8, "label_rule": np.uint8, "skipped": np.int64}
    for name, dtype in dtypes.items():
        if name not in arrays or arrays[name].dtype != dtype or arrays[name].ndim != 1:
            raise BundleError(f"stored pairs: {name!r} is missing or not one row of {np.dtype(dtype)}; pair again")
    row, reference, score = arrays["row"], arrays["reference"], arrays["score"]
    if not len(row) == len(reference) == len(score) or len(arrays["skipped"]) != 1:
        raise BundleError("stored pairs: row, reference and score differ in length; pair again")
    for name in ("row", "reference"):
        if len(row) and not 0 <= arrays[name].min() <= arrays[name].max() < rows:
            raise BundleError(f"stored pairs: {name!r} points outside the {rows} rows of the table; pair again")
    strategy = arrays["strategy"].tobytes().decode(errors="replace")
    label_rule = arrays["label_rule"].tobytes().decode(errors="replace")
    if strategy not in STRATEGIES or label_rule not in LABEL_RULES:
        raise BundleError(f"stored pairs: unknown strategy {strategy!r} or label rule {label_rule!r}; pair again")
    return Pairs(row, reference, score, strategy, label_rule, int(arrays["skipped"][0]))


def _names(table: FeatureTable, row: int) -> list[str | int]:
    label = int(table.label[row])
    video = table.videos[table.video[row]]
    return [
        table.subjects[table.subject[row]],
        video,
        int(table.frame[row]),
        table.classes[label] if label >= 0 else "",
    ]
