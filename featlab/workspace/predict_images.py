"""New images of one person, embedded by the bundle's own backbone as rows of a cache are."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from featlab.bundle.bundle import Bundle
from featlab.cache.reader import open_cache
from featlab.cache.schema import ExtractorInfo
from featlab.cache.table import FeatureTable
from featlab.errors import BundleError, InputError, closest
from featlab.extraction.backbones import Backbone
from featlab.extraction.embed import OnProgress
from featlab.extraction.extract import DEFAULTS, ExtractConfig, extract
from featlab.extraction.items import Failure, Item

if TYPE_CHECKING:
    from featlab.extraction.inputs import InputConfig, OnStage


_OUR_OWN = re.compile(r"hog|geometry|resnet18|(torchvision|timm):[\w.]+")


@dataclass(frozen=True, eq=False)
class Embedded:
    """What images of one person became."""

    # n rows, sorted by video and frame; their labels are unknown, their paths are the images' names.
    table: FeatureTable
    items: tuple[Item, ...]  # The image of each row.
    failures: tuple[Failure, ...]  # Images that could not be read or embedded.


def embed_source(
    bundle: Bundle,
    source: Path,
    subject: str,
    backbone: Backbone,
    inputs: InputConfig,
    *,
    config: ExtractConfig = DEFAULTS,
    notify: Callable[[str], None] | None = None,
    on_stage: OnStage | None = None,
    on_progress: OnProgress | None = None,
) -> Embedded:
    """Embed a person's images in a source.

    A source without subjects in it (an image, a video, a folder of them: the layout ``loose``, which ``auto`` takes for
    it) is the person's as a whole. Of any other source the person's images are taken. The backbone, with the alignment
    of ``inputs`` before it, must be the bundle's extractor.
    """
    from featlab.extraction.faces.align import with_alignment
    from featlab.extraction.inputs import read_inputs, with_face_crop
    from featlab.extraction.layouts import detect_layout
    from featlab.extraction.layouts.plain import is_loose

    # Before videos are opened and faces are looked for.
    check_backbone(
        bundle.extractor, (with_alignment(backbone, inputs.align) if inputs.align is not None else backbone).info()
    )
    loose = inputs.layout == "loose"
    if inputs.layout == "auto" and is_loose(source):
        # A data set's folder may look like clips, and knows better whose they are.
        loose = source.is_file() or detect_layout(source) is None
    if loose:
        inputs = replace(inputs, layout="loose", layout_options={"subject": subject})
    with tempfile.TemporaryDirectory(prefix="featlab-") as folder:
        out = Path(folder) / "images.h5"
        read = read_inputs(source, inputs, beside=out, jobs=config.jobs, notify=notify, on_progress=on_stage)
        if notify is not None:
            for line in read.warnings:
                notify(line)
        items = read.items if loose else _items_of(read.items, subject, source)
        report = extract(
            # What they say about labels is not read.
            [replace(item, label=None) for item in items],
            with_face_crop(backbone, inputs, read),
            out,
            neutral=bundle.neutral,
            landmarks=read.landmarks,
            config=config,
            on_progress=on_progress,
        )
        with open_cache(out) as cache:
            table = cache.read()
    named = {item.name: item for item in items}
    rows = tuple(named[name] for name in table.paths or ())
    return Embedded(table, rows, (*read.failures, *report.failures))


def check_backbone(wanted: ExtractorInfo, made: ExtractorInfo) -> None:
    """Raise a BundleError that says in what a backbone differs from the one that a bundle was made for."""
    if made.fingerprint == wanted.fingerprint:
        return
    # A sha256 is told by its beginning.
    theirs, ours = (
        {"id": info.id, "weights": info.weights[:12], "preprocessing": info.preprocessing, "layers": list(info.layers)}
        for info in (made, wanted)
    )
    told = "; ".join(f"{name} {theirs[name]!r} for {ours[name]!r}" for name in ours if theirs[name] != ours[name])
    raise BundleError(f"the backbone isn't the one that the bundle was made for; it has {told}")


def default_backbone(bundle: Bundle) -> str:
    """Return the backbone's name that a bundle's extractor goes by; there it may still need weights and options."""
    name = bundle.extractor.id
    # A bundle may come from anywhere: it can't name a file, another package's code or a network of a hub.
    if not _OUR_OWN.fullmatch(name):
        raise InputError(
            f"the bundle's features come from {name!r} ({bundle.extractor.preprocessing}); say with --backbone (and "
            "--weights, --layers, --option) how to make them"
        )
    return name


def _items_of(items: Sequence[Item], subject: str, source: Path) -> list[Item]:
    mine = [item for item in items if item.subject == subject]
    if not mine:
        known = sorted({item.subject for item in items})
        few = ", ".join(known[:4]) + (", …" if len(known) > 4 else "")
        raise InputError(f"{source}: none of its images is of {subject!r} (subjects: {few}){closest(subject, known)}")
    return mine
