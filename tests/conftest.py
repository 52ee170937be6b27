"""One thread: what is computed here is small, and a second thread makes it slower, on a busy machine many times."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
