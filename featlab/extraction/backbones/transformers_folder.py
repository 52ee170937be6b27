"""Vision transformers, as `save_pretrained` writes them: of a folder (``hf:FOLDER``) or of the Hugging Face hub."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from featlab.config.options import option
from featlab.errors import ConfigError, InputError, one_line
from featlab.extraction.backbones import (
    INTERPOLATIONS,
    InputSpec,
    NetworkOptions,
    library,
    network_options,
    require_argument,
)
from featlab.extraction.backbones.network import NetworkBackbone, module_backbone
from featlab.extraction.backbones.weights import file_sha256

_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
# No pickles from the hub.
_FETCHED = ["*.safetensors", "*.safetensors.index.json", "config.json", "preprocessor_config.json"]
# The tokenizer's.
_FETCHED += ["tokenizer*.json", "special_tokens_map.json", "vocab.json", "merges.txt"]
CLIP = {
    "ViT-B/32": "openai/clip-vit-base-patch32",
    "ViT-B/16": "openai/clip-vit-base-patch16",
    "ViT-L/14": "openai/clip-vit-large-patch14",
    "ViT-L/14@336px": "openai/clip-vit-large-patch14-336",
}
"""OpenAI's networks, by the names of their paper (Radford et al., 2021), and where the hub has them."""


@dataclass(frozen=True)
class TransformerOptions(NetworkOptions):
    """Options of `NetworkOptions`, and how an embedding is made of the network's output."""

    pooling: str = option(
        "auto",
        "pooler (pooler_output), cls (the first token), mean (over tokens or positions), joint (CLIP's vector of unit "
        "length, which it compares with texts), or auto: a trained pooler, else the class token, else the mean.",
        choices=("auto", "pooler", "cls", "mean", "joint"),
    )
    prompts: str = option(
        "a photo of a {label} face",
        "The text of each class that goes into the cache, for head.classifier = prompts.",
        only="pooling = joint",
    )

    def check_together(self) -> None:
        """Refuse a text without the class in it, and layers beside what is compared with texts."""
        super().check_together()
        if self.pooling == "joint" and self.layers:
            raise ConfigError(f"{self.key('layers')} doesn't go with pooling=joint: texts have no such layers")
        if "{label}" not in self.prompts:
            raise ConfigError(f"{self.key('prompts')} = {self.prompts!r} must hold {{label}}, the place of the class")


def build_clip(argument: str | None, options: Mapping[str, Any]) -> NetworkBackbone:
    """Build ``clip:NAME``, the picture's half of it; the options are the fields of `TransformerOptions`."""
    network = require_argument("clip", argument, f"a network's name: {', '.join(CLIP)}")
    if network not in CLIP:
        raise ConfigError(
            f"clip: there is no network {network!r} (there are: {', '.join(CLIP)}); hf:OWNER/NAME has others"
        )
    return build(CLIP[network], options)


def build(argument: str | None, options: Mapping[str, Any]) -> NetworkBackbone:
    """Build ``hf:FOLDER`` or ``hf:OWNER/NAME``; the options are the fields of `TransformerOptions`."""
    where = require_argument("hf", argument, "a folder with a transformers model, or OWNER/NAME on the hub")
    name = f"hf:{where}"
    chosen = network_options(name, TransformerOptions, options)
    chosen.no_weights(name, "folder")
    transformers = library("transformers", "hf:", "hf")
    folder = _folder(where)
    if not (folder / "config.json").is_file():
        raise InputError(f"{folder}: no config.json there; hf: takes the folder that save_pretrained wrote")
    files = next((found for pattern in _WEIGHTS if (found := sorted(folder.glob(pattern)))), [])
    if not files:
        raise InputError(f"{folder}: no weights there (model.safetensors or pytorch_model.bin)")

    with _quiet(transformers):
        try:
            model, report = transformers.AutoModel.from_pretrained(
                str(folder), local_files_only=True, trust_remote_code=False, output_loading_info=True
            )
        except Exception as error:
            # transformers raises anything from KeyError to OSError for a folder that it can't use.
            raise ConfigError(f"{name} can't be loaded ({type(error).__name__}: {one_line(error)})") from None
        has_processor = (folder / "preprocessor_config.json").is_file()
        processor = _loaded(transformers.AutoImageProcessor, folder, "image processor") if has_processor else None
    module: nn.Module = getattr(model, "vision_model", model)
    missing = sorted(str(key) for key in report["missing_keys"])
    untrained = [key for key in missing if "pooler" not in key.split(".")]
    if untrained:
        raise InputError(
            f"{name}: {len(untrained)} weights aren't in the folder ({', '.join(untrained[:4])}) and would be random"
        )
    own, joint = _spec(processor), chosen.pooling == "joint"
    if joint and not hasattr(model, "visual_projection"):
        raise ConfigError(f"{name} compares no pictures with texts; pooling=joint is for networks of CLIP's form")
    module = _Joint(model) if joint else module
    size = chosen.input_spec(own).size
    pooling = _choose_pooling(name, chosen.pooling, module, size, pooler_trained=not missing)
    made = module_backbone(
        name,
        module,
        chosen,
        own,
        id=f"hf:{model.config.model_type}",
        weights=file_sha256(*files),
        pick=partial(_pick, name, pooling),
        notes=(f"pooling {pooling}",),
        versions={"transformers": transformers.__version__},
    )
    if not joint:
        return made
    texts = partial(_texts, transformers, folder, model, chosen.prompts)
    return replace(made, texts=texts, extractor=replace(made.extractor, about={"prompts": chosen.prompts}))


class _Joint(nn.Module):
    """The picture's half of CLIP: images (n, 3, S, S) to vectors (n, D) of unit length."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.vision_model, self.visual_projection = model.vision_model, model.visual_projection

    def forward(self, images: Tensor) -> Tensor:
        """Return the projection of the pooler."""
        vectors: Tensor = self.visual_projection(self.vision_model(images).pooler_output)
        return F.normalize(vectors)


def _texts(transformers: Any, folder: Path, model: Any, prompt: str, classes: Sequence[str]) -> NDArray[np.float32]:
    """Return the other half's vectors of the classes' texts times CLIP's scale, (K, D)."""
    # Without its files transformers makes an empty one.
    if not any((folder / file).is_file() for file in ("tokenizer.json", "vocab.json")):
        raise InputError(f"{folder}: no tokenizer there (tokenizer.json or vocab.json), and pooling=joint reads texts")
    with _quiet(transformers):
        tokenizer = _loaded(transformers.AutoTokenizer, folder, "tokenizer")
    texts = [prompt.replace("{label}", label.replace("_", " ")) for label in classes]
    tokens = tokenizer(texts, padding=True, return_tensors="pt")
    length, most = tokens["input_ids"].shape[1], model.config.text_config.max_position_embeddings
    if length > most:
        raise InputError(
            f"the longest text of a class has {length} tokens, and this network reads {most}; shorten prompts"
        )
    with torch.inference_mode():
        pooled = model.text_model(tokens["input_ids"], attention_mask=tokens["attention_mask"]).pooler_output
        vectors = model.logit_scale.exp() * F.normalize(model.text_projection(pooled))
    return np.asarray(vectors.numpy(), dtype=np.float32)


def _folder(where: str) -> Path:
    """Return the folder of a model; that of a name on the hub is in the hub's store."""
    folder = Path(where)
    if folder.exists() or not re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w.-]+)?", where):
        return folder
    import huggingface_hub

    owned, _, revision = where.partition("@")
    try:
        return Path(huggingface_hub.snapshot_download(owned, revision=revision or None, allow_patterns=_FETCHED))
    except Exception as error:
        # The hub's errors have no common parent: no network, no such model, a gated one, no space.
        raise InputError(
            f"hf:{where}: neither a folder nor to be had from the hub ({type(error).__name__}: {one_line(error)}); "
            f"fetch it elsewhere with `hf download {owned}` and give the folder: hf:FOLDER"
        ) from None


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Keep transformers' progress bars and load report off the terminal: what matters of it becomes an error."""
    library = transformers.utils.logging
    level, bars = library.get_verbosity(), library.is_progress_bar_enabled()
    library.set_verbosity(logging.CRITICAL)
    library.disable_progress_bar()
    try:
        yield
    finally:
        library.set_verbosity(level)
        if bars:
            library.enable_progress_bar()


def _loaded(kind: Any, folder: Path, what: str) -> Any:
    try:
        return kind.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise ConfigError(
            f"hf:{folder}: its {what} can't be loaded ({type(error).__name__}: {one_line(error)})"
        ) from None


def _spec(processor: Any) -> InputSpec:
    """Return the processor's input: its side after the crop, its normalisation, its filter."""
    if processor is None:
        return InputSpec()
    cropped = processor.crop_size if getattr(processor, "do_center_crop", False) else None
    sides = [(sizes or {}).get(key) for sizes in (cropped, processor.size) for key in ("height", "shortest_edge")]
    side = next((value for value in sides if value), InputSpec().size)
    names = {number.value: name for name, number in INTERPOLATIONS.items()}
    normalise = getattr(processor, "do_normalize", True)
    return InputSpec(
        size=int(side),
        mean=tuple(processor.image_mean) if normalise else (0.0, 0.0, 0.0),
        std=tuple(processor.image_std) if normalise else (1.0, 1.0, 1.0),
        interpolation=names.get(int(getattr(processor, "resample", 2)), "bilinear"),
    )


def _choose_pooling(name: str, wanted: str, module: nn.Module, size: int, *, pooler_trained: bool) -> str:
    """Return "pooler", "cls" or "mean"; for "auto" by a look at what the network returns."""
    if wanted == "pooler" and not pooler_trained:
        raise ConfigError(f"{name}: the folder holds no weights of the pooler; choose pooling=cls or pooling=mean")
    if wanted != "auto":
        return wanted
    output = None
    with torch.inference_mode(), suppress(Exception):
        # The backbone's own trial says what is wrong.
        output = module.eval()(torch.zeros(1, 3, size, size))
    if pooler_trained and isinstance(getattr(output, "pooler_output", None), Tensor):
        return "pooler"
    tokens = any(key.endswith(("cls_token", "class_embedding")) for key, _ in module.named_parameters())
    return "cls" if tokens else "mean"


def _pick(name: str, pooling: str, output: Any) -> list[Tensor]:
    """Return the embedding (n, D) of what the network returns."""
    if isinstance(output, Tensor):
        return [output]
    if pooling == "pooler":
        pooled = getattr(output, "pooler_output", None)
        if not isinstance(pooled, Tensor):
            raise ConfigError(f"{name} returns no pooler_output; choose pooling=cls or pooling=mean")
        return [pooled]
    hidden = getattr(output, "last_hidden_state", None)
    if not isinstance(hidden, Tensor) or hidden.ndim not in (3, 4):
        raise ConfigError(f"{name} returns no last_hidden_state of tokens or positions; it isn't an image network")
    if hidden.ndim == 4:
        return [hidden.mean(dim=(2, 3))]
    return [hidden[:, 0] if pooling == "cls" else hidden.mean(dim=1)]
