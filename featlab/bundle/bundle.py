"""The model bundle: all that leaves the source site. A folder of safetensors and JSON; nothing in it is executable.

model.safetensors    projection, B, C, T, style bank, and what methods prepared at the source
bundle.json          format version, config, classes, extractor fingerprint, source subjects, what the bank holds
card.md              the same for people
subjects/<id>/       what adapting to one person changed
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from featlab.bundle.files import read_json, read_tensors, write_json, write_tensors
from featlab.cache.atomic import atomic_folder, atomic_write_text
from featlab.cache.schema import ExtractorInfo
from featlab.cache.sums import check_sum
from featlab.config.load import Config, flat_values
from featlab.errors import BundleError
from featlab.model.networks import Projection, SourceHead, Translator, head_from_state
from featlab.model.style_bank import CarriedShare, StyleBank
from featlab.seeding import blank

BUNDLE_FORMAT = 2
_RETIRED = ("objective", "residual", "weight_decay", "noise", "label_smoothing")
"""Options of ``pretrain`` in format 1 that are no more."""
_MODEL, _META, _CARD = "model.safetensors", "bundle.json", "card.md"


@dataclass(frozen=True, eq=False)
class Bundle:
    """A source model that can be adapted to a new person without the source.

    Attributes:
        projection: P, from embeddings to features.
        head: B and C, frozen, in evaluation mode.
        translator: T as pretrained; the identity when it was not.
        share: The carried share of a person's offset at rest.
        classes: K names.
        neutral: One of them.
        extractor: What made the embeddings; a bundle meets no others.
        source_subjects: Whose rows trained it; none of them can be a target.
        config: The resolved configuration.
        seed: Root seed of its training.
        bank: Style bank; ``None`` when it was removed or not made.
        extras: Tensors that a method prepared at the source, by method name.
        declared: What those tensors are, by method name.
        cache_digest: Of the cache that it was trained on.
        history: Mean losses of the pretraining, an entry an epoch.
    """

    projection: Projection
    head: SourceHead
    translator: Translator
    classes: tuple[str, ...]
    neutral: str
    extractor: ExtractorInfo
    source_subjects: tuple[str, ...]
    config: Config
    seed: int
    share: CarriedShare = field(default_factory=CarriedShare)
    bank: StyleBank | None = None
    extras: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    declared: Mapping[str, str] = field(default_factory=dict)
    cache_digest: str = ""
    history: tuple[Mapping[str, float], ...] = ()

    @property
    def neutral_code(self) -> int:
        """The label code of the neutral class."""
        return self.classes.index(self.neutral)

    def check_extractor(self, extractor: ExtractorInfo, where: str) -> None:
        """Raise a BundleError when features were made by another extractor than the bundle's."""
        if extractor.fingerprint != self.extractor.fingerprint:
            raise BundleError(
                f"{where}: its features come from {extractor.id!r} ({extractor.fingerprint[:12]}), but the bundle was "
                f"made for {self.extractor.id!r} ({self.extractor.fingerprint[:12]}); extract with the same backbone, "
                "weights and preprocessing, or train another bundle"
            )


def save_bundle(folder: Path, bundle: Bundle) -> Path:
    """Write a bundle: into a temporary folder, synced, then renamed. An older one at ``folder`` is replaced.

    Args:
        folder: Where.
        bundle: What.

    Returns:
        The folder.

    Raises:
        BundleError: The folder can't be written.
    """
    folder = Path(folder)
    if folder.exists() and not (folder / _META).is_file() and not (folder.is_dir() and not any(folder.iterdir())):
        raise BundleError(f"{folder}: can't be written, what is there is no model bundle; choose another name")
    with atomic_folder(folder, error=BundleError) as draft:
        write_bundle(draft, bundle)
    return folder


def write_bundle(draft: Path, bundle: Bundle) -> None:
    """Write the files of a bundle into the draft of a folder."""
    digest = write_tensors(draft / _MODEL, _tensors(bundle))
    write_json(draft / _META, _meta(bundle) | {"tensors": digest})
    atomic_write_text(draft / _CARD, bundle_card(bundle))


def load_bundle(folder: Path, *, device: str = "cpu") -> Bundle:
    """Read a bundle.

    Args:
        folder: Where it is.
        device: Where its tensors go.

    Raises:
        BundleError: Nothing there, a newer format, damaged or missing files or tensors.
    """
    folder = Path(folder)
    path = folder / _META
    try:
        check_sum(path, BundleError)
        meta = read_json(path)
        version = int(meta["format_version"])
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise BundleError(f"{folder}: no model bundle there ({_META}: {reason}); run featlab pretrain") from error
    except (ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{path}: damaged; run featlab pretrain again") from error
    if version > BUNDLE_FORMAT:
        raise BundleError(f"{path}: format {version} is newer than this featlab's ({BUNDLE_FORMAT}); update featlab")
    tensors = read_tensors(folder / _MODEL, device, digest=meta.get("tensors"))
    try:
        if version == 1:
            meta, tensors = _upgraded(meta, tensors)
        return _assemble(meta, tensors, device)
    except (AttributeError, IndexError, KeyError, TypeError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise BundleError(f"{folder}: damaged or incomplete ({reason}); run featlab pretrain again") from error


def bundle_card(bundle: Bundle) -> str:
    """Return the card of a bundle, in Markdown."""
    trained = sum(parameter.numel() for parameter in bundle.translator.parameters())
    if bundle.bank is None:
        bank = "none: only weights left the source site."
    else:
        layers = ", ".join(f"{name} ({mean.shape[1]})" for name, (mean, _) in bundle.bank.layers.items())
        bank = (
            f"mean and standard deviation of the {bundle.neutral!r} rows of each of {len(bundle.bank.subjects)} source "
            f"subjects, at: {layers}. Statistics, not rows."
        )
    extras = "; ".join(f"`{name}`: {bundle.declared.get(name) or 'tensors'}" for name in sorted(bundle.extras))
    return f"""# featlab model bundle

Recognises {", ".join(bundle.classes)} from embeddings of one face, and can be adapted to a new person from a short
{bundle.neutral} clip, without labels and without the rows it was trained on.

| | |
|---|---|
| extractor | {bundle.extractor.id}: {bundle.extractor.preprocessing} |
| source subjects | {len(bundle.source_subjects)}, named in bundle.json, so that none of them can become a target |
| features | {" embedding values → ".join(map(str, bundle.projection.components.shape))} |
| translator | {trained:,} parameters |
| carried share | {bundle.share.sentence()} |
| style bank | {bank} |
| prepared by methods at the source | {extras or "nothing"} |
| cache digest | {bundle.cache_digest} |
| seed | {bundle.seed} |

Statistics that left the source site are those of the two rows "style bank" and "prepared by methods". Remove the bank
with `--set pretrain.style_bank=false`.

Not for decisions about a person's health, employment or education. Results on people unlike the source subjects are
not known until they are measured.
"""


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
        "extractor": bundle.extractor.to_dict() | {"fingerprint": bundle.extractor.fingerprint},
        "source_subjects": list(bundle.source_subjects),
        "bank_subjects": list(bundle.bank.subjects) if bundle.bank else None,
        "extras": sorted(bundle.extras),
        "declared": dict(bundle.declared),
        "cache_digest": bundle.cache_digest,
        "seed": bundle.seed,
        "config": bundle.config.to_dict(),
        "carried_share": asdict(bundle.share),
        "translator": {"hidden": bundle.translator.first.out_features, "residual": bundle.translator.residual},
        "history": [dict(entry) for entry in bundle.history],
    }


def _assemble(meta: Mapping[str, Any], tensors: Mapping[str, Tensor], device: str) -> Bundle:
    def under(prefix: str) -> dict[str, Tensor]:
        return {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}

    dim = tensors["projection.components"].shape[1]
    projection = Projection(tensors["projection.mean"], tensors["projection.components"])
    head = head_from_state(under("head.")).to(device)
    hidden, residual = int(meta["translator"]["hidden"]), bool(meta["translator"]["residual"])
    translator = blank(lambda: Translator(dim, hidden, residual=residual))
    translator.to(device).load_state_dict(under("translator."))
    bank = None
    if meta["bank_subjects"] is not None:
        names = {name.removeprefix("bank.").rpartition(".")[0] for name in tensors if name.startswith("bank.")}
        layers = {name: (tensors[f"bank.{name}.mean"], tensors[f"bank.{name}.std"]) for name in sorted(names)}
        bank = StyleBank(tuple(meta["bank_subjects"]), layers)
    _check_consistent(meta, projection, bank, head)
    share = meta["carried_share"]
    extractor = {key: value for key, value in meta["extractor"].items() if key != "fingerprint"}
    return Bundle(
        projection=projection,
        head=head,
        translator=translator.eval().requires_grad_(False),
        classes=tuple(meta["classes"]),
        neutral=str(meta["neutral"]),
        extractor=ExtractorInfo.from_dict(extractor),
        source_subjects=tuple(meta["source_subjects"]),
        config=Config().with_values(flat_values(meta["config"]), _META),
        seed=int(meta["seed"]),
        share=CarriedShare(float(share["value"]), int(share["people"]), tuple(map(float, share["losses"]))),
        bank=bank,
        extras={name: under(f"extras.{name}.") for name in meta["extras"]},
        # Older bundles lack it.
        declared={str(name): str(words) for name, words in meta.get("declared", {}).items()},
        cache_digest=str(meta["cache_digest"]),
        history=tuple(meta["history"]),
    )


def _upgraded(meta: dict[str, Any], tensors: dict[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return what a bundle of format 1 holds as format 2 says it: no carried share, one T, no people counted."""
    pretrain = {name: value for name, value in meta["config"]["pretrain"].items() if name not in _RETIRED}
    pretrain["learn_share"] = False
    config = meta["config"] | {"pretrain": pretrain}
    own = f"extras.pft.{pretrain['form']}."
    renamed = {name.replace("extras.pft.", own): tensor for name, tensor in tensors.items()}
    if "pft" in meta["extras"]:
        renamed |= {f"{own}people": torch.tensor(0), f"{own}mean_gain": torch.zeros(3)}
    return meta | {"config": config, "carried_share": asdict(CarriedShare())}, renamed


def _check_consistent(
    meta: Mapping[str, Any], projection: Projection, bank: StyleBank | None, head: SourceHead
) -> None:
    dim, width = projection.components.shape[1], head.linear.out_features
    if (head.linear.in_features, len(head.classifier.bias)) != (dim, len(meta["classes"])):
        raise ValueError(f"the head doesn't fit {dim} features and {len(meta['classes'])} classes")
    if meta["neutral"] not in meta["classes"]:
        raise ValueError(f"neutral {meta['neutral']!r} is not one of the classes")
    if projection.mean.shape != projection.components.shape[:1]:
        raise ValueError("projection.mean does not fit projection.components")
    if bank is None:
        return
    for layer, columns in (("features", dim), ("embedding", dim), ("bottleneck", width)):
        for statistic in bank.layers[layer]:
            if statistic.shape != (len(bank.subjects), columns):
                raise ValueError(f"style bank: {layer} has shape {tuple(statistic.shape)}")
