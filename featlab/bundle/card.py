"""The card of a bundle: what it is, what it holds of the source people, what it is not for."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from featlab.bundle.bundle import Bundle


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
