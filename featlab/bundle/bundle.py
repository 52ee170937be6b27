"""The model bundle: all that leaves the source site. A folder of safetensors and JSON; nothing in it is executable.

model.safetensors    projection, B, C, T, style bank, and what methods prepared at the source
bundle.json          format version, config, classes, extractor fingerprint, hashes of the source people's names
card.md              the same for people
subjects/<id>/       what adapting to one person changed
"""

from __future__ import annotations

import hmac
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from featlab.bundle.files import read_json, read_tensors, write_json, write_tensors
from featlab.cache.atomic import atomic_folder, atomic_write_text, check_sum
from featlab.cache.schema import ExtractorInfo, as_markdown, one_form
from featlab.compute import stable_hash
from featlab.config.load import Config, flat_values
from featlab.errors import BundleError, one_line
from featlab.model.networks import Projection, SourceHead, Translator, head_from_state, head_map, translator_from_state
from featlab.model.style_bank import LAYERS, CarriedShare, StyleBank, membership_sentence
from featlab.protocol.splits import check_disjoint

BUNDLE_FORMAT = 3
_MADE_BY = ("features", "head", "pair", "pretrain")
"""Sections of the configuration that make a bundle. The others name people and files, and stay at home."""
BUNDLE_FILES = _MODEL, _META, _CARD = "model.safetensors", "bundle.json", "card.md"


@dataclass(frozen=True)
class KeyedNames:
    """Names as HMAC-SHA256 under a key that lies beside them: whoever knows one can test it, and guess a short one."""

    key: str
    hashes: tuple[str, ...]  # 64 hex digits each, ascending.

    @classmethod
    def of(cls, names: Iterable[str], *made_of: object) -> Self:
        """Return the hashes of some names, under a key that depends on what was made of their rows."""
        key = stable_hash("source people", *made_of)[:32]
        return cls(key, tuple(sorted({_hash(key, name) for name in names})))

    def __contains__(self, name: str) -> bool:
        wanted = _hash(self.key, name)
        place = bisect_left(self.hashes, wanted)
        return self.hashes[place : place + 1] == (wanted,)

    def __len__(self) -> int:
        return len(self.hashes)


def _hash(key: str, name: str) -> str:
    return hmac.new(key.encode(), one_form(name).encode("utf-8", "surrogatepass"), "sha256").hexdigest()


@dataclass(frozen=True, eq=False)
class Bundle:
    """A source model that can be adapted to a new person without the source."""

    projection: Projection  # P, from embeddings to features.
    head: SourceHead  # B and C, frozen, in evaluation mode.
    translator: Translator  # T as pretrained; the identity when it was not.
    classes: tuple[str, ...]  # K names.
    neutral: str  # One of them.
    extractor: ExtractorInfo  # What made the embeddings; a bundle meets no others.
    source_subjects: KeyedNames  # Whose rows trained it; none of them can be a target.
    config: Config  # The resolved configuration; `_MADE_BY` are written.
    seed: int  # Root seed of its training.
    share: CarriedShare = field(default_factory=CarriedShare)  # Of a person's offset at rest.
    bank: StyleBank | None = None  # ``None`` when it was removed or not made.
    # Tensors that a method prepared at the source, by method name, and what they are.
    extras: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    declared: Mapping[str, str] = field(default_factory=dict)
    cache_digest: str = ""  # Of the cache that it was trained on.
    history: tuple[Mapping[str, float], ...] = ()  # Mean losses of the pretraining, an entry an epoch.
    membership: Mapping[str, float] = field(default_factory=dict)  # What `membership_test` told; empty where nothing.

    @property
    def neutral_code(self) -> int:
        """The label code of the neutral class."""
        return self.classes.index(self.neutral)

    @torch.no_grad()
    def logits(self, features: Tensor) -> Tensor:
        """Return C(B(T(f))), (n, K), of features (n, D)."""
        kept, hidden, bias = self._behind
        shifted = features + self.translator.offset
        return torch.addmm(bias, shifted, kept).addmm_(torch.relu(self.translator.first(shifted)), hidden)

    @cached_property
    def _behind(self) -> tuple[Tensor, Tensor, Tensor]:
        """Maps (D, K) of what T keeps and (hidden, K) of its hidden layer to logits, and their bias (K,)."""
        last, (weight, bias) = self.translator.last, head_map(self.head)
        hidden, bias = last.weight.cpu().double().T @ weight, bias + last.bias.cpu().double() @ weight
        kept, device = weight if self.translator.residual else torch.zeros_like(weight), last.weight.device
        return kept.float().to(device), hidden.float().to(device), bias.float().to(device)

    def check_new(self, people: Sequence[str]) -> None:
        """Raise an InputError when one of these people is a source subject."""
        check_disjoint([name for name in people if name in self.source_subjects], people)

    def check_extractor(self, extractor: ExtractorInfo, where: str) -> None:
        """Raise a BundleError when features were made by another extractor than the bundle's."""
        if extractor.fingerprint != self.extractor.fingerprint:
            raise BundleError(
                f"{where}: its features come from {extractor.id!r} ({extractor.fingerprint[:12]}), but the bundle was "
                f"made for {self.extractor.id!r} ({self.extractor.fingerprint[:12]}); extract with the same backbone, "
                "weights and preprocessing, or train another bundle"
            )


def save_bundle(folder: Path, bundle: Bundle) -> Path:
    """Write a bundle into a folder, whole or not at all; return it. One that is there is replaced."""
    if folder.exists() and not (folder / _META).is_file() and not (folder.is_dir() and not any(folder.iterdir())):
        raise BundleError(f"{folder}: can't be written, what is there is no model bundle; choose another name")
    with atomic_folder(folder) as draft:
        write_bundle(draft, bundle)
    return folder


def write_bundle(draft: Path, bundle: Bundle) -> None:
    """Write the files of a bundle into the draft of a folder."""
    digest = write_tensors(draft / _MODEL, _tensors(bundle))
    write_json(draft / _META, _meta(bundle) | {"tensors": digest})
    atomic_write_text(draft / _CARD, bundle_card(bundle))


def load_bundle(folder: Path, *, device: str = "cpu") -> Bundle:
    """Read a bundle; its tensors go to the device.

    Raises:
        BundleError: Nothing there, another format, damaged or missing files or tensors.
    """
    path = folder / _META
    try:
        check_sum(path, BundleError)
        meta = read_json(path)
        version = int(meta["format_version"])
    except OSError as error:
        why = f"{_META}: {one_line(error)}"
        raise BundleError(f"{folder}: no model bundle there ({why}); run featlab pretrain") from error
    except (ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{path}: damaged ({one_line(error)}); run featlab pretrain again") from error
    if version > BUNDLE_FORMAT:
        raise BundleError(f"{path}: format {version} is newer than this featlab's ({BUNDLE_FORMAT}); update featlab")
    if version < BUNDLE_FORMAT:
        raise BundleError(f"{path}: format {version} is of a featlab before 0.2.0; run featlab pretrain again")
    try:
        _, tensors = read_tensors(folder / _MODEL, digest=meta.get("tensors"))
        return _assemble(meta, {name: tensor.to(device) for name, tensor in tensors.items()}, device)
    except BundleError:
        raise
    except (AttributeError, LookupError, OSError, TypeError, RuntimeError, ValueError) as error:
        raise BundleError(f"{folder}: damaged or incomplete ({one_line(error)}); run featlab pretrain again") from error


def _tensors(bundle: Bundle) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for part in ("projection", "head", "translator"):
        module: torch.nn.Module = getattr(bundle, part)
        tensors |= {f"{part}.{name}": tensor for name, tensor in module.state_dict().items()}
    if bundle.bank is not None:
        for layer, (mean, std) in bundle.bank.layers.items():
            tensors |= {f"bank.{layer}.mean": mean, f"bank.{layer}.std": std}
    for method, extra in bundle.extras.items():
        tensors |= {f"extras.{method}.{name}": tensor for name, tensor in extra.items()}
    return tensors


def _meta(bundle: Bundle) -> dict[str, Any]:
    from featlab import __version__

    return {
        "format": "featlab-bundle",
        "format_version": BUNDLE_FORMAT,
        "featlab": __version__,
        "classes": list(bundle.classes),
        "neutral": bundle.neutral,
        # Whose images trained the backbone is no matter of a bundle.
        "extractor": replace(bundle.extractor, trained_on=()).to_dict() | {"fingerprint": bundle.extractor.fingerprint},
        "source_subjects": asdict(bundle.source_subjects),
        "bank": {"people": bundle.bank.size} if bundle.bank else None,
        "extras": sorted(bundle.extras),
        "declared": dict(bundle.declared),
        "cache_digest": bundle.cache_digest,
        "seed": bundle.seed,
        "config": {name: part for name, part in bundle.config.to_dict().items() if name in _MADE_BY},
        "carried_share": asdict(bundle.share),
        "translator": {"hidden": bundle.translator.first.out_features, "residual": bundle.translator.residual},
        "history": [dict(entry) for entry in bundle.history],
        "membership": dict(bundle.membership),
    }


def _assemble(meta: Mapping[str, Any], tensors: Mapping[str, Tensor], device: str) -> Bundle:
    def under(prefix: str) -> dict[str, Tensor]:
        return {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}

    projection = Projection(tensors["projection.mean"], tensors["projection.components"])
    head = head_from_state(under("head.")).to(device)
    translator = translator_from_state(under("translator."), residual=bool(meta["translator"]["residual"]))
    bank = None
    if meta["bank"] is not None:
        layers = {name: (tensors[f"bank.{name}.mean"], tensors[f"bank.{name}.std"]) for name in LAYERS}
        bank = StyleBank(layers, int(meta["bank"]["people"]))
    share, people = meta["carried_share"], meta["source_subjects"]
    # An option of 0.2.0 that nothing reads any more.
    config = {key: value for key, value in flat_values(meta["config"]).items() if key != "pretrain.bank_rows"}
    bundle = Bundle(
        projection=projection,
        head=head,
        translator=translator.to(device),
        classes=tuple(meta["classes"]),
        neutral=str(meta["neutral"]),
        extractor=ExtractorInfo.from_dict(meta["extractor"]),
        source_subjects=KeyedNames(str(people["key"]), tuple(sorted(map(str, people["hashes"])))),
        config=Config().with_values(config, _META),
        seed=int(meta["seed"]),
        share=CarriedShare(float(share["value"]), int(share["people"]), tuple(map(float, share["losses"]))),
        bank=bank,
        extras={name: under(f"extras.{name}.") for name in meta["extras"]},
        declared={str(name): str(words) for name, words in meta["declared"].items()},
        cache_digest=str(meta["cache_digest"]),
        history=tuple(meta["history"]),
        membership={str(name): float(value) for name, value in meta["membership"].items()},
    )
    _check_consistent(bundle)
    return bundle


def _check_consistent(bundle: Bundle) -> None:
    projection, head, bank = bundle.projection, bundle.head, bundle.bank
    (_, dim), width = projection.components.shape, head.linear.out_features
    shapes = [
        ("head", (head.linear.in_features, len(head.classifier.bias)), (dim, len(bundle.classes))),
        ("translator", bundle.translator.offset.shape, (dim,)),
        ("projection.mean", projection.mean.shape, projection.components.shape[:1]),
    ]
    if bank is not None:
        for layer, columns in zip(LAYERS, (dim, dim, width), strict=True):
            shapes += [(f"style bank: {layer}", statistic.shape, (columns,)) for statistic in bank.layers[layer]]
    for name, shape, wanted in shapes:
        if tuple(shape) != tuple(wanted):
            raise ValueError(f"{name} has shape {tuple(shape)}, not {tuple(wanted)}")
    if bundle.neutral not in bundle.classes:
        raise ValueError(f"neutral {bundle.neutral!r} is not one of the classes")


def bundle_card(bundle: Bundle) -> str:
    """Return the card of a bundle, in Markdown."""
    trained = sum(parameter.numel() for parameter in bundle.translator.parameters())
    bank = "none: only weights left the source site."
    made_by = f"{bundle.extractor.id}: {bundle.extractor.preprocessing}"
    classes, neutral, made_by = map(as_markdown, (", ".join(bundle.classes), bundle.neutral, made_by))
    if bundle.bank is not None:
        layers = ", ".join(f"{name} ({len(mean)})" for name, (mean, _) in bundle.bank.layers.items())
        bank = f"{bundle.bank.sentence()}, of their {neutral!r} rows, at: {layers}. No row of anyone."
    keyed = "bundle.json holds hashes, so that none of them can become a target; who knows a name can test it"
    carried = {name: as_markdown(bundle.declared.get(name) or "tensors") for name in sorted(bundle.extras)}
    extras = "; ".join(f"`{name}`: {words}" for name, words in carried.items())
    return f"""# featlab model bundle

Recognises {classes} from embeddings of one face, and can be adapted to a new person from a short
{neutral} clip, without labels and without the rows it was trained on.

| | |
|---|---|
| extractor | {made_by} |
| source people | {len(bundle.source_subjects)}, not named: {keyed} |
| features | {" embedding values → ".join(map(str, bundle.projection.components.shape))} |
| translator | {trained:,} parameters |
| carried share | {bundle.share.sentence()} |
| style bank | {bank} |
| prepared by methods at the source | {extras or "nothing"} |
| membership test | {membership_sentence(bundle.membership)} |
| cache digest | {bundle.cache_digest} |
| seed | {bundle.seed} |

Statistics that left the source site are those of the two rows "style bank" and "prepared by methods". Remove the bank
with `--set pretrain.style_bank=none`. The membership test tells how well somebody who has another clip of a person can
say whether this person was a source person.

Not for decisions about a person's health, employment or education. Results on people unlike the source subjects are
not known until they are measured.
"""
