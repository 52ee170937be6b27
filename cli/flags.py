"""The flags that commands share, each declared once: type, help, default, and the configuration key that it sets."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from typer import Option

from featlab.cli.complete import complete_layout, complete_method, complete_methods, complete_strategy, complete_subject

COMMON = "Common"  # Help panel of the flags that every command has.


@dataclass(frozen=True)
class Flag:
    """A flag of several commands: its type and text for Typer, its default, and the configuration key that it sets."""

    annotation: Any
    default: Any = None
    key: str = ""


def _flag(kind: Any, name: str, *, key: str = "", default: Any = None, **options: Any) -> Flag:
    return Flag(Annotated[kind, Option(*name.split(), **options)], default, key)


_common = partial(_flag, rich_help_panel=COMMON)

FLAGS = {
    "people": _flag(
        str,
        "--subject",
        metavar="ID|ID,ID,…|PATTERN|FILE|all",
        help="Whom: an id, several with commas, a pattern (`s0*`), a file of them, or `all`.",
        autocompletion=complete_subject,
        default=...,
    ),
    "subjects": _flag(
        list[str] | None,
        "--subject",
        metavar="ID|PATTERN",
        help="Keep subjects out of the source; repeatable.",
        autocompletion=complete_subject,
    ),
    "method": _flag(
        str | None,
        "--method",
        key="adapt.method",
        metavar="NAME",
        help="See `featlab methods`.",
        autocompletion=complete_method,
    ),
    "bundle": _flag(Path | None, "--bundle", metavar="FOLDER", help="A model bundle; no source stage runs."),
    "targets": _flag(
        str | None,
        "--targets",
        key="protocol.targets",
        metavar="N|ID,ID,…|PATTERN|FILE",
        help="Target subjects: a number drawn at random, ids, patterns (`s0*`), a file of them; default: 10.",
    ),
    "draws": _flag(
        int | None, "--draws", key="protocol.draws", min=1, metavar="K", help="Random draws of targets; default: 1."
    ),
    "seeds": _flag(
        int | None, "--seeds", key="protocol.seeds", min=1, metavar="K", help="Seeds within a draw; default: 1."
    ),
    "methods": _flag(
        str | None, "--methods", metavar="NAME,…", help="See `featlab methods`.", autocompletion=complete_methods
    ),
    "sources": _flag(
        str | None,
        "--sources",
        key="protocol.sources",
        metavar="ID,ID,…|PATTERN|FILE",
        help="Source subjects; default: all who are no target.",
    ),
    "pool": _flag(
        str | None,
        "--pool",
        key="protocol.pool",
        metavar="ID,ID,…|PATTERN|FILE",
        help="Whom a number of targets is drawn from; everyone outside is always source. Default: everyone.",
    ),
    "smooth": _flag(
        int | None,
        "--smooth",
        key="protocol.smoothing",
        min=0,
        metavar="N",
        help="Second number of the tables: probabilities averaged over N (odd) frames; 0 switches it off.",
    ),
    "frames": _flag(
        int | None,
        "--frames",
        key="protocol.frames",
        min=0,
        metavar="N",
        help="Adapt on the first N frames of the neutral clip; 0 takes all.",
    ),
    "contamination": _flag(
        float | None,
        "--contamination",
        key="protocol.contamination",
        metavar="FRACTION",
        help="Replace that fraction of the clip by frames of other classes; 0 to 1.",
    ),
    "strategy": _flag(
        str | None,
        "--strategy",
        key="pair.strategy",
        metavar="landmark|cosine|random",
        help="How a row finds its reference.",
        autocompletion=complete_strategy,
    ),
    "label_rule": _flag(
        str | None,
        "--label-rule",
        key="pair.label_rule",
        metavar="any|same|different",
        help="Which labels a reference may have.",
    ),
    "index": _flag(
        str | None,
        "--index",
        key="pair.index",
        metavar="FACTORY",
        help="A faiss index for very many rows, e.g. IVF1024,Flat; default: an exact search.",
    ),
    "dim": _flag(int | None, "--dim", key="features.dim", min=0, metavar="D", help="Features kept; 0 keeps them all."),
    "scope": _flag(
        str | None,
        "--scope",
        key="protocol.scope",
        metavar="person|dataset",
        help="Adapt to each target from a neutral clip, or to all of them as one unlabelled data set.",
    ),
    "out": _flag(Path | None, "--out -o --cache", metavar="FILE", help="Default: the workspace's cache."),
    "dtype": _flag(str, "--dtype", default="float32", metavar="float32|float16", help="As stored."),
    "if_exists": _flag(
        str, "--if-exists", default="resume", metavar="resume|skip|error|overwrite", help="When the cache is there."
    ),
    "manifest": _flag(
        Path | None, "--manifest", metavar="FILE", help="A csv that says what the rows are: subject,label,video,frame."
    ),
    "columns": _flag(
        str | None,
        "--columns",
        metavar="NAMES|REGEX",
        help="Features: names and beginnings of names with commas, or an expression; default: all numbers.",
    ),
    "tool": _flag(
        str | None,
        "--from",
        metavar="TOOL",
        help="What wrote the table: openface2, openface3, py-feat, libreface, openwillis, deepface or emotiefflib; "
        "default: told by its columns.",
    ),
    "features": _flag(
        str | None,
        "--features",
        metavar="GROUP",
        help="A group of the tool's columns: au, emotions, embedding, pose, …; default: what shows expression.",
    ),
    "skip_bad": _flag(
        bool, "--skip-bad", default=False, help="Leave out rows with missing or infinite values or text, and list them."
    ),
    "merge_names": _flag(
        bool,
        "--merge-names",
        default=False,
        help="Join subjects, and labels, that differ in case, leading zeros or blanks alone.",
    ),
    "pseudonymise": _flag(
        Path | None,
        "--pseudonymise",
        metavar="KEYFILE",
        help="Keyed hashes in place of names; extract and import make a file that isn't there.",
    ),
    "images": _flag(Path | None, "--images", key="plot.images", metavar="DIR", help="Where the images are."),
    "caches": _common(
        list[Path] | None, "--cache", metavar="FILE", help="The embedding cache; repeat it for a panel each."
    ),
    "device": _common(str, "--device", default="auto", metavar="auto|cpu|cuda|mps", help="Where to compute."),
    "jobs": _common(int, "--jobs -j", default=0, min=0, metavar="N", help="Processes; 0 takes every core."),
    "engine": _common(
        str | None,
        "--engine",
        key="engine.name",
        metavar="local|dask|submitit",
        help="Where the work runs; \\[engine] in the file says how a cluster is reached.",
    ),
    "share": _common(
        str, "--share", default="1/1", metavar="I/N", help="Run the I-th of N shares; the machines share the folder."
    ),
    "collect": _common(bool, "--collect", default=False, help="Run nothing; show what the runs that are there say."),
    "workspace": _common(Path, "--workspace -C", default=Path("."), metavar="DIR", help="The workspace folder."),
    "cache": _common(Path | None, "--cache", metavar="FILE", help="The embedding cache."),
    "settings": _common(
        list[str] | None, "--set", metavar="SECTION.KEY=VALUE", help="Any option of featlab.toml; repeatable."
    ),
    "seed": _common(int | None, "--seed", key="protocol.seed", min=0, metavar="S", help="Root of every seed."),
    "wide": _common(bool, "--wide", default=False, help="Every column of the tables; the files have them always."),
    "json_mode": _common(bool, "--json", default=False, help="Print one JSON object on stdout."),
    "quiet": _common(bool, "--quiet -q", default=False, help="No progress and no notes."),
}

_backbone, _faces, _video = (partial(_flag, rich_help_panel=panel) for panel in ("Backbone", "Faces", "Videos"))

PIXEL_FLAGS = {
    "layout": _flag(
        str,
        "--layout",
        default="auto",
        metavar="NAME",
        help="How the source is laid out: see `featlab layouts`.",
        autocompletion=complete_layout,
    ),
    "layout_options": _flag(
        list[str] | None, "--layout-option", metavar="KEY=VALUE", help="An option of the layout; repeatable."
    ),
    "weights": _backbone(
        str | None,
        "--weights",
        metavar="FILE|NAME|random",
        help="Of a network: .safetensors or .pt, the library's own name for them, or random.",
    ),
    "layers": _backbone(
        str | None,
        "--layers",
        metavar="A,B",
        help="Layers of a network whose pooled activations are appended to the embedding.",
    ),
    "options": _backbone(
        list[str] | None,
        "--option",
        metavar="KEY=VALUE",
        help="Any other option of the backbone, e.g. size=224; repeatable.",
    ),
    "amp": _backbone(bool | None, "--amp/--no-amp", help="Mixed precision on a GPU."),
    "mirror": _backbone(
        bool,
        "--mirror",
        default=False,
        help="Average the embedding of each image with that of its mirror image; takes twice as long.",
    ),
    "trust_code": _backbone(
        bool, "--trust-code", default=False, help="Run a .pt2 file: it is a program, which can do anything here."
    ),
    "batch": _backbone(int, "--batch", default=64, min=1, metavar="N", help="Images handed over at once."),
    "landmarks": _faces(
        str,
        "--landmarks",
        default="auto",
        metavar="auto|none|FILE|FOLDER|mediapipe|dlib:FILE|uniface",
        help="auto: found beside the source. A detector finds them in the images.",
    ),
    "landmarks_unit": _faces(
        str,
        "--landmarks-unit",
        default="pixels",
        metavar="pixels|fraction",
        help="Of landmarks that you have; fraction: from 0 to 1, shares of the picture's width and height.",
    ),
    "face": _faces(
        str,
        "--face",
        default="largest",
        metavar="largest|track|only",
        help="Of several faces: the largest; track: that of one person who is followed through the clip; only: such "
        "pictures are left out.",
    ),
    "align": _faces(bool, "--align", default=False, help="Level the eyes and crop the face, by the landmarks."),
    "eye_distance": _faces(
        float | None,
        "--eye-distance",
        metavar="FRACTION",
        help="With --align: distance of the eyes as a fraction of the crop's width; less leaves a wider margin.",
    ),
    "no_face": _faces(
        str,
        "--no-face",
        default="keep",
        metavar="keep|drop",
        help="With --align: an image without a face is cropped in the centre, or left out.",
    ),
    "fps": _video(float | None, "--fps", metavar="N", help="Frames a second that are taken."),
    "window": _video(str | None, "--window", metavar="FROM-TO", help="Seconds that are taken, e.g. 2.0-5.0."),
    "stride": _video(int | None, "--stride", min=1, metavar="N", help="Every N-th frame is taken."),
}
"""Flags of commands that read pixels: the layout, the backbone, landmarks, alignment, sampling of videos."""

WRITE_FLAGS = ("out", "dtype", "if_exists", "merge_names", "pseudonymise")
TABLE_FLAGS = ("manifest", "tool", "columns", "features", "skip_bad")
VIDEO_FLAGS = ("fps", "window", "stride")
FACE_FLAGS = ("landmarks", "landmarks_unit", "face", "align", "eye_distance", "no_face")
INPUT_FLAGS = ("layout", "layout_options", *FACE_FLAGS, *VIDEO_FLAGS)
NETWORK_FLAGS = ("weights", "layers", "options", "amp", "mirror", "trust_code")

FLAGS |= PIXEL_FLAGS

PlotsOption = Annotated[bool, Option("--plots/--no-plots", help="Draw the figures.")]
