"""From the images of source subjects to a backbone file: the whole of `featlab backbone train`."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from featlab.cache.atomic import make_folder
from featlab.compute import seeded
from featlab.engine import OnProgress
from featlab.errors import ConfigError, FeatlabError, InputError, closest, one_line
from featlab.extraction.backbones.exported_program import BackboneMeta, load_program
from featlab.extraction.backbones.modules import TAPS, bare_network, resnet18, small_resnet
from featlab.extraction.backbones.network import Taps, as_embedding
from featlab.extraction.backbones.weights import file_sha256, load_state_dict, read_state_dict, state_sha256
from featlab.extraction.items import Failure, IfExists, Item, class_names, item_order, stays
from featlab.extraction.shards import file_stamp
from featlab.extraction.training import TrainConfig
from featlab.extraction.training.data import Images, People, choose_people, load_images
from featlab.extraction.training.export import export_backbone, read_card
from featlab.extraction.training.fit import Checkpoint, History, OnEpoch, best_epoch, difference, fit


def build_network(arch: str, size: int, layers: Sequence[str] = ()) -> tuple[nn.Module, int, tuple[str, ...]]:
    """Build a network with fresh weights, drawn from torch's default generator.

    Returns it, D of its (n, D) embeddings of (n, 3, S, S) normalised images, and its taps.
    """
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
    module.eval()
    probe = torch.zeros(1, 3, size, size)

    def run(taps: Sequence[str]) -> Tensor:
        with torch.no_grad():
            return as_embedding(arch, Taps(arch, module, taps).run(probe)[0], 1)

    try:
        dim = run(layers).shape[1]
    except FeatlabError:
        raise
    except Exception as error:
        # A network says in its own way that it can't take a size (assertions, shapes that don't match).
        raise ConfigError(
            f"{arch} doesn't take images of {size}x{size} ({one_line(error)}); choose another --size"
        ) from error
    taps = list(layers)
    for usual in () if layers else TAPS:
        # Of the usual layers those that there are, and that have positions left at this size.
        with suppress(ConfigError):
            run([usual])
            taps.append(usual)
    return module.train(), dim, tuple(taps)


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
    kept = stays(out, if_exists)
    people = choose_people(items, held_out, config.validation, seed)
    source = sorted((item for item in items if item.subject in set(people.source)), key=item_order)
    classes = class_names((item.label for item in source), neutral)
    size = config.size or (96 if config.arch == "small" else 224)
    request = _request(source, people, classes, config, seed, weights)
    if kept:
        return _kept(out, request, start)
    with seeded(seed, "backbone weights", device=device):
        network, dim, taps = build_network(config.arch, size, config.layers)
        head = {"dropout": nn.Dropout(config.dropout), "classifier": nn.Linear(dim, len(classes))}
        model = nn.Sequential(OrderedDict(network=network, **head))
    if weights is not None:
        load_weights(config.arch, network, weights)
    initial = {name: value.clone() for name, value in model.state_dict().items()}
    model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    folder = out.with_suffix(".training")
    if if_exists == "overwrite":
        shutil.rmtree(folder, ignore_errors=True)
    make_folder(folder)
    checkpoint = Checkpoint(folder, request)
    # Before images are decoded: it may be another run's.
    checkpoint.load("choose")
    images = load_images(source, people, classes, size=size, file=folder / "pixels.uint8", on_image=on_image)
    train = partial(
        fit, model, images, config=config, seed=seed, device=device, checkpoint=checkpoint, on_epoch=on_epoch
    )
    fitted, validation = images.rows_of(people.fit), images.rows_of(people.validation)
    history, resumed = train(fitted, validation, phase="choose", epochs=config.epochs)
    if config.refit:
        model.load_state_dict(initial)
        resumed += train(images.rows_of(people.source), None, phase="refit", epochs=best_epoch(history))[1]
    card = _card(request, people, images, network, history)
    name = f"featlab-{config.arch}-{card['weights_sha256'][:12]}"
    worst = export_backbone(network, out, BackboneMeta(size=size, id=name, layers=taps, card=card))
    shutil.rmtree(folder, ignore_errors=True)
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
        **asdict(config),
        "seed": seed,
        "weights": None if weights is None else file_sha256(weights),
        "classes": list(classes),
        "fit_subjects": list(people.fit),
        "validation_subjects": list(people.validation),
        "held_out_subjects": list(people.held_out),
        "images": digest.hexdigest(),
    }


def _card(
    request: dict[str, Any], people: People, images: Images, module: nn.Module, history: History
) -> dict[str, Any]:
    """Return what the file says about itself."""
    from featlab import __version__

    best, refit = best_epoch(history), request["refit"]
    return {
        "made_by": f"featlab {__version__}, torch {torch.__version__.partition('+')[0]}",
        "source_subjects": list(people.source if refit else people.fit),
        "validation_subjects": list(people.validation),
        "held_out_subjects": list(people.held_out),
        "classes": list(images.classes),
        "images": len(images.label),
        "unreadable_images": len(images.failures),
        "parameters": sum(parameter.numel() for parameter in module.parameters()),
        "weights_sha256": state_sha256(module),
        "epochs": len(history),
        "best_epoch": best,
        "refitted_on_all_source_subjects": refit,
        "validation_macro_f1": history[best - 1]["validation_macro_f1"],
        "validation_loss": history[best - 1]["validation_loss"],
        "history": history,
        "request": request,
    }


def _kept(out: Path, request: dict[str, Any], start: float) -> TrainReport:
    """Return the report of a file that is there and was made by the same request."""
    card = read_card(out)
    changed = difference(card.get("request", {}), request)
    if changed is not None:
        raise InputError(f"{out} exists and isn't what this would make: {changed}; --if-exists overwrite replaces it")
    return TrainReport(out, card, 0.0, len(card["history"]), time.monotonic() - start)
