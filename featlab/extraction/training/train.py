"""From the images of source subjects to a backbone file: the whole of `featlab backbone train`."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from featlab.compute import seeded
from featlab.engine import OnProgress
from featlab.errors import ConfigError, InputError, closest, one_line
from featlab.extraction.backbones.exported_program import load_program
from featlab.extraction.backbones.modules import TAPS, bare_network, resnet18, small_resnet
from featlab.extraction.backbones.network import check_layers, position_axes
from featlab.extraction.backbones.weights import file_sha256, load_state_dict, read_state_dict, state_sha256
from featlab.extraction.items import Failure, Item, class_names, item_order, stays
from featlab.extraction.shards import file_stamp
from featlab.extraction.training import TrainConfig, flat
from featlab.extraction.training.data import Images, People, choose_people, load_images
from featlab.extraction.training.export import BackboneMeta, export_backbone, read_card
from featlab.extraction.training.fit import Checkpoint, Fitted, OnEpoch, difference, fit

IfExists = Literal["resume", "error", "overwrite"]


def default_size(arch: str) -> int:
    """Return the side in pixels of the images that a network is made for."""
    return 96 if arch == "small" else 224


@dataclass(frozen=True, eq=False)
class TrainableNetwork:
    """A network that turns (n, 3, S, S) normalised images into (n, D) embeddings."""

    module: nn.Module
    dim: int
    taps: tuple[str, ...]


def build_network(arch: str, size: int, layers: Sequence[str] = ()) -> TrainableNetwork:
    """Build a network with fresh weights, drawn from torch's default generator."""
    kind, _, name = arch.partition(":")
    if arch == "small":
        module: nn.Module = small_resnet()
    elif arch == "resnet18":
        module = resnet18()
    elif kind in ("torchvision", "timm") and name:
        module = bare_network(arch)
    else:
        hint = closest(arch, ("small", "resnet18", "torchvision:", "timm:"))
        raise ConfigError(f"no network is called {arch!r} (known: small, resnet18, torchvision:NAME, timm:NAME){hint}")
    known = [place for place, _ in module.named_modules() if place]
    check_layers(arch, layers, known)
    shapes: dict[str, tuple[int, ...]] = {}

    def note(layer: str, output: object) -> None:
        if isinstance(output, Tensor):
            shapes[layer] = tuple(output.shape)

    hooks = [
        module.get_submodule(layer).register_forward_hook(lambda _, __, output, layer=layer: note(layer, output))
        for layer in {*layers, *TAPS}.intersection(known)
    ]
    try:
        with torch.no_grad():
            out = module.eval()(torch.zeros(1, 3, size, size))
    except Exception as error:
        # A network says in its own way that it can't take a size (assertions, shapes that don't match).
        raise ConfigError(
            f"{arch} doesn't take images of {size}x{size} ({one_line(error)}); choose another --size"
        ) from error
    for hook in hooks:
        hook.remove()
    module.train()
    if not isinstance(out, Tensor) or out.dim() != 2:
        raise ConfigError(f"{arch} doesn't return one vector an image; choose a classification network")
    fit = {layer for layer, shape in shapes.items() if position_axes(shape) is not None}
    # Of the usual layers those that have positions left at this size.
    usual = tuple(layer for layer in TAPS if layer in fit)
    for layer in layers:
        if layer not in fit:
            raise ConfigError(
                f"the layer {layer!r} of {arch} has no positions to take statistics over at {size}x{size} pixels; "
                f"choose others{f', e.g. {usual[-1]}' if usual else ''}"
            )
    return TrainableNetwork(module, int(out.shape[1]), tuple(layers) or usual)


def load_weights(arch: str, module: nn.Module, path: Path) -> None:
    """Start from a state dict, or a ``.pt2`` of ours: every tensor of the network must be there in its shape."""
    state = dict(load_program(path)[0].state_dict) if path.suffix == ".pt2" else read_state_dict(path)
    load_state_dict(arch, module, state, path)


@dataclass(frozen=True, eq=False)
class TrainReport:
    """What a training did."""

    path: Path  # The backbone file.
    card: dict[str, Any]  # What the file says about itself: people, classes, settings, scores.
    difference: float  # Between the file's outputs and the network's, relative to the largest.
    resumed: int  # Epochs that an earlier run had done; all of them where the file was there.
    seconds: float  # Wall time of this call.
    failures: tuple[Failure, ...] = ()  # Source images that can't be read.


DEFAULTS = TrainConfig()


def train_backbone(
    items: Sequence[Item],
    config: TrainConfig = DEFAULTS,
    out: Path = Path("backbone.pt2"),
    *,
    neutral: str = "neutral",
    held_out: Sequence[str] = (),
    seed: int = 0,
    weights: Path | None = None,
    device: str = "cpu",
    if_exists: IfExists = "resume",
    on_image: OnProgress | None = None,
    on_epoch: OnEpoch | None = None,
) -> TrainReport:
    """Fit a network on the labelled images of the source subjects, for `featlab backbone train`, and write it.

    Until ``out`` is there, the state is in ``<stem>.training/`` beside it. On a CPU a run that was killed gives the
    file that an uninterrupted one with as many threads gives.
    """
    start = time.monotonic()
    kept = stays(out, if_exists, get_args(IfExists))
    people = choose_people(items, held_out, config.validation, seed)
    source = sorted((item for item in items if item.subject in set(people.source)), key=item_order)
    classes = class_names((item.label for item in source), neutral)
    size = config.size or default_size(config.arch)
    request = _request(source, people, classes, config, seed, weights)
    if kept:
        return _kept(out, request, start)
    with seeded(seed, "backbone weights", device=device):
        network = build_network(config.arch, size, config.layers)
        head = {"dropout": nn.Dropout(config.dropout), "classifier": nn.Linear(network.dim, len(classes))}
        model = nn.Sequential(OrderedDict(network=network.module, **head))
    if weights is not None:
        load_weights(config.arch, network.module, weights)
    initial = {name: value.clone() for name, value in model.state_dict().items()}
    model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    checkpoint = Checkpoint(out.with_suffix(".training"), request, overwrite=if_exists == "overwrite")
    pixels = checkpoint.folder / "pixels.uint8"
    images = load_images(source, people, classes, size=size, file=pixels, on_image=on_image)
    train = partial(
        fit, model, images, config=config, seed=seed, device=device, checkpoint=checkpoint, on_epoch=on_epoch
    )
    fitted, validation = images.rows_of(people.fit), images.rows_of(people.validation)
    chosen = train(fitted, validation, phase="choose", epochs=config.epochs)
    resumed = chosen.resumed
    if config.refit:
        model.load_state_dict(initial)
        resumed += train(images.rows_of(people.source), None, phase="refit", epochs=chosen.best_epoch).resumed
    digest = state_sha256(network.module)
    card = _card(request, people, images, network, chosen, config.refit, digest)
    meta = BackboneMeta(size=size, id=f"featlab-{config.arch}-{digest[:12]}", layers=network.taps, card=card)
    worst = export_backbone(network.module, out, meta)
    shutil.rmtree(checkpoint.folder, ignore_errors=True)
    return TrainReport(out, card, worst, resumed, time.monotonic() - start, images.failures)


def _request(
    source: Sequence[Item],
    people: People,
    classes: tuple[str, ...],
    config: TrainConfig,
    seed: int,
    weights: Path | None,
) -> dict[str, Any]:
    """Return everything that decides what comes out, JSON-ready; images by name, label, size and time of change."""
    digest = hashlib.sha256()
    for item in source:
        size, changed, _ = file_stamp(item.path)
        file = [] if size < 0 else [size, changed]
        entry = [item.name, item.subject, item.label, item.video, item.frame, item.at, file]
        digest.update(json.dumps(entry).encode())
    return {
        **flat(config),
        "seed": seed,
        "weights": None if weights is None else file_sha256(weights),
        "classes": list(classes),
        "fit_subjects": list(people.fit),
        "validation_subjects": list(people.validation),
        "held_out_subjects": list(people.held_out),
        "images": digest.hexdigest(),
    }


def _card(
    request: dict[str, Any],
    people: People,
    images: Images,
    network: TrainableNetwork,
    chosen: Fitted,
    refit: bool,
    digest: str,
) -> dict[str, Any]:
    """Return what the file says about itself."""
    from featlab import __version__

    best = chosen.history[chosen.best_epoch - 1]
    return {
        "made_by": f"featlab {__version__}, torch {torch.__version__.partition('+')[0]}",
        "source_subjects": list(people.source if refit else people.fit),
        "validation_subjects": list(people.validation),
        "held_out_subjects": list(people.held_out),
        "classes": list(images.classes),
        "images": len(images.label),
        "unreadable_images": len(images.failures),
        "parameters": sum(parameter.numel() for parameter in network.module.parameters()),
        "weights_sha256": digest,
        "epochs": len(chosen.history),
        "best_epoch": chosen.best_epoch,
        "refitted_on_all_source_subjects": refit,
        "validation_macro_f1": best["validation_macro_f1"],
        "validation_loss": best["validation_loss"],
        "history": chosen.history,
        "request": request,
    }


def _kept(out: Path, request: dict[str, Any], start: float) -> TrainReport:
    """Return the report of a file that is there and was made by the same request."""
    card = read_card(out)
    before = card.get("request", {})
    changed = difference(before, json.loads(json.dumps(request)))
    if changed is not None:
        raise InputError(f"{out} exists and isn't what this would make: {changed}; --if-exists overwrite replaces it")
    return TrainReport(out, card, 0.0, len(card["history"]), time.monotonic() - start)
