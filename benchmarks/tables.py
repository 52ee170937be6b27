"""How long it takes to read a table and a manifest, against the csv module and `float` cell by cell in the same run.

    python benchmarks/tables.py                       # 200,000 rows of 20 features; a manifest of 200,000 lines
    python benchmarks/tables.py --rows 20000 --features 512

Times are the best of `--repeat` runs; the ratio is to the first line of each group, what featlab does.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from featlab.config.options import Options
from featlab.extraction.layouts.plain import read_manifest as items_of
from featlab.extraction.tables import ImportConfig, import_features
from featlab.extraction.tables.reader import read_rows
from featlab.extraction.tables.rows import INDEX_COLUMNS, Selection
from featlab.extraction.text import open_delimited, read_columns


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--features", type=int, default=20)
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        table, manifest = draw(Path(folder), options.rows, options.features)
        out = Path(folder, "cache.h5")
        compare(
            f"{options.rows} x {options.features} csv",
            options.repeat,
            {
                "featlab reads": lambda: read_rows(open_delimited(table), Selection()),
                "csv and float read": lambda: by_cell(table),
                "featlab imports": lambda: import_features(table, out, ImportConfig(if_exists="overwrite")),
            },
        )
        compare(
            f"a manifest of {options.rows} lines",
            options.repeat,
            {
                "featlab reads": lambda: read_columns(manifest, ["subject"], INDEX_COLUMNS),
                "csv and strip read": lambda: by_name(manifest),
                "featlab extract's items": lambda: items_of(manifest, Options()),
            },
        )


def draw(folder: Path, rows: int, features: int) -> tuple[Path, Path]:
    """Write a table of features, and a manifest of as many images."""
    rng = np.random.default_rng(0)
    table, manifest = folder / "features.csv", folder / "manifest.csv"
    with table.open("w") as first, manifest.open("w") as second:
        first.write(f"subject,label,video,frame,{','.join(f'f{place}' for place in range(features))}\n")
        second.write("path,subject,label,video,frame\n")
        for row in range(rows):
            label, video, frame = ("neutral", "happy")[row // 100 % 2], f"v{row // 100 % 20}", row % 100
            who = f"s{row // 2000},{label},{video},{frame}"
            first.write(f"{who},{','.join(map(repr, rng.normal(size=features).astype(np.float32).tolist()))}\n")
            second.write(f"images/s{row // 2000}/{video}/{frame:05}.png,{who}\n")
    return table, manifest


def by_cell(path: Path) -> np.ndarray[Any, Any]:
    """Read a table with the csv module and a float a cell."""
    with path.open(newline="", encoding="utf-8") as file:
        lines = csv.reader(file)
        next(lines)
        return np.array([[float(cell) for cell in cells[4:]] for cells in lines], dtype=np.float32)


def by_name(path: Path) -> list[list[str]]:
    """Read a manifest with the csv module and a strip a cell."""
    with path.open(newline="", encoding="utf-8") as file:
        return [[cell.strip() for cell in cells] for cells in csv.reader(file)]


def compare(title: str, repeat: int, ways: dict[str, Callable[[], object]]) -> None:
    print(title)
    # Turn by turn, so that a busy moment of the machine meets all of them.
    turns = [{name: timed(way) for name, way in ways.items()} for _ in range(repeat)]
    best = {name: min(turn[name] for turn in turns) for name in ways}
    base = next(iter(best.values()))
    for name, seconds in best.items():
        print(f"  {name:26} {seconds:8.2f} s   {seconds / base:5.1f}")


def timed(way: Callable[[], object]) -> float:
    start = time.perf_counter()
    way()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
