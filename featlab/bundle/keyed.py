"""Names that can be tested and not read: whose rows a bundle was made of."""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from featlab.cache.names import one_form


@dataclass(frozen=True)
class KeyedNames:
    """Names as HMAC-SHA256 under a key that lies beside them.

    They tell nobody who doesn't know a name. Whoever knows one can test it, and a short one can be guessed.
    """

    key: str
    hashes: tuple[str, ...]  # 64 hex digits each, ascending.

    @classmethod
    def of(cls, names: Iterable[str], key: str) -> Self:
        """Return the hashes of some names."""
        return cls(key, tuple(sorted({_hash(key, name) for name in names})))

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and _hash(self.key, name) in self.hashes

    def __len__(self) -> int:
        return len(self.hashes)


def _hash(key: str, name: str) -> str:
    return hmac.new(key.encode(), one_form(name).encode("utf-8", "surrogatepass"), "sha256").hexdigest()
