"""Shards that are embedded on a cluster: each by one process there, which makes the backbone for itself."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import chdir
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import groupby
from pathlib import Path
from typing import Any

from featlab.config.analysis import EngineConfig
from featlab.engine.run import run_all
from featlab.errors import FeatlabError
from featlab.extraction.backbones import Backbone, make_backbone
from featlab.extraction.backbones.builtin import with_mirror
from featlab.extraction.embed import Batch, BatchResult, task_of, with_embeddings
from featlab.extraction.faces.align import AlignConfig, with_alignment


@dataclass(frozen=True)
class Recipe:
    """How a backbone is made: what goes to another process, where a network itself can't go."""

    name: str  # As in `make_backbone`.
    options: tuple[tuple[str, Any], ...] = ()  # Of the backbone.
    mirror: bool = False  # Whether the embedding of the mirror image is averaged with it.
    align: AlignConfig | None = None  # How faces are cropped for it; None: not at all.
    points: int | None = None  # Landmarks of a face, for the crop.

    def make(self) -> Backbone:
        """Return the backbone."""
        made = make_backbone(self.name, **dict(self.options))
        made = with_mirror(made) if self.mirror else made
        return made if self.align is None else with_alignment(made, self.align, points=self.points)


@dataclass(frozen=True)
class Cluster:
    """Where shards are embedded."""

    recipe: Recipe
    fingerprint: str  # Of the backbone that the command made: a worker that lives on may have made one of older files.
    engine: EngineConfig
    jobs: int  # Processes, where the engine starts them on this machine.
    logs: Path  # Folder for the logs of jobs.

    def embed(self, batches: Iterable[Batch]) -> Generator[tuple[Batch, BatchResult], None, None]:
        """Yield batches with their embeddings, those of a shard after each other, shards as they finish."""
        shards = [list(group) for _, group in groupby(batches, key=lambda batch: batch.shard)]
        # Names of files may be relative: all machines see the same folders.
        work = partial(_embed, self.recipe, self.fingerprint, Path.cwd())
        for shard in run_all(work, shards, jobs=self.jobs, engine=self.engine, folder=self.logs):
            yield from shard


@lru_cache(maxsize=1)
def _made(recipe: Recipe, fingerprint: str) -> Backbone:
    """Return the backbone, kept for the next shard; refuse another one than the command's."""
    made = recipe.make()
    if made.info().fingerprint != fingerprint:
        raise FeatlabError(
            f"the backbone {recipe.name!r} is another one on the cluster than here; use the same files and the same "
            "versions of libraries in both places"
        )
    return made


def _embed(recipe: Recipe, fingerprint: str, folder: Path, batches: list[Batch]) -> list[tuple[Batch, BatchResult]]:
    """Decode, prepare and embed the batches of a shard."""
    with chdir(folder):
        backbone = _made(recipe, fingerprint)
        work = task_of(backbone)
        return [(batch, with_embeddings(batch, work(batch), backbone)) for batch in batches]
