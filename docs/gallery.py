"""Make the gallery: run every command that draws, and put its picture, its words and the command onto one page.

Real faces are shown as numbers only; strips of faces are drawn people. What an earlier run finished is kept in the work
folder, so that a killed run goes on from there.

    python docs/gallery.py ../london-morph/manifest.csv --work gallery-work

Writes docs/gallery.md and docs/images/gallery/. Needs the manifest that benchmarks/london_morph
makes, a quarter of an hour on two cores and 3 GB of memory.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from featlab.analysis.page import PageFigure, read_page
from featlab.analysis.report.collect import jpeg_of

DOCS = Path(__file__).parent
IMAGES = DOCS / "images" / "gallery"
PEOPLE = DOCS.parent / "benchmarks" / "people.py"
"""Writes the people who were no development people into reported.txt."""
POOL = "--targets 10 --draws 2 --pool reported.txt"
MAIN = "source-only,neutral-shift,adabn,coral,referenced,pft-poster,pft,oracle"


@dataclass(frozen=True)
class Entry:
    """One command of the gallery.

    Attributes:
        where: The workspace: ``london``, ``two`` or ``seven`` (drawn people with so many expressions).
        words: What follows ``featlab``.
        photographs: Whether its pictures hold faces: shown as JPEG.
    """

    where: str
    words: str
    photographs: bool = False


SECTIONS: dict[str, tuple[Entry, ...]] = {
    "Every method in one table": (
        Entry("london", f"evaluate --cache geometry.h5 {POOL} --methods {MAIN} --name geometry"),
        Entry("seven", f"evaluate --targets 10 --methods {MAIN} --name seven"),
    ),
    "Ablations": (
        Entry("two", "ablate pairing --targets 10 --images faces", photographs=True),
        *(
            Entry("london", f"ablate {name} --cache geometry.h5 {POOL}")
            for name in ("dims", "pairing", "losses", "lambda")
        ),
        *(Entry("london", f"ablate {name} --cache geometry.h5 {POOL}") for name in ("layers", "neutral", "sources")),
        *(Entry("london", f"ablate {name} --cache geometry.h5 {POOL}") for name in ("contamination", "bn", "share")),
    ),
    "Inside one person": (
        Entry("london", "plot tsne --cache geometry.h5"),
        Entry("london", "plot tsne --cache geometry.h5 --by pca"),
        Entry("london", "plot neighbours --cache geometry.h5"),
        Entry("two", "plot clip", photographs=True),
        Entry("two", "plot pairs", photographs=True),
    ),
    "Over people": (
        Entry("london", "plot style --cache geometry.h5 --targets 10 --pool reported.txt"),
        Entry("london", "plot confusion results/geometry"),
        Entry("seven", "plot confusion results/seven"),
    ),
    "What it costs, what it keeps": (
        Entry("london", "complexity --cache geometry.h5 --targets 1 --repeat 3"),
        Entry("london", "branches --cache geometry.h5 --targets 20 --pool reported.txt"),
    ),
}


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("manifest", type=Path, help="london-morph/manifest.csv")
    parser.add_argument("--work", type=Path, default=Path("gallery-work"))
    parser.add_argument("--jobs", type=int, default=0, help="Processes; 0 takes every core.")
    given = parser.parse_args()
    prepare(given.work, given.manifest.resolve())
    shutil.rmtree(IMAGES, ignore_errors=True)
    IMAGES.mkdir(parents=True)
    lines = [
        "# Gallery",
        "",
        "Every command that draws, with the picture that it makes, on the 62 real people of london-morph "
        "([what that is](evidence.md)) and on drawn ones. Made by `docs/gallery.py`; each figure comes as "
        ".svg (with `plot.formats` as .pdf and .png, too) with its numbers as .csv, and `featlab report` puts those of "
        "a workspace onto one page.",
        "",
        "Where a picture shows one person, it is the first target of the first draw, not the best case.",
    ]
    for title, entries in SECTIONS.items():
        lines += ["", f"## {title}"]
        for entry in entries:
            lines += shown(entry, given.work, given.jobs)
    (DOCS / "gallery.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def prepare(work: Path, manifest: Path) -> None:
    """Make the three workspaces."""
    london = work / "london"
    if not london.is_dir():
        featlab(["init", str(london)], work.parent)
    if not (london / "geometry.h5").exists():
        featlab(["extract", str(manifest), "--backbone", "geometry", "--out", "geometry.h5", "-q"], london)
    if not (london / "reported.txt").exists():
        subprocess.run([sys.executable, str(PEOPLE.resolve()), "geometry.h5"], cwd=london, check=True)
    for folder, expressions in (("two", 2), ("seven", 7)):
        featlab(["demo", "--out", str(work / folder), "--expressions", str(expressions), "-q"], work.parent)


def shown(entry: Entry, work: Path, jobs: int) -> list[str]:
    """Run a command, copy its pictures and return its part of the page."""
    folder = work / entry.where
    print(f"[{entry.where}] featlab {entry.words}", flush=True)
    several = ["--jobs", str(jobs)] if entry.words.startswith(("evaluate", "ablate")) else []
    pixels = ["--set", "plot.formats=png"] if entry.photographs else []
    said = featlab([*entry.words.split(), "--json", *pixels, *several], folder)
    (page_file,) = [name for name in json.loads(said)["files"] if name.endswith("page.json")]
    made = (folder / page_file).parent if not Path(page_file).is_absolute() else Path(page_file).parent
    page = read_page(made)
    lines = ["", f"### {page.title}", "", "```bash", f"featlab {entry.words}", "```", ""]
    for figure in page.figures:
        # Without photographs, example pairs would show the landmarks of real people.
        if figure.name == "examples" and not entry.photographs:
            continue
        lines += [picture(entry, made, figure), ""]
    return [*lines, *(f"- {word}" for word in page.summary)]


def picture(entry: Entry, made: Path, figure: PageFigure) -> str:
    """Copy one picture and return the line that shows it."""
    name = f"{made.name.removeprefix('plot-')}-{figure.name}-{entry.where}"
    if entry.photographs:
        target = IMAGES / f"{name}.jpg"
        target.write_bytes(jpeg_of(made / f"{figure.name}.png"))
    else:
        target = IMAGES / f"{name}.svg"
        shutil.copyfile(made / f"{figure.name}.svg", target)
    return f"![{figure.title}: {figure.caption}](images/gallery/{target.name})"


def featlab(words: Sequence[str], folder: Path) -> str:
    """Run a command in a folder and return what it prints; a failure ends the script with what it said."""
    done = subprocess.run(
        [sys.executable, "-c", "from featlab.cli.app import main; main()", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode not in (0, 3):
        raise SystemExit(f"featlab {' '.join(words)} (in {folder}): {done.stderr}")
    return done.stdout


if __name__ == "__main__":
    main()
