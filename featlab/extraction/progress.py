"""How far an extraction is, and which of its stages holds it up."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """A moment of an extraction.

    Attributes:
        done: Items finished, with those of an earlier run and the failed ones.
        total: All items.
        failed: Items that have no row.
        read_rate: Items a second that the decoding alone would reach with its workers; 0 before the first.
        embed_rate: The same for the backbone.
        write_rate: The same for writing shards.
        seconds_left: From the rate since the start; None before the first item of this run.
    """

    done: int
    total: int
    failed: int
    read_rate: float
    embed_rate: float
    write_rate: float
    seconds_left: float | None


class ProgressMeter:
    """Counts items and the seconds that the stages were busy with them.

    Args:
        total: All items.
        done: Items that an earlier run finished.
        failed: How many of those failed.
        readers: Processes that decode at the same time.
        embedders: Processes that embed at the same time.
    """

    def __init__(self, total: int, done: int, failed: int, readers: int, embedders: int) -> None:
        self._total = total
        self._earlier = done
        self._done = done
        self._failed = failed
        self._parallel = {"read": readers, "embed": embedders, "write": 1}
        self._items = dict.fromkeys(self._parallel, 0)
        self._seconds = dict.fromkeys(self._parallel, 0.0)
        self._start = time.monotonic()

    def busy(self, stage: str, items: int, seconds: float) -> None:
        """Add the time of one process: ``stage`` is "read", "embed" or "write"."""
        self._items[stage] += items
        self._seconds[stage] += seconds

    def finished(self, items: int, failed: int) -> None:
        """Count items as done."""
        self._done += items
        self._failed += failed

    def snapshot(self) -> Progress:
        """Return where things stand now."""
        own = self._done - self._earlier
        elapsed = time.monotonic() - self._start
        return Progress(
            done=self._done,
            total=self._total,
            failed=self._failed,
            read_rate=self._rate("read"),
            embed_rate=self._rate("embed"),
            write_rate=self._rate("write"),
            seconds_left=elapsed / own * (self._total - self._done) if own else None,
        )

    def _rate(self, stage: str) -> float:
        seconds = self._seconds[stage]
        return self._items[stage] * self._parallel[stage] / seconds if seconds > 0 else 0.0
