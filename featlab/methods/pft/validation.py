"""Play source subjects as targets, in folds, to learn what a personal model can be trusted with.

For each fold B, C, T and the style bank are made again without the fold's subjects; each of them is then adapted to one
of their neutral clips at a time and scored on their other rows. What comes out are a few numbers for the bundle: no
row of anyone, and nothing of a target.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featlab.bundle.bundle import Bundle
from featlab.methods.pft.closed_form import align_style, bank_centre
from featlab.methods.pft.reliability import Episode, Reliability, clip_statistics, fit_reliability
from featlab.model.head import train_head
from featlab.model.pretrain import SourceRows, pretrain_translator
from featlab.model.style_bank import NeutralClips, StyleBank
from featlab.seeding import torch_generator

FOLDS = 5
CLIPS = 2
"""Neutral clips of a subject that are adapted to, one at a time; more add little."""
LEAST_SUBJECTS = 8
"""Fewer say nothing about the next person."""
LENGTHS = (1, 2, 4, 8, 16)
"""Frames of a clip with which the gain is measured again, to learn how few will do."""


def validate_on_source(source: SourceRows, bundle: Bundle) -> Reliability | None:
    """Adapt to held-out source subjects and summarise how that went.

    The projection is the bundle's own, fitted on all source rows; it sees no label.
    """
    if len(source.clips.subjects) < LEAST_SUBJECTS:
        return None
    folds = _folds(source, bundle.seed)
    episodes: list[Episode] = []
    for held_out in folds:
        rest = ~torch.isin(source.clips.row_subject, held_out) & (source.labels >= 0)
        if len(torch.unique(source.labels[rest])) < 2:
            continue
        model = _fold_model(source, rest, bundle)
        if model is None:
            continue
        for subject in held_out.tolist():
            episodes += _episodes(source, subject, model)
    enough = len({episode.subject for episode in episodes}) >= LEAST_SUBJECTS
    return fit_reliability(episodes) if enough else None


def _folds(source: SourceRows, seed: int) -> list[Tensor]:
    people = len(source.clips.subjects)
    order = torch.randperm(people, generator=torch_generator(seed, "source validation"))
    return [order[fold::FOLDS] for fold in range(min(FOLDS, people))]


def _fold_model(source: SourceRows, rest: Tensor, bundle: Bundle) -> Bundle | None:
    """Make B, C, T and the bank of the rows in ``rest``; nothing where no subject with neutral rows is among them."""
    clips = _clips_of(source.clips, rest)
    if not bool((clips.row_subject >= 0).any()):
        return None
    labels = torch.where(rest, source.labels, torch.full_like(source.labels, -1))
    head = train_head(
        source.features[rest],
        source.labels[rest].numpy().astype(np.int16),
        len(bundle.classes),
        bundle.config.head,
        seed=bundle.seed,
    )
    kept = torch.unique(clips.row_subject[clips.row_subject >= 0])
    means = source.clips.subject_mean()[kept]
    bank = StyleBank(tuple(source.clips.subjects[place] for place in kept.tolist()), {"features": (means, means)})
    rows = replace(source, labels=labels, clips=clips)
    translator = pretrain_translator(rows, head, bundle.config.pretrain, seed=bundle.seed).translator
    return replace(bundle, head=head, translator=translator, bank=bank)


def _clips_of(clips: NeutralClips, rest: Tensor) -> NeutralClips:
    """Return the clips with the subjects outside ``rest`` left out."""
    outside = torch.full_like(clips.row_subject, -1)
    return replace(clips, row_subject=torch.where(rest, clips.row_subject, outside))


def _episodes(source: SourceRows, subject: int, model: Bundle) -> list[Episode]:
    clips = source.clips
    assert model.bank is not None  # made with the fold
    centre = bank_centre(model.bank)
    mine = torch.nonzero((clips.row_subject == subject) & (source.labels >= 0)).squeeze(1)
    found = []
    for clip in clips.clips[subject, : int(clips.count[subject])][:CLIPS].tolist():
        adapt = mine[clips.row_clip[mine] == clip]
        if int(clips.count[subject]) == 1:
            # As the protocol does: half of the only clip is adapted on.
            adapt = adapt[: (len(adapt) + 1) // 2]
        test = mine[~torch.isin(mine, adapt)]
        if not len(test):
            continue
        labels = source.labels[test].numpy()
        lengths = [length for length in LENGTHS if length < len(adapt)]
        with torch.no_grad():
            before = model.head(source.features[test])
            logits = {}
            for length in [*lengths, len(adapt)]:
                part = source.features[adapt[:length]]
                aligned = align_style(part, centre, model.translator, model.head, model.neutral_code)
                logits[length] = model.head(model.translator(source.features[test] + aligned.offset))
        found.append(
            Episode(
                subject=subject,
                logits=logits[len(adapt)],
                source_logits=before,
                labels=source.labels[test],
                before=_macro_f1(labels, before, model),
                after=_macro_f1(labels, logits[len(adapt)], model),
                after_short={length: _macro_f1(labels, logits[length], model) for length in lengths},
                clip=clip_statistics(source.features[adapt], aligned, model),
            )
        )
    return found


def _macro_f1(labels: NDArray[np.int64], logits: Tensor, bundle: Bundle) -> float:
    """Return the mean F1 over the classes that are shown, as an evaluation scores a subject."""
    predicted, classes = logits.argmax(dim=1).numpy(), len(bundle.classes)
    shown, found, right = (
        np.bincount(codes, minlength=classes) for codes in (labels, predicted, labels[labels == predicted])
    )
    f1 = 2.0 * right / np.maximum(shown + found, 1)
    return float(f1[shown > 0].mean())
