"""Names that can be tested and not read: whose rows a bundle was made of."""

from __future__ import annotations

import hmac
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from featlab.cache.names import one_form
from featlab.seeding import stable_hash


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
