"""Files of a bundle, its stages and its adaptations: tensors and JSON, each with a digest of what it holds; the card.

A digest finds damage and files that don't belong together. It is no signature: whoever changes a file on purpose can
change its digest too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featlab.cache.atomic import atomic_write_bytes, atomic_write_text
from featlab.cache.names import as_markdown
from featlab.cache.schema import canonical_json, parse_json
from featlab.errors import BundleError, one_line

if TYPE_CHECKING:
    from featlab.bundle.bundle import Bundle

_DIGEST, _ABOUT, _TENSORS, _FORMAT = "digest", "about", "tensors", "tensors_format"
TENSORS_FORMAT = 1


def write_tensors(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any] = MappingProxyType({})) -> str:
    """Write tensors as safetensors, whole or not at all; return their digest.

    It is in the file's metadata, with what is said ``about`` them, as JSON with a digest of its own.
    """
    from safetensors.numpy import save

    # safetensors wants memory that nothing else has, and each row behind the other.
    arrays = {name: np.array(tensor.detach().cpu().numpy(), order="C") for name, tensor in tensors.items()}
    digest = _digest(arrays)
    told = {**about, _TENSORS: digest, _FORMAT: TENSORS_FORMAT}
    # One entry: of several, safetensors shuffles the order.
    atomic_write_bytes(path, save(arrays, metadata={_ABOUT: _with_digest(told, None)}))
    return digest


def read_tensors(
    path: Path, device: str = "cpu", *, digest: str | None = None, finite: bool = True
) -> dict[str, Tensor]:
    """Read safetensors onto a device; refuse NaN and infinity (if ``finite``), and what isn't what was written.

    ``digest`` is what `write_tensors` returned, where it is known from elsewhere. Files of an older featlab have none.

    Raises:
        BundleError: A missing or damaged file, a NaN or infinity in it, or other tensors than were written.
    """
    try:
        about, tensors = open_tensors(path)
    except (OSError, TypeError, ValueError) as error:
        raise BundleError(f"{path}: can't be read ({one_line(error)})") from error
    check_tensors(path, about or {}, tensors, digest, finite)
    return {name: tensor.to(device) for name, tensor in tensors.items()}


def open_tensors(path: Path) -> tuple[dict[str, Any] | None, dict[str, Tensor]]:
    """Read what `write_tensors` says about the tensors (an older featlab said nothing), and the tensors, unchecked.

    Raises:
        OSError: It isn't there.
        ValueError: A damaged file, or one of a newer format.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(_ABOUT)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    about = None if text is None else _checked(text, always=True)
    if about and about.get(_FORMAT, 0) > TENSORS_FORMAT:
        raise ValueError(f"its format {about[_FORMAT]} is newer than this featlab's; update featlab")
    return about, tensors


def check_tensors(
    path: Path, about: Mapping[str, Any], tensors: Mapping[str, Tensor], digest: str | None = None, finite: bool = True
) -> None:
    """Refuse what `open_tensors` gave, as `read_tensors` does."""
    for name, tensor in tensors.items():
        if finite and tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise BundleError(f"{path}: tensor {name!r} holds NaN or infinity")
    wanted = [each for each in (about.get(_TENSORS), digest) if each is not None]
    if wanted and wanted != [_digest({name: each.numpy() for name, each in tensors.items()})] * len(wanted):
        raise BundleError(f"{path}: its content is not what was written (damaged, or of another run)")


def write_json(path: Path, content: Mapping[str, Any], *, indent: int | None = 2) -> None:
    """Write JSON with its digest, whole or not at all; on one line without an ``indent``."""
    atomic_write_text(path, _with_digest(content, indent) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read what `write_json` wrote, without the digest. Files of an older featlab have none.

    Raises:
        OSError: It isn't there.
        ValueError: No JSON object, or its digest doesn't fit.
    """
    return _checked(path.read_text(encoding="utf-8"))


def check_own_digest(path: Path) -> bool:
    """Check tensors, or JSON, against the digest in the file; return whether there is one.

    Raises:
        OSError: It can't be read.
        ValueError: It is damaged, in one line.
    """
    if path.suffix == ".safetensors":
        about, tensors = open_tensors(path)
        check_tensors(path, about or {}, tensors, finite=False)
        return about is not None
    text = path.read_text("utf-8") if path.suffix in (".json", ".jsonl") else ""
    # Several lines are a table of results.
    if not text or (path.suffix == ".jsonl" and text.count("\n") > 1):
        return False
    content = parse_json(text)
    return isinstance(content, dict) and _DIGEST in content and bool(_checked(text))


def _with_digest(content: Mapping[str, Any], indent: int | None) -> str:
    # As a reader gets it: tuples are lists there, and every key is text.
    plain = json.loads(json.dumps(content))
    return json.dumps({**plain, _DIGEST: _json_digest(plain)}, indent=indent, ensure_ascii=False)


def _checked(text: str, *, always: bool = False) -> dict[str, Any]:
    content = parse_json(text)
    if not isinstance(content, dict):
        raise ValueError("no JSON object")
    digest = content.pop(_DIGEST, None)
    if (always or digest is not None) and digest != _json_digest(content):
        raise ValueError("its digest doesn't fit")
    return content


def _digest(arrays: Mapping[str, NDArray[Any]]) -> str:
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name}\0{array.dtype.str}\0{array.shape}\0".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _json_digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical_json(content)).hexdigest()


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
    """Return what `featlab.model.style_bank` found, for people."""
    if not found:
        return "not measured: too few people, or nobody was held out (pretrain.validation)"
    names = {"centre": "the style bank's centre", "head": "the source model", "single": "the bank's single people"}
    areas = ", ".join(f"{found[name]:.2f} from {words}" for name, words in names.items() if name in found)
    return f"{areas} (0.5 is a guess, 1 a certainty; a third of {found['people']:.0f} people in)"
