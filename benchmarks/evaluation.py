"""A light evaluation, 10 targets × 6 methods on 960 rows, as whole commands: with all to do, with a source model, done.

What it is measured against is importing torch, and making its source model once: the same training in a process of its
own, without anybody held out to learn what it is worth, without methods, scores, tables and figures.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from claims import Claim, command

from featlab import ExtractorInfo, FeatureTable, write_table

PEOPLE, CLIPS, FRAMES, DIM = 40, 4, 6, 64
METHODS = "source-only,neutral-shift,adabn,coral,referenced,pft"
TRAIN_ONCE = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from featlab.workspace.stages import build_bundle
from featlab.workspace.workspace import Workspace
workspace = Workspace.open(Path(sys.argv[1]), {"protocol.targets": "10"})
table = workspace.source(workspace.targets()).table
build_bundle(table, workspace.config, seed=0, extractor=workspace.extractor, methods=())
"""


def people() -> FeatureTable:
    """Return people with two neutral and two smiling clips, who look alike neither at rest nor when they smile."""
    rng = np.random.default_rng(0)
    rows = PEOPLE * CLIPS * FRAMES
    subject, clip = np.repeat(np.arange(PEOPLE), CLIPS * FRAMES), np.repeat(np.arange(PEOPLE * CLIPS), FRAMES) % CLIPS
    label, smile = clip // 2, rng.normal(size=DIM)
    offset = rng.normal(size=(PEOPLE, DIM)) + rng.normal(size=(PEOPLE, 1)) * smile
    embeddings = offset[subject] + label[:, None] * smile + rng.normal(size=(rows, DIM)) / 2
    return FeatureTable(
        embeddings=embeddings.astype(np.float32),
        label=label.astype(np.int16),
        subject=subject.astype(np.int32),
        video=clip.astype(np.int32),
        frame=np.tile(np.arange(FRAMES, dtype=np.int32), PEOPLE * CLIPS),
        classes=("neutral", "smile"),
        neutral="neutral",
        subjects=tuple(f"s{number:03d}" for number in range(PEOPLE)),
        videos=tuple(f"clip-{number}" for number in range(CLIPS)),
        landmarks=None,
    )


def claims(folder: Path) -> Iterator[Claim]:
    """Yield the claims; every command is one process."""
    write_table(folder / "cache.h5", people(), ExtractorInfo("drawn", "none", "none"))

    def evaluate() -> None:
        command("featlab", "evaluate", "-C", str(folder), "--targets", "10", "--methods", METHODS, "--jobs", "1", "-q")

    def import_torch() -> None:
        command("python", "-c", "import torch")

    def forget(*names: str) -> None:
        for name in names:
            shutil.rmtree(folder / name, ignore_errors=True)

    what, torch = "evaluate 10 targets × 6 methods with figures", "python -c 'import torch'"

    def train() -> None:
        command("python", "-c", TRAIN_ONCE, str(folder))

    def forget_all() -> None:
        forget("results", "stages", "bundles")

    yield Claim(f"{what}, cold", "its source model trained once", 2, evaluate, train, before=forget_all)
    yield Claim(f"{what}, source model ready", torch, 2.5, evaluate, import_torch, before=lambda: forget("results"))
    yield Claim(f"{what}, nothing left to do", torch, 1.6, evaluate, import_torch)
