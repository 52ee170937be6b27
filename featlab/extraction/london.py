"""`london-morph`, made again: clips of subtle smiles from the photographs of the Face Research Lab London Set.

Two photographs of a person, neutral and smiling, are morphed into each other along a face mesh; four clips of 12 frames
follow intensity curves between them, filmed with other light, sensor and head movement each time. The random numbers
behind the published clips aren't known: these are other clips of the same people and the same distribution.
"""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from featlab.cache.atomic import atomic_path, atomic_write_text
from featlab.errors import ConfigError, InputError
from featlab.extraction.london_clips import CLIPS, FRAMES, SIDE
from featlab.extraction.london_person import Mesh, Part, PersonTask, frame_path, make_person, read_part, video_name
from featlab.extraction.london_photos import MORPH_PEOPLE, find_people
from featlab.extraction.shards import Failure, write_failures
from featlab.extraction.worker import run_in_order

__all__ = ["LondonConfig", "LondonReport", "build_london"]

_COLUMNS = ("path", "subject", "label", "video", "frame", "intensity")
_SIZES = (32, 512)
_NOTE = """\
# Clips made from the Face Research Lab London Set

{frames} frames of {people} people, {size} x {size} pixels, made by featlab {version} (seed {seed}; mesh: {mesh}).

- **Source.** DeBruine, L. & Jones, B. (2017). Face Research Lab London Set, version 5. figshare,
  doi 10.6084/m9.figshare.5047666.v5. Licence: CC BY 4.0, https://creativecommons.org/licenses/by/4.0/
- **What was changed.** The neutral and the smiling photograph of a person are morphed into each other, cropped by the
  eyes, and altered in brightness, colour, light, noise and head movement. This is a derivative work under the same
  licence: whoever passes it on gives the credit above and says what was changed.
- **manifest.csv.** `intensity` is the weight of the smiling photograph: for analysis, never a feature.
- **landmarks.npy.** float32 ({frames}, 68, 2), pixels, rows as in the manifest, iBUG order.
- **parts/.** What `featlab london` needs to go on after an interruption, or to add people.
"""


@dataclass(frozen=True)
class LondonConfig:
    """Who, and which random numbers.

    Attributes:
        people: Photograph numbers; the 62 of `london-morph` by default, None for everybody who was photographed.
        seed: A person's clips depend on it and on the person's number only.
        size: Side of a frame, pixels.
        mesh_info: One line on who finds the mesh, for the note, and to tell clips of one mesh from another's.

    Raises:
        ConfigError: A value is out of its range.
    """

    people: tuple[int, ...] | None = MORPH_PEOPLE
    seed: int = 0
    size: int = SIDE
    mesh_info: str = "not named"

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ConfigError(f"seed = {self.seed}: must be 0 or more")
        if not _SIZES[0] <= self.size <= _SIZES[1]:
            raise ConfigError(f"size = {self.size}: must lie between {_SIZES[0]} and {_SIZES[1]} pixels")
        if self.people is not None and not self.people:
            raise ConfigError("people: nobody is named")


@dataclass(frozen=True)
class LondonReport:
    """What was made.

    Attributes:
        manifest: Its path.
        subjects: Who is in it.
        rows: Frames in it.
        resumed: How many of the subjects an earlier run had drawn.
        failures: People who aren't in it, and why; listed beside the manifest, too.
        seconds: Wall time.
    """

    manifest: Path
    subjects: tuple[str, ...]
    rows: int
    resumed: int
    failures: tuple[Failure, ...]
    seconds: float


def build_london(
    photos: Path,
    folder: Path,
    mesh: Mesh,
    config: LondonConfig = LondonConfig(),
    *,
    jobs: int = 1,
    on_progress: Callable[[int, int, int], None] | None = None,
) -> LondonReport:
    """Draw everybody's clips.

    Writes ``frames/*.jpg``, ``landmarks.npy`` (float32 (N, 68, 2), pixels, rows as in the manifest, iBUG order),
    ``README.md`` (source, licence, changes) and, last, ``manifest.csv`` (path, subject, label, video, frame,
    intensity). A killed run leaves no manifest and goes on person by person. The same photographs, mesh and config give
    the same bytes with the same versions of NumPy, SciPy and Pillow, for any number of processes.

    Args:
        photos: The download's folder, see `find_people`.
        folder: Where to; made if missing.
        mesh: From an image to the mesh of its face, (478, 2); must be picklable when ``jobs`` is above 1.
        config: Who, and which random numbers.
        jobs: Number of processes. Above 1 they are spawned, so a script that calls this needs the usual
            ``if __name__ == "__main__":``.
        on_progress: Called with (people finished, people in all, failed ones among them) after every person.

    Raises:
        ConfigError: ``jobs`` is below 1, or the mesh hasn't 478 points.
        InputError: The photographs aren't there, nobody could be drawn, or the folder holds something else.
        FeatlabError: A file can't be written, or a worker process died.
    """
    start = time.monotonic()
    if jobs < 1:
        raise ConfigError(f"jobs = {jobs}: at least one process is needed")
    people = find_people(photos, config.people)
    manifest = folder / "manifest.csv"
    tasks = [PersonTask(person, folder, config.seed, config.size, config.mesh_info) for person in people]
    _make_room(folder)
    done: list[PersonTask] = []
    failures: list[Failure] = []
    resumed = 0
    work, processes = partial(_try, mesh), min(jobs, len(tasks))
    with closing(run_in_order(work, tasks, jobs=processes, died=partial(_worker_died, folder))) as results:
        for task, result in results:
            if isinstance(result, str):
                failures.append(Failure(task.person.subject, result))
            else:
                done.append(task)
                resumed += result
            if on_progress is not None:
                on_progress(len(done) + len(failures), len(tasks), len(failures))
    write_failures(manifest, failures)
    if not done:
        raise InputError(f"{folder}: nobody could be drawn; the first reason: {failures[0].path}: {failures[0].reason}")
    parts = [(task.person.subject, read_part(task.part)[1]) for task in done]
    rows = len(parts) * len(CLIPS) * FRAMES
    with atomic_path(folder / "landmarks.npy") as draft, draft.open("wb") as file:
        np.save(file, np.concatenate([part.landmarks.reshape(-1, 68, 2) for _, part in parts]))
    atomic_write_text(folder / "README.md", _note(config, len(parts), rows))
    atomic_write_text(manifest, _manifest(parts))
    subjects = tuple(subject for subject, _ in parts)
    return LondonReport(manifest, subjects, rows, resumed, tuple(failures), time.monotonic() - start)


def _make_room(folder: Path) -> None:
    """Make the folders, and remove an old manifest of ours, so that a killed run leaves none."""
    manifest = folder / "manifest.csv"
    try:
        if folder.is_dir() and any(folder.iterdir()) and not (folder / "parts").is_dir():
            raise InputError(f"{folder} holds something else, or has lost its parts/; choose another folder")
        for name in ("parts", "frames"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        manifest.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: can't write there ({error.strerror or error}); choose another folder") from error


def _manifest(parts: Sequence[tuple[str, Part]]) -> str:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(_COLUMNS)
    for subject, part in parts:
        for (label, letter), intensity in zip(CLIPS, part.intensity, strict=True):
            video = video_name(subject, label, letter)
            for frame, value in enumerate(intensity):
                rows.writerow((frame_path(video, frame), subject, label, video, frame, f"{value:.3f}"))
    return text.getvalue()


def _note(config: LondonConfig, people: int, rows: int) -> str:
    from featlab import __version__

    return _NOTE.format(
        frames=rows, people=people, size=config.size, seed=config.seed, mesh=config.mesh_info, version=__version__
    )


def _try(mesh: Mesh, task: PersonTask) -> bool | str:
    """Return whether the person was there already, or why there are no clips."""
    try:
        return make_person(task, mesh)
    except InputError as error:
        return str(error)


def _worker_died(folder: Path, task: PersonTask) -> str:
    return (
        f"{folder}: a worker process died near {task.person.subject} (out of memory?); finished people are kept: run "
        "the same command again, with fewer jobs"
    )
