"""Backbones: which one the flags name, how they say that a source is read, and `featlab backbone train`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Option

from featlab.cli.flags import FLAGS, INPUT_FLAGS, VIDEO_FLAGS, SourceArgument
from featlab.cli.session import Session, command, names_in
from featlab.errors import ConfigError

if TYPE_CHECKING:
    from featlab.bundle.bundle import Bundle
    from featlab.extraction.embed import Recipe
    from featlab.extraction.inputs import InputConfig
    from featlab.workspace.predict_images import Embedded


def recipe_of(session: Session, name: str, device: str) -> Recipe:
    """Return how a backbone with the options that were given is made; one without any has nothing to refuse."""
    from featlab.config.load import parse_settings
    from featlab.extraction.embed import Recipe

    trust(session, name)
    given = {name: session[name] for name in ("weights", "amp") if session.given.get(name) is not None}
    if session["layers"] is not None:
        given["layers"] = tuple(names_in(session["layers"]))
    if device != "auto":
        given["device"] = device
    said = parse_settings(session["options"] or (), "--option", "cell=6")
    options = {key: _value(text) for key, text in said.items()} | given
    return Recipe(name, tuple(options.items()), bool(session.given.get("mirror")))


def trust(session: Session, name: str) -> None:
    """Say that a backbone is a program and runs here; one in a file has to be trusted with a flag."""
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


def embedder(session: Session, bundle: Bundle) -> Callable[[Path, str], Embedded]:
    """Return what embeds (source, subject) as the flags say, by default with the bundle's own backbone."""
    from featlab.extraction.extract import ExtractConfig
    from featlab.workspace.predict_images import default_backbone, embed_source

    name = session["backbone"] or default_backbone(bundle)
    backbone = recipe_of(session, name, network_device(name, session["device"])).make()

    def embed(source: Path, subject: str) -> Embedded:
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

    return embed


def input_config(session: Session) -> InputConfig:
    """Return what the flags say about how a source is read."""
    from featlab.config.load import parse_settings
    from featlab.extraction.faces.align import AlignConfig
    from featlab.extraction.inputs import InputConfig
    from featlab.extraction.video import Sampling, parse_window

    given = {name: session.given.get(name, FLAGS[name].default) for name in INPUT_FLAGS}
    crop = AlignConfig(given["eye_distance"], given["no_face"])
    if not given["align"] and crop != AlignConfig():
        raise ConfigError("--eye-distance and --no-face say how faces are cropped; add --align")
    fps, window, stride = (given[name] for name in VIDEO_FLAGS)
    sampling = None
    if not (fps is window is stride is None):
        sampling = Sampling(fps, None if window is None else parse_window(window), 1 if stride is None else stride)
    return InputConfig(
        **{name: given[name] for name in ("layout", "landmarks", "landmarks_unit", "face")},
        layout_options=parse_settings(given["layout_options"] or (), "--layout-option", "levels=PA4"),
        align=crop if given["align"] else None,
        sampling=sampling,
    )


def _value(text: str) -> Any:
    """Return a number, or true or false, where a text says one; a factory of one's own converts nothing."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


_network = partial(Option, rich_help_panel="Network")
_training = partial(Option, rich_help_panel="Training")
_FLAGS = ("layout", "layout_options", *VIDEO_FLAGS)
_THEN = "featlab extract {source} --backbone pt2:{out} --trust-code --out cache.h5"

backbone_app = typer.Typer(
    name="backbone", no_args_is_help=True, help="A backbone of one's own, trained on the source subjects' images."
)


@backbone_app.callback()
def backbone() -> None:
    """A backbone of one's own, trained on the source subjects' images."""


@backbone_app.command()
@command("targets", "subjects", *_FLAGS, "seed", "device", "jobs", "trust_code", "json_mode", "quiet", then=_THEN)
def train(
    session: Session,
    source: SourceArgument,
    draws: Annotated[int, Option(min=1, metavar="K", help="Hold out whoever is a target in any of K draws.")] = 1,
    neutral: Annotated[str | None, Option(metavar="NAME", help="The neutral label; default: the layout's.")] = None,
    out: Annotated[Path, Option("--out", "-o", metavar="FILE.pt2", help="The file to write.")] = Path("backbone.pt2"),
    if_exists: Annotated[
        str, Option(metavar="resume|overwrite", help="When the file or a begun run is there.")
    ] = "resume",
    arch: Annotated[
        str | None,
        _network(
            metavar="NAME", help="small (96 px, for a CPU), resnet18, torchvision:NAME, timm:NAME.  [default: small]"
        ),
    ] = None,
    size: Annotated[
        int | None, _network(min=8, metavar="PX", help="Side of the images; default: 96 for small, else 224.")
    ] = None,
    layers: Annotated[
        str | None, _network(metavar="A,B", help="Taps; default: the stem's pooling and the stages.")
    ] = None,
    weights: Annotated[
        Path | None, _network(metavar="FILE", help="Start from a state dict: .safetensors, .pt, or a .pt2 of ours.")
    ] = None,
    epochs: Annotated[int | None, _training(min=1, metavar="N", help="At most.")] = None,
    batch: Annotated[int | None, _training(min=2, metavar="N", help="Images in a step.")] = None,
    refit: Annotated[
        bool | None,
        _training("--refit/--no-refit", help="Train again on all source subjects once the epoch is chosen."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        _training("--set", metavar="KEY=VALUE", help="Any other setting, e.g. lr=0.001, flip=0; repeatable."),
    ] = None,
) -> None:
    """Fit a network on the source subjects' images; no image of a target subject is opened.

    Some source subjects are held out to choose the epoch. A killed run goes on where it stopped. The file that is
    written is a backbone for `featlab extract`.
    """
    import torch

    from featlab.cache.schema import one_form
    from featlab.compute import choose_device
    from featlab.config.load import parse_settings
    from featlab.config.options import with_options
    from featlab.extraction.training import TrainConfig
    from featlab.extraction.training.data import list_items, take_frames
    from featlab.extraction.training.train import train_backbone
    from featlab.protocol.splits import subjects_held_out

    output = session.output
    if weights is not None and weights.suffix == ".pt2":
        trust(session, f"pt2:{weights}")
    given = {"arch": arch, "size": size, "layers": layers, "epochs": epochs, "batch": batch, "refit": refit}
    values: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    config = with_options(TrainConfig(), parse_settings(settings or (), example="lr=0.001") | values, "backbone")
    chosen_device = choose_device(session["device"]).type
    torch.set_num_threads(session.jobs)
    listed = list_items(source, input_config(session))
    held = subjects_held_out(
        listed.subjects, session["targets"], draws=draws, seed=session["seed"] or 0, named=session["subjects"] or ()
    )
    if not held:
        output.warn("nobody is held out: no one in this source can be an honest target of this backbone")
    output.note(f"backbone train: {len(listed.subjects) - len(held)} source subjects, {len(held)} held out")

    def epoch(phase: str, done: int, total: int, facts: dict[str, float]) -> None:
        words = f"loss {facts['loss']:.3f}"
        if "validation_macro_f1" in facts:
            words += f", macro F1 of validation subjects {facts['validation_macro_f1']:.3f}"
        bars(phase, done, total, words)

    with output.progress() as bars:
        items, unopened = take_frames(listed, held, jobs=session["jobs"], on_progress=bars.of("videos"))
        report = train_backbone(
            items,
            config,
            out,
            neutral=one_form(neutral) if neutral is not None else listed.neutral,
            held_out=held,
            seed=session["seed"] or 0,
            weights=weights,
            device=chosen_device,
            if_exists=if_exists,  # type: ignore[arg-type]  # checked there, with a line for the user
            on_image=partial(bars, "read"),
            on_epoch=epoch,
        )
    failures, card = (*unopened, *report.failures), report.card
    facts = {
        "difference": report.difference,
        "resumed_epochs": report.resumed,
        "seconds": round(report.seconds, 3),
        "failures": [failure._asdict() for failure in failures],
    }
    said = {
        **{name.replace("_", " "): len(card[name]) for name in ("source_subjects", "validation_subjects")},
        "held out": len(held),
        "classes": card["classes"],
        "images": card["images"],
        "parameters": card["parameters"],
        "best epoch": f"{card['best_epoch']} of {card['epochs']}",
        "macro F1 of validation subjects": f"{card['validation_macro_f1']:.3f}",
        "trained again on all source subjects": card["refitted_on_all_source_subjects"],
        "failures": None,
    }
    output.tell(str(report.path), facts, said, path=report.path, card=card)
    session.end(failures, "images or videos could not be read and were left out; --json lists them")
