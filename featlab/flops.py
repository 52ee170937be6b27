"""Floating-point operations of an adaptation."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["count_flops"]


def count_flops(run: Callable[[], object]) -> float:
    """Run something once and return its floating-point operations, as torch counts them.

    torch counts matrix products and convolutions, forward and backward; what is done by elements, by decompositions or
    in other libraries (k-means, logistic regression) is not in it. Counting slows a run down, so it is not timed.

    Args:
        run: Called without arguments.
    """
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        run()
    return float(counter.get_total_flops())
