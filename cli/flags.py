"""The flags that commands share, each declared once: type, help, default, and the configuration key that it sets."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from featlab.cli.complete import (
    complete_backbone,
    complete_layout,
    complete_method,
    complete_methods,
    complete_strategy,
    complete_subject,
)

COMMON = "Common"  # Help panel of the flags that every command has.


@dataclass(frozen=True)
class Flag:
    """A flag of several commands: its type and text for Typer, its default, and the configuration key that it sets."""

    annotation: Any
    default: Any = None
    key: str = ""


def _flag(
    kind: Any,
    help: str,
    metavar: str | None = None,
    *,
    flags: str = "",
    key: str = "",
    default: Any = None,
    **more: Any,
) -> Flag:
    """Declare a flag; it is called as its entry is, which Typer sees to, unless ``flags`` says otherwise."""
    default = False if kind is bool else default
    return Flag(Annotated[kind, Option(*flags.split(), metavar=metavar, help=help, **more)], default, key)


_common = partial(_flag, rich_help_panel=COMMON)

FLAGS = {
    "people": _flag(
        str,
        "Whom: an id, several with commas, a pattern (`s0*`), a file of them, or `all`.",
        "ID|ID,ID,…|PATTERN|FILE|all",
        flags="--subject",
        autocompletion=complete_subject,
        default=...,
    ),
    "subjects": _flag(
        list[str] | None,
        "Keep subjects out of the source; repeatable.",
        "ID|PATTERN",
        flags="--subject",
        autocompletion=complete_subject,
    ),
    "method": _flag(str | None, "See `featlab methods`.", "NAME", key="adapt.method", autocompletion=complete_method),
    "bundle": _flag(Path | None, "A model bundle; no source stage runs.", "FOLDER"),
    "targets": _flag(
        str | None,
        "Target subjects: a number drawn at random, ids, patterns (`s0*`), a file of them; default: 10.",
        "N|ID,ID,…|PATTERN|FILE",
        key="protocol.targets",
    ),
    "draws": _flag(int | None, "Random draws of targets; default: 1.", "K", key="protocol.draws", min=1),
    "seeds": _flag(int | None, "Seeds within a draw; default: 1.", "K", key="protocol.seeds", min=1),
    "methods": _flag(
        str | None,
        "See `featlab methods`; default: eight main ones, or those that the command is about.",
        "NAME,…",
        autocompletion=complete_methods,
    ),
    "sources": _flag(
        str | None, "Source subjects; default: all who are no target.", "ID,ID,…|PATTERN|FILE", key="protocol.sources"
    ),
    "pool": _flag(
        str | None,
        "Whom a number of targets is drawn from; everyone outside is always source. Default: everyone.",
        "ID,ID,…|PATTERN|FILE",
        key="protocol.pool",
    ),
    "smooth": _flag(
        int | None,
        "Second number of the tables: probabilities averaged over N (odd) frames; 0 switches it off.",
        "N",
        key="protocol.smoothing",
        min=0,
    ),
    "frames": _flag(
        int | None, "Adapt on the first N frames of the neutral clip; 0 takes all.", "N", key="protocol.frames", min=0
    ),
    "contamination": _flag(
        float | None,
        "Replace that fraction of the clip by frames of other classes; 0 to 1.",
        "FRACTION",
        key="protocol.contamination",
    ),
    "strategy": _flag(
        str | None,
        "How a row finds its reference; default: landmark where the cache has landmarks, else cosine.",
        "landmark|cosine|random",
        key="pair.strategy",
        autocompletion=complete_strategy,
    ),
    "label_rule": _flag(str | None, "Which labels a reference may have.", "any|same|different", key="pair.label_rule"),
    "index": _flag(
        str | None,
        "A faiss index for very many rows, e.g. IVF1024,Flat; default: an exact search.",
        "FACTORY",
        key="pair.index",
    ),
    "dim": _flag(int | None, "Features kept; 0 keeps them all.", "D", key="features.dim", min=0),
    "scope": _flag(
        str | None,
        "Adapt to each target from a neutral clip, or to all of them as one unlabelled data set.",
        "person|dataset",
        key="protocol.scope",
    ),
    "out": _flag(Path | None, "Default: the workspace's cache.", "FILE", flags="--out -o --cache"),
    "dtype": _flag(str, "As stored.", "float32|float16", default="float32"),
    "if_exists": _flag(str, "When the cache is there.", "resume|overwrite", default="resume"),
    "manifest": _flag(Path | None, "A csv that says what the rows are: subject,label,video,frame.", "FILE"),
    "columns": _flag(
        str | None,
        "Features: names and beginnings of names with commas, or an expression; default: all numbers.",
        "NAMES|REGEX",
    ),
    "tool": _flag(
        str | None,
        "What wrote the table: openface2, openface3, py-feat, libreface, openwillis, deepface or emotiefflib; "
        "default: told by its columns.",
        "TOOL",
        flags="--from",
    ),
    "features": _flag(
        str | None,
        "A group of the tool's columns: au, emotions, embedding, pose, …; default: what shows expression.",
        "GROUP",
    ),
    "skip_bad": _flag(
        bool, "Leave out rows with missing or infinite values or text, and list them.", flags="--skip-bad"
    ),
    "merge_names": _flag(
        bool, "Join subjects, and labels, that differ in case, leading zeros or blanks alone.", flags="--merge-names"
    ),
    "pseudonymise": _flag(
        Path | None, "Keyed hashes in place of names; extract and import make a file that isn't there.", "KEYFILE"
    ),
    "images": _flag(
        Path | None,
        "What the cache's image names are relative to, the manifest's folder; default: beside the cache.",
        "DIR",
    ),
    "faces": _flag(
        str | None,
        "What stands for a face; landmarks are dots in which nobody is recognised.",
        "photographs|landmarks|none",
        key="plot.faces",
    ),
    "caches": _common(list[Path] | None, "The embedding cache; repeat it for a panel each.", "FILE", flags="--cache"),
    "device": _common(str, "Where to compute.", "auto|cpu|cuda|mps", default="auto"),
    "jobs": _common(int, "Processes; 0 takes every core.", "N", flags="--jobs -j", default=0, min=0),
    "engine": _common(
        str | None,
        "Where the work runs; \\[engine] in the file says how a cluster is reached.",
        "local|dask|submitit",
        key="engine.name",
    ),
    "share": _common(str, "Run the I-th of N shares; the machines share the folder.", "I/N", default="1/1"),
    "collect": _common(bool, "Run nothing; show what the runs that are there say.", flags="--collect"),
    "workspace": _common(Path, "The workspace folder.", "DIR", flags="--workspace -C", default=Path(".")),
    "cache": _common(Path | None, "The embedding cache.", "FILE"),
    "settings": _common(
        list[str] | None, "Any option of featlab.toml; repeatable.", "SECTION.KEY=VALUE", flags="--set"
    ),
    "seed": _common(int | None, "Root of every seed.", "S", key="protocol.seed", min=0),
    "wide": _common(bool, "Every column of the tables; the files have them always.", flags="--wide"),
    "json_mode": _common(bool, "Print one JSON object on stdout.", flags="--json"),
    "quiet": _common(bool, "No progress and no notes.", flags="--quiet -q"),
}

_backbone, _faces, _video = (partial(_flag, rich_help_panel=panel) for panel in ("Backbone", "Faces", "Videos"))

PIXEL_FLAGS = {
    "layout": _flag(
        str,
        "How the source is laid out: see `featlab layouts`.",
        "NAME",
        default="auto",
        autocompletion=complete_layout,
    ),
    "layout_options": _flag(
        list[str] | None, "An option of the layout; repeatable.", "KEY=VALUE", flags="--layout-option"
    ),
    "backbone": _backbone(
        str | None,
        "Who embeds images; default: the bundle's, where its name is enough.",
        "NAME",
        autocompletion=complete_backbone,
    ),
    "weights": _backbone(
        str | None, "Of a network: .safetensors or .pt, the library's own name for them, or random.", "FILE|NAME|random"
    ),
    "layers": _backbone(
        str | None, "Layers of a network whose pooled activations are appended to the embedding.", "A,B"
    ),
    "options": _backbone(
        list[str] | None, "Any other option of the backbone, e.g. size=224; repeatable.", "KEY=VALUE", flags="--option"
    ),
    "amp": _backbone(bool | None, "Mixed precision on a GPU.", flags="--amp/--no-amp"),
    "mirror": _backbone(
        bool,
        "Average the embedding of each image with that of its mirror image; takes twice as long.",
        flags="--mirror",
    ),
    "trust_code": _backbone(
        bool, "Run a .pt2 file: it is a program, which can do anything here.", flags="--trust-code"
    ),
    "batch": _backbone(int, "Images handed over at once.", "N", default=64, min=1),
    "landmarks": _faces(
        str,
        "auto: found beside the source. A detector finds them in the images.",
        "auto|none|FILE|FOLDER|mediapipe|dlib:FILE|uniface",
        default="auto",
    ),
    "landmarks_unit": _faces(
        str,
        "Of landmarks that you have; fraction: from 0 to 1, shares of the picture's width and height.",
        "pixels|fraction",
        default="pixels",
    ),
    "face": _faces(
        str,
        "Of several faces: the largest; track: that of one person who is followed through the clip; only: such "
        "pictures are left out.",
        "largest|track|only",
        default="largest",
    ),
    "align": _faces(bool, "Level the eyes and crop the face, by the landmarks.", flags="--align"),
    "eye_distance": _faces(
        float,
        "With --align: distance of the eyes as a fraction of the crop's width; less leaves a wider margin.",
        "FRACTION",
        default=0.36,
    ),
    "no_face": _faces(
        str, "With --align: an image without a face is cropped in the centre, or left out.", "keep|drop", default="keep"
    ),
    "fps": _video(float | None, "Frames a second that are taken.", "N"),
    "window": _video(str | None, "Seconds that are taken, e.g. 2.0-5.0.", "FROM-TO"),
    "stride": _video(int | None, "Every N-th frame is taken.", "N", min=1),
}
"""Flags of commands that read pixels: the layout, the backbone, landmarks, alignment, sampling of videos."""

WRITE_FLAGS = ("out", "dtype", "if_exists", "merge_names", "pseudonymise")
TABLE_FLAGS = ("manifest", "tool", "columns", "features", "skip_bad")
VIDEO_FLAGS = ("fps", "window", "stride")
FACE_FLAGS = ("landmarks", "landmarks_unit", "face", "align", "eye_distance", "no_face")
INPUT_FLAGS = ("layout", "layout_options", *FACE_FLAGS, *VIDEO_FLAGS)
NETWORK_FLAGS = ("weights", "layers", "options", "amp", "mirror", "trust_code")

FLAGS |= PIXEL_FLAGS

SourceArgument = Annotated[
    Path, Argument(help="A manifest (.csv), a folder subject/label/\\[video/]image, or a data set's own folder.")
]
PlotsOption = Annotated[bool, Option("--plots/--no-plots", help="Draw the figures.")]
