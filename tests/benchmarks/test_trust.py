"""A few of the faults of `benchmarks/trust.py`, from a seed: its table is made by hand, and takes longer."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SOME = """
import random, sys
from pathlib import Path
import artefacts, disturbed, trust_damage as damage, trust_kills as kills
folder, rng = Path(sys.argv[1]), random.Random(1)
place = folder / "place"
jobs = [disturbed.prepared(job, place) for job in disturbed.jobs(folder) if job.name in ("import", "train")]
rows = [kills.row(job.name, kills.kills(job, place, 5, rng)) for job in jobs]
rows.append(kills.row("a full disk", kills.full_disk(jobs, place, 4, rng)))
rows.append(kills.row("a signal", kills.stops(jobs, place, 4, rng)))
for each in artefacts.artefacts(artefacts.made(folder / "files", 0)):
    some = [*damage.flips(each, 0.02, rng), *damage.cuts(each, 0.1)][:12]
    rows.append(kills.row(each.name, damage.tried(each.use, some)))
print(*rows, sep="\\n")
print("held:", all(row.held for row in rows))
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs forks")
def test_some_faults_and_damages_lose_nothing_and_change_nothing_silently(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(BENCHMARKS), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-c", SOME, str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    assert done.stdout.endswith("held: True\n"), done.stdout + done.stderr
