"""What a bundle says of itself to people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from featlab.cache.names import as_markdown

if TYPE_CHECKING:
    from featlab.bundle.bundle import Bundle


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


def membership_sentence(found: Mapping[str, float]) -> str:
    """Return what `featlab.model.membership` found, for people."""
    if not found:
        return "not measured: too few people, or nobody was held out (pretrain.validation)"
    names = {"centre": "the style bank's centre", "head": "the source model", "single": "the bank's single people"}
    areas = ", ".join(f"{found[name]:.2f} from {words}" for name, words in names.items() if name in found)
    return f"{areas} (0.5 is a guess, 1 a certainty; a third of {found['people']:.0f} people in)"
