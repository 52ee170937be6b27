"""Results of a workspace put together: which pages there are, and all that a report shows of them."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from featlab.analysis.page import LARGEST_DRAWING, PAGE_FILE, Page, PageFigure, read_page, read_table
from featlab.analysis.report.provenance import origins, protocol_summary
from featlab.analysis.table import Table
from featlab.errors import InputError

_KINDS = ("evaluate", "benchmark", "tune", "ablate", "complexity", "branches", "plot")
"""In the order of a report; other kinds follow."""
_RUN_KEY = re.compile(r"-[0-9a-f]{12}$")
"""What makes the folder of one run differ from that of another of the same command."""

SVG = "image/svg+xml"
LARGEST_FILE = 450_000
"""Bytes of a file up to which it can be saved from the report; of a larger one the report says where it is."""
_SIZE = re.compile(rb'<svg [^>]*?width="([\d.]+)pt" height="([\d.]+)pt"')


@dataclass(frozen=True)
class PageFolders:
    """Folders with a page: one a command in the order of a report, and those of which a newer run is shown."""

    shown: tuple[Path, ...]
    older: tuple[Path, ...]


@dataclass(frozen=True, eq=False)
class ReportFigure:
    """One figure, ready to be shown."""

    page: PageFigure  # Its name, title and caption.
    shown: bytes  # The picture.
    media: str  # Its media type: `SVG` where the drawing itself is shown.
    files: Mapping[str, bytes]  # What can be saved beside the drawing: ending to bytes.
    left_out: tuple[str, ...]  # Endings of the files that are too large for that.
    size: tuple[float, float]  # Width and height, inches.


@dataclass(frozen=True, eq=False)
class ReportPage:
    """Results of one command: their folder, the page, its tables by name, its figures in order."""

    folder: Path
    page: Page
    tables: Mapping[str, Table]
    figures: tuple[ReportFigure, ...]


@dataclass(frozen=True, eq=False)
class Report:
    """Pages put together, one at least; folders whose page is damaged are skipped, with the reason."""

    title: str
    pages: tuple[ReportPage, ...]
    skipped: tuple[tuple[Path, str], ...]

    @property
    def evaluation(self) -> int | None:
        """The page whose summary stands at the top: the first evaluation, else the first benchmark; counted from 0."""
        kinds = [item.page.kind for item in self.pages]
        return next((kinds.index(kind) for kind in ("evaluate", "benchmark") if kind in kinds), None)

    def warnings(self) -> tuple[str, ...]:
        """Return what a reader has to know before comparing the pages, a sentence each."""
        found = [origin for origin, _ in origins([item.page for item in self.pages])]
        lines = []
        for what, values in (
            ("caches", {origin.digest for origin in found if origin.digest}),
            ("extractors", {origin.fingerprint for origin in found if origin.fingerprint}),
            ("sets of versions of featlab and what it needs", {origin.versions for origin in found if origin.versions}),
        ):
            if len(values) > 1:
                lines.append(f"The sections come from {len(values)} different {what}; each says from which.")
        return (*lines, *(f"{folder.name} is left out: {reason}" for folder, reason in self.skipped))


def find_pages(results: Path) -> PageFolders:
    """Return the folders that hold a page: of each command (a name without its key) the newest, evaluations first."""
    pages = [path.parent for path in sorted(results.glob(f"*/{PAGE_FILE}"))]
    newest: dict[str, Path] = {}
    for folder in sorted(pages, key=lambda folder: (folder / PAGE_FILE).stat().st_mtime_ns):
        newest[_RUN_KEY.sub("", folder.name)] = folder
    shown = sorted(newest.values(), key=_order)
    return PageFolders(tuple(shown), tuple(folder for folder in pages if folder not in shown))


def _order(folder: Path) -> tuple[int, str]:
    try:
        kind = read_page(folder).kind
    except InputError:
        kind = folder.name.partition("-")[0]
    return (_KINDS.index(kind) if kind in _KINDS else len(_KINDS)), folder.name


def read_report(folders: Sequence[Path], title: str) -> Report:
    """Read pages, in the order given; a damaged one is skipped."""
    without = [folder for folder in folders if not (folder / PAGE_FILE).is_file()]
    if without:
        raise InputError(
            f"{without[0]}: no {PAGE_FILE} there; name folders that featlab evaluate, benchmark, tune, ablate, plot, "
            "complexity or branches wrote, as results/NAME"
        )
    pages, skipped = [], []
    for folder in folders:
        try:
            pages.append(_read(folder))
        except InputError as error:
            skipped.append((folder, str(error)))
    if skipped and not pages:
        raise InputError(f"no page can be read, the first because: {skipped[0][1]}")
    if not pages:
        raise InputError(
            "no results to report; run featlab evaluate first (or benchmark, ablate, complexity, branches, plot)"
        )
    return Report(title, tuple(pages), tuple(skipped))


def _read(folder: Path) -> ReportPage:
    page = read_page(folder)
    try:
        protocol_summary(page)
    except (TypeError, ValueError, KeyError) as error:
        raise InputError(f"{folder / PAGE_FILE}: damaged; delete {folder} and run the command again") from error
    tables = {name: read_table(folder, name) for name in page.tables}
    return ReportPage(folder, page, tables, tuple(_read_figure(folder, figure) for figure in page.figures))


def _read_figure(folder: Path, figure: PageFigure) -> ReportFigure:
    png, pdf = (folder / f"{figure.name}.{ending}" for ending in ("png", "pdf"))
    endings = ("svg", *(["pdf"] if pdf.exists() else []), "csv")
    try:
        found = {ending: (folder / f"{figure.name}.{ending}").read_bytes() for ending in endings}
        shown, media = found["svg"], SVG
        width, height = map(float, _SIZE.search(shown).groups())  # type: ignore[union-attr]
        if len(shown) > LARGEST_DRAWING:
            shown, media = png.read_bytes(), "image/png"
        if len(shown) > LARGEST_DRAWING:
            shown, media = jpeg_of(png), "image/jpeg"
    except (OSError, AttributeError) as error:
        raise InputError(
            f"{folder / figure.name}: its .svg, .csv and large .png can't all be read "
            f"({getattr(error, 'strerror', None) or 'damaged picture'}); run the command again"
        ) from error
    files = {ending: data for ending, data in found.items() if ending != "svg" and len(data) <= LARGEST_FILE}
    saved = {*files, *(["svg"] if media == SVG else [])}
    left_out = tuple(ending for ending in found if ending not in saved)
    return ReportFigure(figure, shown, media, files, left_out, (width / 72, height / 72))


def jpeg_of(png: Path) -> bytes:
    """Return a picture with photographs as JPEG, a tenth of the .png."""
    data = io.BytesIO()
    with Image.open(png) as picture:
        picture.convert("RGB").save(data, "JPEG", quality=85)
    return data.getvalue()
