"""Flags of every command that reads pixels: the source's layout, the backbone, landmarks, alignment, video sampling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from featlab.cli.complete import complete_backbone, complete_layout

if TYPE_CHECKING:
    from featlab.extraction.inputs import InputConfig

__all__ = [
    "AlignOption",
    "AmpOption",
    "BackboneOption",
    "BatchOption",
    "EyeDistanceOption",
    "FpsOption",
    "LandmarksOption",
    "LayersOption",
    "LayoutOption",
    "LayoutOptionsOption",
    "NoFaceOption",
    "OptionsOption",
    "StrideOption",
    "WeightsOption",
    "WindowOption",
    "backbone_options",
    "input_config",
    "parse_options",
]

_BACKBONE, _FACES, _VIDEO = "Backbone", "Faces", "Videos"

LayoutOption = Annotated[
    str,
    typer.Option(
        "--layout",
        metavar="NAME",
        help="How the source is laid out: see `featlab layouts`.",
        autocompletion=complete_layout,
    ),
]
LayoutOptionsOption = Annotated[
    list[str] | None,
    typer.Option("--layout-option", metavar="KEY=VALUE", help="An option of the layout; repeatable."),
]
BackboneOption = Annotated[
    str,
    typer.Option(
        "--backbone",
        metavar="NAME",
        help="hog, geometry, resnet18, torchvision:NAME, timm:NAME, hf:FOLDER, pt2:FILE, onnx:FILE, "
        "python:MODULE:FACTORY.",
        autocompletion=complete_backbone,
        rich_help_panel=_BACKBONE,
    ),
]
WeightsOption = Annotated[
    str | None,
    typer.Option(
        "--weights",
        metavar="FILE|NAME|random",
        help="Of a network: .safetensors or .pt, the library's own name for them, or random.",
        rich_help_panel=_BACKBONE,
    ),
]
LayersOption = Annotated[
    str | None,
    typer.Option(
        "--layers",
        metavar="A,B",
        help="Layers of a network whose channel means and deviations are appended to the embedding.",
        rich_help_panel=_BACKBONE,
    ),
]
OptionsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--option",
        metavar="KEY=VALUE",
        help="Any other option of the backbone, e.g. size=224; repeatable.",
        rich_help_panel=_BACKBONE,
    ),
]
AmpOption = Annotated[
    bool | None,
    typer.Option("--amp/--no-amp", help="Mixed precision on a GPU.", rich_help_panel=_BACKBONE),
]
BatchOption = Annotated[
    int, typer.Option("--batch", min=1, metavar="N", help="Images handed over at once.", rich_help_panel=_BACKBONE)
]
LandmarksOption = Annotated[
    str,
    typer.Option(
        "--landmarks",
        metavar="auto|none|FILE|FOLDER|mediapipe|dlib:FILE",
        help="auto: found beside the source. A detector finds them in the images.",
        rich_help_panel=_FACES,
    ),
]
AlignOption = Annotated[
    bool, typer.Option("--align", help="Level the eyes and crop the face, by the landmarks.", rich_help_panel=_FACES)
]
EyeDistanceOption = Annotated[
    float | None,
    typer.Option(
        "--eye-distance",
        metavar="SHARE",
        help="With --align: distance of the eyes as a share of the crop's width; less leaves a wider margin.",
        rich_help_panel=_FACES,
    ),
]
NoFaceOption = Annotated[
    str,
    typer.Option(
        "--no-face",
        metavar="keep|drop",
        help="With --align: an image without a face is cropped in the centre, or left out.",
        rich_help_panel=_FACES,
    ),
]
FpsOption = Annotated[
    float | None, typer.Option("--fps", metavar="N", help="Frames a second that are taken.", rich_help_panel=_VIDEO)
]
WindowOption = Annotated[
    str | None,
    typer.Option("--window", metavar="FROM-TO", help="Seconds that are taken, e.g. 2.0-5.0.", rich_help_panel=_VIDEO),
]
StrideOption = Annotated[
    int | None, typer.Option("--stride", min=1, metavar="N", help="Every N-th frame is taken.", rich_help_panel=_VIDEO)
]


def backbone_options(
    options: Sequence[str] | None,
    *,
    weights: str | None = None,
    layers: str | None = None,
    device: str = "auto",
    amp: bool | None = None,
) -> dict[str, Any]:
    """Return the options of `make_backbone` that were said on the command line.

    Those that weren't are left out, so that a backbone without weights or layers has nothing to refuse.

    Raises:
        ConfigError: An ``--option`` that isn't key=value.
    """
    given: dict[str, Any] = {}
    if weights is not None:
        given["weights"] = weights
    if layers is not None:
        given["layers"] = tuple(name.strip() for name in layers.split(",") if name.strip())
    if device != "auto":
        given["device"] = device
    if amp is not None:
        given["amp"] = amp
    return parse_options(options or (), "--option", "cell=6") | given


def input_config(
    layout: str = "auto",
    layout_options: Sequence[str] | None = None,
    landmarks: str = "auto",
    align: bool = False,
    eye_distance: float | None = None,
    no_face: str = "keep",
    fps: float | None = None,
    window: str | None = None,
    stride: int | None = None,
) -> InputConfig:
    """Return what the flags say about how a source is read.

    Raises:
        ConfigError: A value that doesn't fit, or a flag that means nothing without --align.
    """
    from featlab.errors import ConfigError
    from featlab.extraction.faces.align import AlignConfig
    from featlab.extraction.inputs import InputConfig
    from featlab.extraction.video.times import Sampling, parse_window

    crop = AlignConfig(no_face=no_face)  # type: ignore[arg-type]  # checked there, with a line for the user
    if eye_distance is not None:
        crop = replace(crop, eye_distance=eye_distance)
    if not align and crop != AlignConfig():
        raise ConfigError("--eye-distance and --no-face say how faces are cropped; add --align")
    sampling = None
    if fps is not None or window is not None or stride is not None:
        sampling = Sampling(fps, None if window is None else parse_window(window), 1 if stride is None else stride)
    return InputConfig(
        layout=layout,
        layout_options=parse_options(layout_options or (), "--layout-option", "levels=PA4"),
        landmarks=landmarks,
        align=crop if align else None,
        sampling=sampling,
    )


def parse_options(items: Sequence[str], flag: str, example: str) -> dict[str, Any]:
    """Return ``{key: value}`` of ``key=value`` items; a value that is a number or true or false becomes one.

    Raises:
        ConfigError: An item without ``=``.
    """
    from featlab.errors import ConfigError

    options: dict[str, Any] = {}
    for item in items:
        key, equals, value = item.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"{flag} {item}: expected key=value, for example {flag} {example}")
        options[key.strip()] = _value(value.strip())
    return options


def _value(text: str) -> Any:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
