"""Results of a workspace put together: which pages there are, and all that a report shows of them."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image

from featlab.analysis.page import PAGE_FILE, Page, PageFigure, read_page, read_table
from featlab.analysis.table import Table, count_text
from featlab.cache.atomic import check_sum
from featlab.config.analysis import LARGEST_DRAWING
from featlab.config.load import Config, flat_values
from featlab.errors import InputError

T = TypeVar("T")

_KINDS = ("evaluate", "benchmark", "tune", "ablate", "complexity", "branches", "plot")
"""In the order of a report; other kinds follow."""
_RUN_KEY = re.compile(r"-[0-9a-f]{12}$")
"""What makes the folder of one run differ from that of another of the same command."""

SVG = "image/svg+xml"
LARGEST_FILE = 450_000
"""Bytes of a file up to which it can be saved from the report."""
_SIZE = re.compile(rb'<svg [^>]*?width="([\d.]+)pt" height="([\d.]+)pt"')


@dataclass(frozen=True, eq=False)
class ReportFigure:
    """One figure, ready to be shown."""

    page: PageFigure  # Its name, title and caption.
    shown: bytes  # The picture.
    media: str  # Its media type: `SVG` where the drawing itself is shown.
    files: Mapping[str, bytes]  # What can be saved beside the drawing, where it is not too large: ending to bytes.
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
        several = len(places_of([facts_of(item.page) for item in self.pages])) > 1
        lines = (
            ["The sections come from different caches, extractors or versions; the end says which."] if several else []
        )
        return (*lines, *(f"{folder.name} is left out: {reason}" for folder, reason in self.skipped))


def find_pages(results: Path) -> tuple[list[Path], list[Path]]:
    """Return the folders of the newest page of each command, evaluations first, and the folders of older ones."""
    pages = [path.parent for path in sorted(results.glob(f"*/{PAGE_FILE}"))]
    newest: dict[str, Path] = {}
    for folder in sorted(pages, key=lambda folder: (folder / PAGE_FILE).stat().st_mtime_ns):
        newest[_RUN_KEY.sub("", folder.name)] = folder

    def order(folder: Path) -> tuple[int, str]:
        try:
            kind = read_page(folder).kind
        except InputError:
            kind = folder.name.partition("-")[0]
        return _index(_KINDS, kind), folder.name

    shown = sorted(newest.values(), key=order)
    return shown, [folder for folder in pages if folder not in shown]


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
        settings_of(page)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise InputError(f"{folder / PAGE_FILE}: damaged; delete {folder} and run the command again") from error
    tables = {name: read_table(folder, name) for name in page.tables}
    return ReportPage(folder, page, tables, tuple(_read_figure(folder, figure) for figure in page.figures))


def _read_figure(folder: Path, figure: PageFigure) -> ReportFigure:
    png, pdf = (folder / f"{figure.name}.{ending}" for ending in ("png", "pdf"))
    endings = ("svg", *(["pdf"] if pdf.exists() else []), "csv")
    try:
        for file in (each for each in folder.iterdir() if each.stem == figure.name):
            check_sum(file, InputError)
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
    return ReportFigure(figure, shown, media, files, (width / 72, height / 72))


def jpeg_of(png: Path) -> bytes:
    """Return a picture with photographs as JPEG, a tenth of the .png."""
    with io.BytesIO() as data, Image.open(png) as picture:
        picture.convert("RGB").save(data, "JPEG", quality=85)
        return data.getvalue()


def places_of(values: Sequence[T]) -> list[tuple[T, list[int]]]:
    """Return each value once, with the places where it stands, counted from 0; in the order of the first ones."""
    first = [value for place, value in enumerate(values) if value not in values[:place]]
    return [(value, [place for place, other in enumerate(values) if other == value]) for value in first]


def facts_of(page: Page) -> dict[str, str]:
    """Return what a page comes from, for people: cache digest, extractor and versions, name to value."""
    facts = {}
    # An ablation may have been run on several caches.
    for name, part in (_part(page.metadata, "data_sets") or {"": page.metadata}).items():
        made = _part(part, "extractor")
        facts[f"{name} cache digest".strip()] = str(part.get("cache_digest", ""))
        facts[f"{name} extractor".strip()] = " ".join(str(made[key]) for key in ("id", "fingerprint") if key in made)
    facts |= {name: str(version) for name, version in _part(page.metadata, "versions").items()}
    return {name: value for name, value in facts.items() if value} or {"cache": "nobody knows which"}


def settings_of(page: Page) -> dict[str, str]:
    """Return ``section.key`` to its value as TOML would write it, or nearly; names as `--set` takes them."""
    return _as_text(_part(page.metadata, "config"))


def changed_settings(pages: Sequence[Page]) -> list[tuple[str, str, str, list[int]]]:
    """Return the settings that differ from the default: key, default (a method's has none here), value, and whose."""
    defaults, settings = _as_text(Config().to_dict()), [settings_of(page) for page in pages]
    return [
        (key, defaults.get(key, ""), value, places)
        for key in dict.fromkeys(key for part in settings for key in part)
        for value, places in places_of([part.get(key) for part in settings])
        if value is not None and value != defaults.get(key)
    ]


def protocol_summary(page: Page) -> tuple[str, ...]:
    """Return the protocol of a page, a sentence each; nothing where its metadata hold none."""
    protocol = _part(_part(page.metadata, "config"), "protocol")
    if not protocol:
        return ()
    said = {**vars(Config().protocol), **protocol}
    runs = ", ".join(count_text(int(said[name]), name[:-1]) for name in ("draws", "seeds"))
    adapted = "all of them together" if said["scope"] == "dataset" else "each of them alone"
    return (
        f"Target subjects: {said['targets']}{' of a pool' if said['pool'] else ''}, {runs}; the root of every seed is "
        f"{said['seed']}. Source and target have nobody in common.",
        f"Adapted to {adapted}, on half of their videos, without labels; every other video is tested.",
        *_SCORING,
    )


_SCORING = (
    "Everything is trained and chosen on source subjects; labels of target subjects reach the scores, and the oracle.",
    "A score is the macro F1 over the classes among a subject's test rows, averaged over seeds and draws within a "
    "subject, then over subjects. Intervals are bootstraps over subjects; p values are of Wilcoxon's signed-rank test "
    "over subjects, Holm-adjusted.",
)


def _part(metadata: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    return metadata[name] if isinstance(metadata.get(name), Mapping) else {}


def _index(names: Sequence[str], name: str) -> int:
    return names.index(name) if name in names else len(names)


def _as_text(config: Mapping[str, Any]) -> dict[str, str]:
    return {key: json.dumps(value, ensure_ascii=False) for key, value in flat_values(config).items()}
