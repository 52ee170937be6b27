"""All files of a workspace: each checked against the digest in it or beside it, and people removed from all of them.

To remove people: what holds them, in which order it goes, and a search for what is left.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from featlab.bundle.bundle import load_bundle
from featlab.bundle.files import adaptation_folder, read_json, read_tensors
from featlab.cache.atomic import SIDECAR, SUMS, atomic_write_bytes, damages, read_sums
from featlab.cache.forget import Traces, remove_subjects
from featlab.cache.reader import open_cache
from featlab.cache.schema import parse_json
from featlab.cache.verify import verify_cache
from featlab.errors import BundleError, FeatlabError, InputError, closest
from featlab.workspace.predict import holds_predictions
from featlab.workspace.workspace import TUNED_FILE, tuned_on, write_tuned

_LISTS = (".failures.jsonl", ".no_face.jsonl", ".doubt.jsonl", ".subjects.txt", ".images.txt")


def check_files(path: Path) -> tuple[list[str], list[str]]:
    """Check a file, or all of a folder: caches, bundles, stages, adaptations, runs, results and exports.

    Returns:
        A line for each damaged or missing file, and the files that no digest covers: what users or an older featlab
        wrote.
    """
    files = files_in(path) if path.is_dir() else [path]
    # Shards and drafts are of a run that goes on, or that the next one finishes.
    ours = (".shards", ".partial")
    files = [each for each in files if not any(name.endswith(ours) for name in each.relative_to(path).parts)]
    sums = [each for each in files if each.name == SUMS or each.suffix == SIDECAR]
    if path.is_file():
        sums += [each for each in (path.with_name(path.name + SIDECAR), path.with_name(SUMS)) if each.exists()]
    covered = {each.with_name(name) for each in sums for name in read_sums(each)} | set(sums)
    found = {place: line for each in sums for place, line in damages(each) if path.is_dir() or place in (path, each)}
    without = []
    for each in files:
        if each in covered:
            continue
        try:
            if each.suffix == ".h5":
                if problems := verify_cache(each):
                    found[each] = problems[0]
            elif not _check_own_digest(each):
                without.append(each)
        except (FeatlabError, OSError, ValueError) as error:
            found[each] = str(error) if str(each) in str(error) else f"{each}: damaged ({error})"
    return [*found.values()], [*map(str, without)]


def _check_own_digest(path: Path) -> bool:
    """Check tensors, or JSON, against the digest in the file; return whether there is one."""
    if path.suffix == ".safetensors":
        return bool(read_tensors(path, finite=False)[0])
    text = path.read_text("utf-8") if path.suffix in (".json", ".jsonl") else ""
    # Several lines are a table of results.
    if not text or (path.suffix == ".jsonl" and text.count("\n") > 1):
        return False
    content = parse_json(text)
    return isinstance(content, dict) and "digest" in content and bool(read_json(path))


def files_in(folder: Path) -> list[Path]:
    """Return all files in a folder, sorted, also where links lead."""
    found, seen = [], set()
    for top, folders, names in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(top)) in seen:
            folders.clear()
            continue
        seen.add(real)
        found += [path for name in names if (path := Path(top, name)).is_file()]
    return sorted(found)


@dataclass(frozen=True)
class Holder:
    """A file or folder that holds people who are to be forgotten."""

    path: Path
    why: str
    lines: bool = False  # Whether only the lines that name them go.

    def remove(self, traces: Traces) -> None:
        """Remove it, or the lines of it that name them."""
        if not self.lines:
            # What a link leads to goes, too.
            target = self.path.resolve()
            if target.is_dir():
                shutil.rmtree(target)
            for path in (target, self.path):
                path.unlink(missing_ok=True)
        elif self.path.name == TUNED_FILE:
            known = tuned_on(self.path.parent)
            write_tuned(
                self.path.parent,
                {method: [name for name in people if name not in traces.names] for method, people in known.items()},
            )
        else:
            atomic_write_bytes(self.path, b"".join(line for line in _lines(self.path) if not traces.in_text(line)))


@dataclass(frozen=True, eq=False)
class Forgetting:
    """Whom to forget, and all that holds them."""

    root: Path | None  # The workspace; None: only the cache and what lies beside it.
    cache: Path
    people: tuple[str, ...]  # Those of them whose rows it has.
    seen: tuple[str, ...]  # Those of them whose pictures trained its backbone.
    traces: Traces
    holders: tuple[Holder, ...]  # What was made of the cache.

    def run(self) -> None:
        """Remove everything; the cache is last, so that after a kill the same call still knows what to look for."""
        for holder in self.holders:
            holder.remove(self.traces)
        if self.people:
            remove_subjects(self.cache, self.people)

    def left(self) -> tuple[int, list[Path], list[Path]]:
        """Read every file again: how many there are, which hold a name, and which hold one of the rows."""
        beside = _beside(self.cache)
        around = files_in(self.root) if self.root else [path for each in beside for path in (each, *files_in(each))]
        files = sorted({path for path in (*around, self.cache) if path.is_file()})
        named = [path for path in files if self.traces.in_text(os.fsencode(path.name)) or self.traces.named_in(path)]
        return len(files), named, [path for path in files if self.traces.rows_in(path)]


def plan_forgetting(root: Path | None, cache: Path, subjects: Sequence[str], also: Sequence[str] = ()) -> Forgetting:
    """Find all that holds some people: in a workspace, or in a cache and the files beside it.

    ``also`` are other names of theirs: where ``subjects`` are pseudonyms, the real ones.

    Raises:
        InputError: Nobody of that name, neither in the cache nor in a file beside it.
        CacheError: A damaged cache.
    """
    known: tuple[str, ...] = ()
    trained: tuple[str, ...] = ()
    rows = np.empty((0, 1), dtype=np.float32)
    if cache.exists():
        with open_cache(cache) as opened:
            known, trained = opened.subjects, opened.extractor.trained_on
            if theirs := set(subjects) & set(known):
                rows = opened.read([*theirs]).embeddings
    people, seen = (tuple(name for name in subjects if name in each) for each in (known, trained))
    traces = Traces((*subjects, *also), tuple(name for name in known if name not in subjects), rows)
    holders = [*_of_cache(cache, traces), *(_of_workspace(root, subjects, traces) if root else ())]
    unknown = [name for name in subjects if name not in people]
    # A killed run may have written the cache already, which it does for all of them at once.
    if unknown and (people or not holders):
        raise InputError(f"{cache}: no subject {unknown[0]!r}, and no file names them{closest(unknown[0], known)}")
    return Forgetting(root, cache, people, seen, traces, tuple(holders))


def _beside(cache: Path) -> list[Path]:
    """Return what extraction and merging write beside a cache."""
    return sorted(path for path in cache.parent.glob("*") if path.name.startswith(f"{cache.stem}.") and path != cache)


def _of_cache(cache: Path, traces: Traces) -> Iterator[Holder]:
    for path in _beside(cache):
        if path.name.startswith(f"{cache.name}.") and path.name.endswith((".shards", ".landmarks", ".partial")):
            yield Holder(path, "holds rows or faces of people; extract makes it again")
        elif path.name.endswith(_LISTS) and traces.named_in(path):
            yield Holder(path, "lines that name them", lines=True)


def _of_workspace(root: Path, subjects: Sequence[str], traces: Traces) -> Iterator[Holder]:
    for path in sorted(root.glob("stages/*")):
        yield Holder(path, "was made of the cache as it was; the next command makes it again")
    for path in sorted(root.glob("bundles/*")):
        yield from _of_bundle(path, subjects, traces)
    for path in sorted(root.glob("results/*")):
        if path.name.endswith("runs"):
            yield from (Holder(file, "a result of theirs") for file in files_in(path) if traces.named_in(file))
        elif traces.in_text(os.fsencode(path.name)) or any(map(traces.named_in, files_in(path))):
            yield Holder(path, "names them, or counts them in its means")
    if any(map(traces.named_in, files_in(root / "engine"))):
        yield Holder(root / "engine", "logs that name them")
    for path in sorted(path for path in root.glob("*") if path.is_file() and traces.named_in(path)):
        if path.name == TUNED_FILE or path.name.endswith(_LISTS):
            yield Holder(path, "lines that name them", lines=True)
        elif holds_predictions(path):
            yield Holder(path, "predictions of theirs", lines=True)
        elif path.suffix == ".html":
            yield Holder(path, "a report that names them")


def _of_bundle(folder: Path, subjects: Sequence[str], traces: Traces) -> Iterator[Holder]:
    try:
        source = load_bundle(folder).source_subjects
        theirs = any(name in source for name in subjects)
    except BundleError:
        theirs = True
    if theirs or any(path.is_file() and traces.named_in(path) for path in folder.glob("*")):
        yield Holder(folder, "was trained on them, or names them; the next command makes it again")
        return
    for path in (adaptation_folder(folder, name) for name in subjects):
        if path.exists():
            yield Holder(path, "their adaptation")


def _lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)
