"""Format 1 of the cache file: its names, its number types, who made the rows, and the digest of its content.

    attributes   featlab_format, format_version, extractor (JSON), classes (JSON), neutral, rows, dim, digest
    datasets     embeddings            float32 or float16 (N, D)
                 landmarks             float32 (N, P, 2), pixels          optional; a row of NaN where no face was found
                 label                 int16 (N), an index into classes; -1 unknown
                 subject, video        int32 (N), indices into subjects and videos
                 frame                 int32 (N)
                 subjects, videos      fixed-length UTF-8 (S), (V), in ascending order
                 subject_offsets       int64 (S + 1): rows subject_offsets[i] up to subject_offsets[i + 1] are subject i
                 paths                 fixed-length UTF-8 (N)              optional
                 faces                 uint8 (N), faces in the image, 255 for more     optional: where they were counted
                 prompts               float32 (K, D), texts of the classes            optional; K of them

Rows ascend by (subject, video, frame), each triple once. Text is fixed-length UTF-8 padded with NUL: it needs no heap
and no object type, so a reader can refuse those outright, and any HDF5 tool shows it.

Older files may also hold `pose` (N, 3) and `layers/<name>/mean` and `/std` (N, C). The digest covers them; nothing else
reads them.
"""

from __future__ import annotations

import hashlib
import html
import json
import math
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

FORMAT: Final = "embedding-cache"
SHARD_FORMAT: Final = "embedding-shard"
FORMAT_VERSION: Final = 1

FORMAT_ATTR: Final = "featlab_format"
VERSION_ATTR: Final = "format_version"

EMBEDDINGS: Final = "embeddings"
LANDMARKS: Final = "landmarks"
LABEL: Final = "label"
SUBJECT: Final = "subject"
VIDEO: Final = "video"
FRAME: Final = "frame"
SUBJECTS: Final = "subjects"
VIDEOS: Final = "videos"
PATHS: Final = "paths"
FACES: Final = "faces"
PROMPTS: Final = "prompts"
SUBJECT_OFFSETS: Final = "subject_offsets"

# Little-endian on every machine: the bytes, and so the digest, do not depend on who wrote them.
CODE_DTYPES: Final[Mapping[str, np.dtype[Any]]] = {
    LABEL: np.dtype("<i2"),
    SUBJECT: np.dtype("<i4"),
    VIDEO: np.dtype("<i4"),
    FRAME: np.dtype("<i4"),
}
OFFSETS_DTYPE: Final = np.dtype("<i8")
COUNT_DTYPE: Final = np.dtype("u1")
FLOAT_DTYPE: Final = np.dtype("<f4")
EMBEDDING_DTYPES: Final[Mapping[str, np.dtype[Any]]] = {"float32": np.dtype("<f4"), "float16": np.dtype("<f2")}

UNKNOWN_LABEL: Final = -1

_ENDS = re.compile(r"^[\s\u200b\u2060\ufeff]+|[\s\u200b\u2060\ufeff]+$")
_FORMULA, _GUARDED = re.compile(r"'*[=+\-@\t\r]"), re.compile(r"'+[=+\-@\t\r]")
_HTML = re.compile(r"[<&](?=[A-Za-z/!?#])")
_NUMBERS = re.compile(r"[+-][\d.,%\s\[\]()–-]*(e[+-]?\d+)?")

# Dtype and shape of one row, by dataset name.
Kinds: TypeAlias = Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]]


@dataclass(frozen=True)
class ExtractorInfo:
    """Who turned pixels into embeddings. Features of two different extractors must never meet."""

    id: str  # The backbone, e.g. "hog", "geometry", "pt2:resnet.pt2".
    weights: str  # sha256 of the weights file, or "none".
    preprocessing: str  # One readable line, e.g. "grey 96x96, 8x8 cells, 2x2 blocks, 9 orientations".
    layers: tuple[str, ...] = ()  # Those whose channel means and deviations are appended to the embedding.
    # Library versions, for the reader's information; neither compared nor part of the fingerprint.
    versions: Mapping[str, str] = field(default_factory=dict, compare=False)
    # Subjects whose images trained the backbone, where it says so; not compared either.
    trained_on: tuple[str, ...] = field(default=(), compare=False)
    # What else is known of the network, e.g. its licence and training sets; not compared either.
    about: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def fingerprint(self) -> str:
        """sha256 (64 hex digits) of the canonical JSON of id, weights, preprocessing and layers."""
        compared = ("id", "weights", "preprocessing", "layers")
        content = {name: value for name, value in self.to_dict().items() if name in compared}
        return hashlib.sha256(canonical_json(content)).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain JSON types; `from_dict` turns it back."""
        content = {name: list(told) if isinstance(told, tuple) else told for name, told in vars(self).items()}
        # Left out when there is nobody or nothing, so that such caches are what they were.
        return {name: told for name, told in content.items() if told or name not in ("trained_on", "about")}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> ExtractorInfo:
        """Return the extractor that `to_dict` described."""
        texts = {key: content[key] for key in ("id", "weights", "preprocessing")}
        layers = content["layers"]
        versions = content["versions"]
        people, about = content.get("trained_on", ()), content.get("about", {})
        mapped = (*versions, *versions.values(), *about, *about.values())
        if not all(isinstance(text, str) for text in (*texts.values(), *layers, *mapped, *people)):
            raise TypeError("every field of an extractor is text")
        return cls(**texts, layers=tuple(layers), versions=dict(versions), trained_on=tuple(people), about=dict(about))


def canonical_json(content: object) -> bytes:
    """Return JSON as UTF-8 with sorted keys and no blanks: equal content, equal bytes."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def parse_json(text: str) -> Any:
    """Return what JSON of somebody else says.

    Raises:
        ValueError: No JSON; also nested too deep, a number that is not finite, a key twice, half of a letter.
    """
    try:
        content = json.loads(text, parse_float=_finite, parse_constant=_finite, object_pairs_hook=_once)
        if "\\ud" in text.lower():
            canonical_json(content)
    except RecursionError:
        raise ValueError("nested too deep") from None
    return content


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text} is no finite number")
    return number


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(found := dict(pairs)) < len(pairs):
        raise ValueError("a key is there twice")
    return found


def first_disorder(
    subject: NDArray[np.integer[Any]], video: NDArray[np.integer[Any]], frame: NDArray[np.integer[Any]]
) -> int | None:
    """Return the first row that does not come strictly after the one before it, or None when all do."""
    same_subject = subject[1:] == subject[:-1]
    same_video = same_subject & (video[1:] == video[:-1])
    ascends = (subject[1:] > subject[:-1]) | (same_subject & (video[1:] > video[:-1]))
    ascends |= same_video & (frame[1:] > frame[:-1])
    return None if ascends.all() else int(np.argmin(ascends)) + 1


class ContentDigest:
    """sha256 of what a cache says, whatever its chunks, compression, shards or time of writing.

    Each dataset is hashed on its own, in row order, as little-endian bytes (text: UTF-8 with a NUL after each), so
    that rows may come in blocks of any size. The digest is the sha256 of the canonical JSON of the header and of
    {dataset: [dtype, shape of a row, sha256]}. `subject_offsets` follows from `subject` and is left out.
    """

    def __init__(
        self,
        extractor: ExtractorInfo,
        classes: tuple[str, ...],
        neutral: str,
        subjects: tuple[str, ...],
        videos: tuple[str, ...],
    ) -> None:
        told = {"trained_on": list(extractor.trained_on), "about": dict(extractor.about)}
        # Left out when there is nobody or nothing, so that the digests of such caches are what they were.
        self._told = {key: value for key, value in told.items() if value}
        self._header: dict[str, Any] = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "extractor": extractor.fingerprint,
            "classes": list(classes),
            "neutral": neutral,
            "subjects": list(subjects),
            "videos": list(videos),
        }
        self._kinds: dict[str, tuple[str, list[int]]] = {}
        self._hashes: dict[str, Any] = {}

    def update(self, name: str, block: NDArray[Any]) -> None:
        """Add the next rows of dataset `name`; text as a bytes array (dtype kind S)."""
        if block.dtype.kind == "S":
            self._hash(name, "utf-8", []).update(b"".join(text + b"\0" for text in block.tolist()))
            return
        little = np.ascontiguousarray(block, dtype=block.dtype.newbyteorder("<"))
        self._hash(name, little.dtype.str, list(block.shape[1:])).update(little.reshape(-1).view(np.uint8))

    def hexdigest(self, *, old: bool = False) -> str:
        """Return 64 hex digits; an ``old`` digest covers only what is compared of the extractor."""
        datasets = {name: [*kind, self._hashes[name].hexdigest()] for name, kind in self._kinds.items()}
        content = {"header": self._header | ({} if old else self._told), "datasets": datasets}
        return hashlib.sha256(canonical_json(content)).hexdigest()

    def fits(self, digest: str) -> bool:
        """Tell whether this is the digest of the content, as it is or as an older featlab took it."""
        return digest in (self.hexdigest(), self.hexdigest(old=True))

    def _hash(self, name: str, dtype: str, row_shape: list[int]) -> Any:
        self._kinds.setdefault(name, (dtype, row_shape))
        return self._hashes.setdefault(name, hashlib.sha256())


def one_form(name: str) -> str:
    """Return a name in Unicode's composed form (NFC), without blanks at its ends."""
    return name.strip() if name.isascii() else _ENDS.sub("", unicodedata.normalize("NFC", name))


def as_cell(value: object) -> object:
    """Return a cell of a csv, with an apostrophe before text that a spreadsheet would take for a formula."""
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) and not _NUMBERS.fullmatch(value) else value


def as_markdown(text: str) -> str:
    """Return text that Markdown shows as it is: no table's border, no emphasis, no link, no HTML."""
    for sign in "\\|*`":
        text = text.replace(sign, f"\\{sign}")
    return _HTML.sub(lambda found: html.escape(found[0]), text.replace("](", "]\\(")).replace("\n", " ")


def from_cell(text: str) -> str:
    """Return the text that `as_cell` made a cell of."""
    return text[1:] if _GUARDED.match(text) else text
