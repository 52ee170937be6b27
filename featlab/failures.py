"""Why runs failed, each reason once: messages that differ in their numbers only are one reason."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence

from featlab.results import EvaluationRow

__all__ = ["failure_reasons"]

_NUMBER = re.compile(r"\d+(?:\.\d+)?")


def failure_reasons(rows: Sequence[EvaluationRow]) -> dict[str, list[EvaluationRow]]:
    """Return reason to the rows that failed for it, in the order in which they first appear.

    "needs 8 rows, got 5" on one subject and "needs 8 rows, got 6" on another are the reason "needs 8 rows, got …".

    Args:
        rows: Of any methods; those without an error are passed over.
    """
    alike: dict[tuple[str, ...], list[EvaluationRow]] = defaultdict(list)
    for row in rows:
        if row.error:
            alike[tuple(_NUMBER.split(row.error))].append(row)
    return {_merged([row.error for row in group]): group for group in alike.values()}


def _merged(errors: Sequence[str]) -> str:
    """Return messages that differ in numbers only as one, with an ellipsis where they differ."""
    found = [_NUMBER.findall(error) for error in errors]
    numbers = iter([same[0] if len(set(same)) == 1 else "…" for same in zip(*found, strict=True)])
    return _NUMBER.sub(lambda _: next(numbers), errors[0])
