"""Does a GPU give what the CPU gives, and how much faster: training, every method, the small backbones.

    python benchmarks/gpu.py                   # cuda or mps, whichever torch finds; says so where there is none
    python benchmarks/gpu.py --device cpu      # the CPU against itself: does the script work?

Of each part the greatest difference of a probability (of a value, for embeddings) and the seconds of a second run. A
few minutes. What is drawn at random is drawn on the CPU, so that both have the same numbers.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from adaptation import EXTRACTOR, random_people
from claims import seconds
from numpy.typing import NDArray

from featlab.bundle.bundle import Bundle, load_bundle, save_bundle
from featlab.compute import choose_device
from featlab.config.load import Config
from featlab.errors import FeatlabError
from featlab.evaluation.run import adapted_model
from featlab.extraction.backbones import make_backbone
from featlab.methods import make_method, method_names
from featlab.methods.base import SourceFeatures
from featlab.model.networks import PersonalModel
from featlab.protocol.splits import split_target
from featlab.workspace.stages import build_bundle, train_source_head

BACKBONES = ("resnet18", "torchvision:mobilenet_v3_small", "timm:resnet10t")
CONFIG = {"features.dim": 64, "head.epochs": 10, "pretrain.epochs": 5}
Part = Callable[[str], NDArray[np.floating]]
"""Does the work on a device and returns what is compared."""


def parts(folder: Path) -> Iterator[tuple[str, Part]]:
    """Yield what is compared, by name."""
    table, config = random_people(12), Config().with_values(CONFIG, "benchmark")
    source, person = table.without("p00000"), table.rows_of("p00000")
    split = split_target(person, config.protocol.gap)

    def train(device: str) -> NDArray[np.floating]:
        trained = train_source_head(source, config, seed=0, device=device)
        model = PersonalModel(trained.projection, None, trained.head)
        with torch.no_grad():
            return torch.softmax(model(torch.from_numpy(person.embeddings).to(device)), dim=1).cpu().numpy()

    yield "training B and C", train
    save_bundle(folder / "bundle", build_bundle(source, config, seed=0, extractor=EXTRACTOR, methods=method_names()))
    loaded: dict[str, tuple[Bundle, SourceFeatures]] = {}

    def adapt(name: str, device: str) -> NDArray[np.floating]:
        if device not in loaded:
            bundle = load_bundle(folder / "bundle", device=device)
            loaded[device] = bundle, SourceFeatures.of(bundle, source)
        bundle, rows = loaded[device]
        model = adapted_model(bundle, person, split, make_method(name), rows, 0)
        return model.predict_proba(person.embeddings[split.test])

    for name in method_names():
        yield f"adapt: {name}", lambda device, name=name: adapt(name, device)
    images = [np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)] * 16
    for name in BACKBONES:

        def embed(device: str, name: str = name) -> NDArray[np.floating]:
            backbone = make_backbone(name, weights="random", device=device)
            prepare = backbone.prepare or (lambda image, landmarks: image)
            return backbone.embed([prepare(image, None) for image in images], None)

        yield f"extract: {name}", embed


def line(name: str, part: Part, device: str) -> str:
    """Return a row of the table."""
    try:
        wanted, found = part("cpu"), part(device)
        difference = float(np.abs(wanted - found).max())
        times = [seconds(lambda on=on: part(on)) for on in ("cpu", device)]
    except (FeatlabError, RuntimeError, TypeError, NotImplementedError) as error:
        return f"| {name} | failed: {' '.join(str(error).split())[:100]} | | | |"
    return f"| {name} | {difference:.1e} | {times[0]:.3f} | {times[1]:.3f} | {times[1] / times[0]:.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda", "mps"))
    options = parser.parse_args()
    device = choose_device(options.device).type
    if device == "cpu" and options.device == "auto":
        raise SystemExit("torch finds no GPU here: nothing to compare (--device cpu compares the CPU with itself)")
    warnings.simplefilter("ignore")
    named = torch.cuda.get_device_name() if device == "cuda" else device
    print(f"{named} against the CPU, torch {torch.__version__}.\n")
    print("| what | greatest difference | cpu, s | device, s | ratio |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name, part in parts(Path(folder)):
            print(line(name, part, device), flush=True)


if __name__ == "__main__":
    main()
