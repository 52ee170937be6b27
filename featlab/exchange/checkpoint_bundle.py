"""A bundle out of checkpoints that another program trained: netB and netC, a translator, on the features of a cache."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from featlab.bundle.bundle import Bundle, KeyedNames, bundle_card, write_bundle
from featlab.cache.atomic import atomic_folder, atomic_write_text
from featlab.cache.schema import ExtractorInfo
from featlab.cache.table import FeatureTable
from featlab.config.load import Config
from featlab.errors import BundleError, InputError, closest
from featlab.exchange.checkpoints import Parts
from featlab.methods.registry import get_method, prepare_extras, reads_pairs
from featlab.model.networks import PersonalModel, Projection, SourceHead, as_tensor, head_from_state
from featlab.model.pretrain import make_style_bank, new_translator
from featlab.model.style_bank import SourceRows
from featlab.pairing.pairs import make_pairs

FILES = "checkpoints.json"
"""Name of the file in the bundle's folder that says where it came from."""


@dataclass(frozen=True, eq=False)
class ImportedBundle:
    """A bundle, where it came from, and how well it does on labelled source rows."""

    bundle: Bundle  # The bundle.
    files: Mapping[str, Mapping[str, str]]  # As `Parts.files`.
    rows: int  # Labelled source rows of classes that the checkpoint knows; 0 without a cache.
    accuracy: float  # Share of them that C(B(f)) recognises; NaN without any.
    # The classes in the order under which the checkpoint's outputs would fit these rows much better than in the order
    # that was given; ``None`` when there is none.
    better_order: tuple[str, ...] | None


def import_bundle(
    parts: Parts,
    extractor: ExtractorInfo,
    *,
    classes: Sequence[str] = (),
    neutral: str | None = None,
    source: FeatureTable | None = None,
    cache_digest: str = "",
    methods: Sequence[str] = (),
    seed: int = 0,
) -> ImportedBundle:
    """Put checkpoints into a bundle. Embeddings go into netB as they are: the projection is the identity.

    ``classes`` are named in the order of the checkpoint's outputs; empty takes that of ``source``, rows of the source
    subjects whose neutral rows give the style bank and from which ``methods`` prepare what they carry. The bundle has
    the classes in the order of ``source`` where that has the same ones.
    """
    given = _class_names(parts, classes, source)
    named = neutral if neutral is not None else (source.neutral if source is not None else None)
    if named is None:
        raise InputError(
            "without a cache the neutral class has to be named: --neutral NAME, one of " + ", ".join(given)
        )
    if named not in given:
        raise InputError(
            f"the neutral class {named!r} is none of the checkpoint's: {', '.join(given)}{closest(named, given)}"
        )
    if source is not None and source.dim != parts.dim:
        raise InputError(
            f"netB takes {parts.dim} values, and the cache's embeddings have {source.dim}; name the right cache"
        )
    same = source is not None and set(source.classes) == set(given)
    order = source.classes if source is not None and same else given
    head = _with_rows(parts.head, [given.index(name) for name in order])
    bundle = _bundle(parts, head, extractor, order, named, seed)
    if source is None:
        if methods:
            raise InputError(f"{methods[0]} is prepared from source rows, and there are none; name a --cache")
        return ImportedBundle(bundle, parts.files, 0, float("nan"), None)
    rows = _relabelled(source, order, named)
    accuracy, better = _fit(bundle, rows, given)
    return ImportedBundle(
        _with_source(bundle, rows, cache_digest, methods), parts.files, int((rows.label >= 0).sum()), accuracy, better
    )


def save_imported(folder: Path, imported: ImportedBundle) -> Path:
    """Write the bundle, its card, and the sha256 of each checkpoint (`FILES`), whole or not at all."""
    folder = Path(folder)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise BundleError(f"{folder}: exists; choose another name for the bundle, or delete it")
    with atomic_folder(folder) as draft:
        write_bundle(draft, imported.bundle)
        atomic_write_text(draft / FILES, json.dumps(imported.files, indent=2, ensure_ascii=False) + "\n")
        atomic_write_text(draft / "card.md", _card(imported))
    return folder


def _class_names(parts: Parts, classes: Sequence[str], source: FeatureTable | None) -> tuple[str, ...]:
    names = tuple(classes) or (source.classes if source is not None else ())
    if not names:
        raise InputError(
            f"without a cache the {parts.classes} classes have to be named, in the checkpoint's order: --classes"
        )
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"the class {twice!r} is named twice among {', '.join(names)}")
    if len(names) != parts.classes:
        whose = "named" if classes else "in the cache"
        raise InputError(
            f"netC knows {parts.classes} classes, and {len(names)} are {whose} ({', '.join(names)}); name the "
            "checkpoint's, in its order, with --classes"
        )
    return names


def _with_rows(head: SourceHead, order: list[int]) -> SourceHead:
    """Return the head with the classes of C in another order."""
    state = head.state_dict()
    state |= {name: tensor[order] for name, tensor in state.items() if name.startswith("classifier.")}
    return head_from_state(state)


def _bundle(
    parts: Parts, head: SourceHead, extractor: ExtractorInfo, classes: tuple[str, ...], neutral: str, seed: int
) -> Bundle:
    values = {
        "features.reduce": "none",
        "features.dim": 0,
        "head.bottleneck": head.linear.out_features,
        "pretrain.form": "mlp",
        "pretrain.hidden": parts.translator.first.out_features if parts.translator is not None else 0,
        "pretrain.learn_share": False,
        "pretrain.style_bank": "none",
    }
    config = Config().with_values(values, "checkpoints")
    translator = parts.translator or new_translator(parts.dim, config.pretrain, seed).eval().requires_grad_(False)
    return Bundle(
        projection=Projection(torch.zeros(parts.dim), torch.eye(parts.dim)),
        head=head,
        translator=translator,
        classes=classes,
        neutral=neutral,
        extractor=extractor,
        source_subjects=KeyedNames.of(()),
        config=config,
        seed=seed,
    )


def _relabelled(table: FeatureTable, classes: tuple[str, ...], neutral: str) -> FeatureTable:
    """Return the rows with the bundle's label codes; a label that the checkpoint doesn't know counts as none."""
    codes = [classes.index(name) if name in classes else -1 for name in table.classes]
    # An unknown label is -1, which picks the last of these.
    label = np.array([*codes, -1], dtype=np.int16)[table.label]
    return replace(table, label=label, classes=classes, neutral=neutral, prompts=None)


def _with_source(bundle: Bundle, source: FeatureTable, cache_digest: str, methods: Sequence[str]) -> Bundle:
    if not (source.label == source.neutral_code).any():
        raise InputError(
            f"no row of the {len(source.subject_names_present())} source subjects is labelled {source.neutral!r}, so "
            "there is no style to bank; label them, or leave --cache out for a bundle without a style bank"
        )
    config = bundle.config.with_values({"pretrain.style_bank": "centre"}, "checkpoints")
    people = KeyedNames.of(source.subject_names_present(), cache_digest, bundle.seed)
    bundle = replace(bundle, source_subjects=people, cache_digest=cache_digest, config=config)
    needed = [name for name in methods if get_method(name).needs_extras]
    pairs = make_pairs(source, config.pair, seed=bundle.seed) if reads_pairs(config, needed) else None
    rows = SourceRows.of(source, as_tensor(source.embeddings), pairs)
    bundle = replace(bundle, bank=make_style_bank(rows, bundle.translator, bundle.head))
    # What a method can do without is learnt from source models that are trained here: the checkpoint is another.
    return prepare_extras(bundle, rows, needed)


def _fit(bundle: Bundle, source: FeatureTable, given: tuple[str, ...]) -> tuple[float, tuple[str, ...] | None]:
    """Return the accuracy of C(B(f)) on labelled rows, and the order of classes that fits much better, if one does."""
    from scipy.optimize import linear_sum_assignment

    known = source.label >= 0
    if not known.any():
        return float("nan"), None
    with torch.no_grad():
        logits = PersonalModel(bundle.projection, None, bundle.head)(as_tensor(source.embeddings[known]))
    counts = np.zeros((len(given), len(given)))
    # Rows are the checkpoint's outputs in its own order, columns the names of their labels.
    place: NDArray[np.intp] = np.array([given.index(name) for name in bundle.classes])
    np.add.at(counts, (place[logits.argmax(dim=1).numpy()], place[source.label[known]]), 1)
    accuracy = float(np.trace(counts) / counts.sum())
    _, best = linear_sum_assignment(-counts)
    possible = float(counts[np.arange(len(given)), best].sum() / counts.sum())
    # Two classes at chance differ by a few rows either way; a wrong order shows as much more than that.
    if possible < accuracy + 0.2:
        return accuracy, None
    return accuracy, tuple(given[column] for column in best)


def _card(imported: ImportedBundle) -> str:
    lines = "\n".join(
        f"| {part} | {item['file']} | {item['sha256']} |" for part, item in sorted(imported.files.items())
    )
    return f"""{bundle_card(imported.bundle)}
## Imported

B and C (and T and F, where listed) were trained by another program and imported from these files:

| part | file | sha256 |
|---|---|---|
{lines}
"""
