"""How time and memory of the commands grow with the rows of a cache, or with the people to evaluate.

    python benchmarks/growth.py FOLDER                       # up to 10⁵ rows, 100 people; half an hour
    python benchmarks/growth.py FOLDER --largest 1000000     # hours; 12 GB of disk, 8 GB of memory

Each point is the real command in a process of its own, on one thread: its processor seconds and its peak memory. A
point that is done is a json file in FOLDER, and isn't run again, so a run that was stopped goes on. Writes
docs/images/growth.svg and .csv, and prints the table of docs/speed.md, with the slopes of the last decade. Rows are of
512 values and 68 landmarks, of drawn people with 100 rows in 4 clips each.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from featlab.analysis.style import figure, house_style, save_plot

FRAMES, DIM, POINTS, RANK = 100, 512, 68, 32
ROW_BYTES = 4 * (DIM + 2 * POINTS)
SIZES = (1_000, 3_000, 10_000, 100_000, 1_000_000)
SOURCES = 20
QUICK = ("--no-plots", "--jobs", "1", "--methods", "source-only,neutral-shift,pft")
# What is measured: the words of the command, and for how many rows at most: beyond, it takes hours.
MEASURED: dict[str, tuple[Sequence[str], int]] = {
    "import": (("import", "{data}", "--if-exists", "overwrite", "--out", "copy.h5"), 10**6),
    "inspect": (("inspect", "--cache", "cache.h5"), 10**6),
    "verify": (("verify", "--cache", "cache.h5"), 10**6),
    "pair, cosine, exact": (("pair", "--strategy", "cosine"), 10**5),
    "pair, landmark, exact": (("pair", "--strategy", "landmark"), 10**5),
    "pair, cosine, index": (("pair", "--strategy", "cosine", "--index", "PCA64,IVF{cells},SQfp16"), 10**6),
    "train": (("train",), 10**6),
    "adapt": (("adapt", "--subject", "all", "--bundle", "{bundle}", "--jobs", "1"), 10**6),
    "evaluate": (("evaluate", "--targets", "{targets}", *QUICK), 10**5),
}


def draw(path: Path, people: int, prefix: str = "s") -> None:
    """Write an .npz of drawn people; who they are lies in a space of few dimensions, as in embeddings of faces."""
    rng = np.random.default_rng(0)
    basis = rng.normal(size=(RANK, DIM)) / np.sqrt(RANK)
    face, classes = rng.normal(size=(POINTS, 2)), rng.normal(size=(2, RANK))
    clip = np.arange(FRAMES) // (FRAMES // 4)
    embeddings = np.empty((people * FRAMES, DIM), dtype=np.float32)
    landmarks = np.empty((people * FRAMES, POINTS, 2), dtype=np.float32)
    for person in range(people):
        own = np.random.default_rng([ord(prefix), person])
        rows = slice(person * FRAMES, (person + 1) * FRAMES)
        inside = own.normal(size=RANK) + classes[clip // 2] + 0.2 * own.normal(size=(4, RANK))[clip]
        inside = inside + 0.3 * own.normal(size=(FRAMES, RANK))
        embeddings[rows] = inside @ basis + 0.1 * own.normal(size=(FRAMES, DIM))
        shape = face + 0.1 * own.normal(size=(POINTS, 2)) + 0.03 * own.normal(size=(FRAMES, POINTS, 2))
        landmarks[rows] = 100 * shape
    np.savez(
        path,
        embeddings=embeddings,
        landmarks=landmarks,
        subject=np.repeat([f"{prefix}{person:05d}" for person in range(people)], FRAMES),
        label=np.tile(np.array(["neutral", "pain"])[clip // 2], people),
        video=np.tile(np.array(list("abcd"))[clip], people),
        frame=np.tile(np.arange(FRAMES), people),
    )


def run(words: Sequence[str], folder: Path) -> dict[str, float]:
    """Run ``featlab`` in a folder; return its seconds, those of the processor, and its peak memory in bytes."""
    program = Path(sys.executable).with_name("featlab")
    start = time.perf_counter()
    with (folder / "said.txt").open("w") as said:
        process = subprocess.Popen([program, *words], cwd=folder, stdout=said, stderr=said)
        _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"featlab {' '.join(words)}: {(folder / 'said.txt').read_text()}")
    memory = used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {"seconds": time.perf_counter() - start, "cpu": used.ru_utime + used.ru_stime, "memory": memory}


def prepared(folder: Path, people: int, prefix: str = "s") -> Path:
    """Return a workspace with the cache of so many people and the file that it was imported from."""
    place = folder / f"{prefix}{people}"
    if not (place / "cache.h5").exists():
        place.mkdir(exist_ok=True)
        # In a process of its own: on Linux the peak memory of a parent counts as that of the commands that it starts.
        drawing = get_context("spawn").Process(target=draw, args=(place / "data.npz", people, prefix))
        drawing.start()
        drawing.join()
        run(("import", "data.npz", "--out", "cache.h5"), place)
    return place


def points(folder: Path, largest: int, only: Sequence[str]) -> list[dict[str, Any]]:
    """Return the points up to so many rows, the small ones first; those that aren't there are run."""
    bundle = folder / "bundle"
    if not bundle.exists():
        source = prepared(folder, SOURCES, "b")
        run(("pretrain",), source)
        shutil.copytree(next(source.glob("bundles/*")), bundle)
    found = []
    for rows in (size for size in SIZES if size <= largest):
        for name, (words, most) in MEASURED.items():
            path = folder / f"{name.replace(', ', '-')}-{rows}.json"
            if not path.exists() and rows <= most and (not only or name in only):
                place = prepared(folder, rows // FRAMES)
                cells = 2 ** round(np.log2(rows / 64))
                given = {"data": "data.npz", "bundle": bundle.resolve(), "cells": cells}
                given["targets"] = rows // FRAMES - SOURCES // 2 if rows > 1000 else 5
                used = run([word.format(**given) for word in words], place)
                recall = [json.loads(item.read_text())["recall"] for item in place.glob("stages/pair-*/summary.json")]
                (place / "copy.h5").unlink(missing_ok=True)
                for left in (*(place / name for name in ("stages", "bundles", "results")), bundle / "subjects"):
                    shutil.rmtree(left, ignore_errors=True)
                path.write_text(json.dumps({"name": name, "rows": rows, **used, "recall": (recall or [None])[0]}))
                print(path.read_text(), flush=True)
            if path.exists():
                found.append(json.loads(path.read_text()))
        shutil.rmtree(folder / f"s{rows // FRAMES}", ignore_errors=True)
    return found


def slope(series: Sequence[dict[str, Any]]) -> float:
    """Return the log-log slope of the processor seconds from a tenth of the largest point on."""
    upper = [point for point in series if 10 * point["rows"] >= series[-1]["rows"]]
    if len(upper) < 2:
        return float("nan")
    return float(np.polyfit(np.log([p["rows"] for p in upper]), np.log([p["cpu"] for p in upper]), 1)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--largest", type=int, default=100_000)
    parser.add_argument("--only", nargs="*", default=[], choices=list(MEASURED))
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    options.folder.mkdir(parents=True, exist_ok=True)
    found = points(options.folder, options.largest, options.only)
    series = {name: [point for point in found if point["name"] == name] for name in MEASURED}
    series = {name: line for name, line in series.items() if line}
    draw_growth(series)
    print("| command | largest | processor seconds | slope | peak memory | the features | true references |")
    print("|---|---|---|---|---|---|---|")
    for name, line in series.items():
        last = line[-1]
        sizes = " | ".join(f"{size / 2**30:.2f} GiB" for size in (last["memory"], ROW_BYTES * last["rows"]))
        recall = f"{100 * last['recall']:.1f} %" if last["recall"] else ""
        print(f"| {name} | {last['rows']:,} rows | {last['cpu']:.3g} | {slope(line):.2f} | {sizes} | {recall} |")


def draw_growth(series: dict[str, list[dict[str, Any]]]) -> None:
    """Draw time and memory against rows, with a line of slope 1 and the features' own bytes."""
    with house_style():
        drawn = figure(7.2, 3.4)
        left, right = drawn.subplots(1, 2)
        for number, (name, line) in enumerate(series.items()):
            rows = [point["rows"] for point in line]
            style: dict[str, Any] = {"color": f"C{number % 6}", "marker": "os^DvP<>X"[number], "markersize": 3}
            left.plot(rows, [point["cpu"] for point in line], label=name, **style)
            right.plot(rows, [point["memory"] / 2**30 for point in line], **style)
        many = np.geomspace(SIZES[0], max(line[-1]["rows"] for line in series.values()), 50)
        left.plot(many, many / SIZES[0], "k:", linewidth=0.8, label="slope 1")
        for beside, dashes, name in ((1, "k--", "features + 1 GiB"), (0, "k:", "features")):
            right.plot(many, ROW_BYTES * many / 2**30 + beside, dashes, linewidth=0.8, label=name)
        for axis, name in ((left, "processor seconds"), (right, "peak memory (GiB)")):
            axis.set(xscale="log", yscale="log", xlabel="rows of 512 values", ylabel=name)
            for side in (axis.xaxis, axis.yaxis):
                side.set_major_formatter("{x:,.10g}")
            axis.legend(fontsize=5.5)
    every = [point for line in series.values() for point in line]
    columns = {key: [point[key] for point in every] for key in ("name", "rows", "cpu", "seconds", "memory")}
    save_plot(Path(__file__).parent.parent / "docs" / "images", "growth", drawn, columns)


if __name__ == "__main__":
    main()
