"""What an exported file says about itself: one JSON text, in each format at the place that it has for such things."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from featlab.bundle import Bundle

__all__ = ["EXPORT_FORMAT", "KEY", "PT2_FILE", "export_facts", "facts_text"]

EXPORT_FORMAT = 1
KEY = "featlab"
"""Key of the text in safetensors' metadata and in ONNX's metadata_props."""
PT2_FILE = "featlab.json"
"""Name of the text among the extra files of a .pt2."""


def export_facts(
    bundle: Bundle, *, subject: str | None, method: str, network: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the facts that go into an exported file, JSON-ready.

    Args:
        bundle: What was adapted.
        subject: The person; ``None`` for the source model.
        method: Registry name of the method that adapted it.
        network: With a backbone, what its images have to be like (``size``, ``mean``, ``std``, ``preprocessing``);
            ``None`` where embeddings go in.
    """
    from featlab import __version__

    return {
        "format": "featlab-export",
        "format_version": EXPORT_FORMAT,
        "featlab": __version__,
        "input": "embeddings" if network is None else "images",
        "outputs": ["logits", "probabilities"],
        "dim": len(bundle.projection.mean),
        "classes": list(bundle.classes),
        "neutral": bundle.neutral,
        "subject": subject,
        "method": method,
        "extractor": bundle.extractor.to_dict() | {"fingerprint": bundle.extractor.fingerprint},
        "seed": bundle.seed,
        **({"images": dict(network)} if network is not None else {}),
    }


def facts_text(facts: Mapping[str, Any]) -> str:
    """Return the facts as JSON text."""
    return json.dumps(facts, ensure_ascii=False, sort_keys=True)
