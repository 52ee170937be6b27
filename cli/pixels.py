"""Flags of commands that read pixels: how a source is read, and which backbone is made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from featlab.cli.flags import FLAGS, INPUT_FLAGS, VIDEO_FLAGS
from featlab.cli.session import Session, names_in

if TYPE_CHECKING:
    from pathlib import Path

    from featlab.bundle.bundle import Bundle
    from featlab.extraction.backbones import Backbone
    from featlab.extraction.embed import Recipe
    from featlab.extraction.inputs import InputConfig
    from featlab.workspace.predict_images import Embedded


def recipe_of(session: Session, name: str, device: str) -> Recipe:
    """Return how a backbone with the options that were given is made; one without any has nothing to refuse."""
    from featlab.extraction.embed import Recipe

    trust(session, name)
    given = {name: session[name] for name in ("weights", "amp") if session.given.get(name) is not None}
    if session["layers"] is not None:
        given["layers"] = tuple(names_in(session["layers"]))
    if device != "auto":
        given["device"] = device
    options = parse_options(session["options"] or (), "--option", "cell=6") | given
    return Recipe(name, tuple(options.items()), bool(session.given.get("mirror")))


def trust(session: Session, name: str) -> None:
    """Say that a backbone is a program and runs here; one in a file has to be trusted with a flag."""
    from featlab.errors import ConfigError

    kind = name.partition(":")[0]
    if kind == "pt2" and not session["trust_code"]:
        raise ConfigError(
            f"{name} is a program, not weights alone: loading it can run any code on this machine; if you trust "
            "whoever made it, add --trust-code"
        )
    if kind in ("pt2", "python"):
        session.output.note(f"{name} is a program: its code runs on this machine")


def network_device(backbone: str, device: str) -> str:
    """Return ``device``, or ``auto`` for a backbone that is no network and has no such option."""
    return "auto" if backbone.partition(":")[0] in ("hog", "geometry") else device


def embed(session: Session, bundle: Bundle, source: Path, subject: str, backbone: Backbone) -> Embedded:
    """Embed a person's images as the flags say, with a bar for each stage."""
    from featlab.extraction.extract import ExtractConfig
    from featlab.workspace.predict_images import embed_source

    with session.output.progress() as bars:
        return embed_source(
            bundle,
            source,
            subject,
            backbone,
            input_config(session),
            config=ExtractConfig(jobs=session["jobs"], batch=session["batch"]),
            notify=session.output.note,
            on_stage=bars,
            on_progress=lambda now: bars("embed", now.done, now.total),
        )


def input_config(session: Session) -> InputConfig:
    """Return what the flags say about how a source is read."""
    from featlab.errors import ConfigError
    from featlab.extraction.faces.align import AlignConfig
    from featlab.extraction.inputs import InputConfig
    from featlab.extraction.video import Sampling, parse_window

    given = {name: session.given.get(name, FLAGS[name].default) for name in INPUT_FLAGS}
    crop = AlignConfig(no_face=given["no_face"])
    if given["eye_distance"] is not None:
        crop = replace(crop, eye_distance=given["eye_distance"])
    if not given["align"] and crop != AlignConfig():
        raise ConfigError("--eye-distance and --no-face say how faces are cropped; add --align")
    fps, window, stride = (given[name] for name in VIDEO_FLAGS)
    sampling = None
    if not (fps is window is stride is None):
        sampling = Sampling(fps, None if window is None else parse_window(window), 1 if stride is None else stride)
    return InputConfig(
        layout=given["layout"],
        layout_options=parse_options(given["layout_options"] or (), "--layout-option", "levels=PA4"),
        landmarks=given["landmarks"],
        landmarks_unit=given["landmarks_unit"],
        face=given["face"],
        align=crop if given["align"] else None,
        sampling=sampling,
    )


def parse_options(items: Sequence[str], flag: str, example: str) -> dict[str, Any]:
    """Return ``{key: value}`` of ``key=value`` items; a value that is a number or true or false becomes one."""
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
