"""How every worker process of the extraction room starts: quiet, on one thread, and never outliving its parent."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading

from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

__all__ = ["settle_worker"]


def settle_worker() -> None:
    """Prepare this worker process; to be called once, by the initialiser of a pool."""
    # The parent handles Ctrl-C; a worker that did as well would only print a traceback.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # As many workers as cores, so one thread each.
    threadpool_limits(limits=1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process when the parent is killed: nobody else would tell it, and it would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
