"""State dicts for `featlab bundle import`: .pt and the like, and .safetensors."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hostile.parts import Made, pickles, zipped


def of_torch(content: Any, **options: Any) -> bytes:
    """Return what `torch.save` writes."""
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def checkpoints(canary: Path, bomb: int = 2_000_000_000) -> Made:
    """State dicts for `featlab bundle import`, in place of netB."""

    good = {"bottleneck.weight": torch.ones(4, 6), "bottleneck.bias": torch.zeros(4)}
    deep: Any = torch.ones(1)
    for _ in range(90):
        deep = {"x": deep}
    loop: dict[str, Any] = {}
    loop["x"] = loop
    weird: dict[str, Any] = {
        "NaN": good | {"bottleneck.bias": torch.full((4,), torch.nan)},
        "text": good | {"bottleneck.bias": "x"},
        "whole numbers": good | {"bottleneck.bias": torch.ones(4, dtype=torch.int8)},
        "complex numbers": good | {"bottleneck.weight": torch.ones(4, 6, dtype=torch.complex64)},
        "a sparse one": good | {"bottleneck.weight": torch.ones(4, 6).to_sparse()},
        "8 bits": good | {"bottleneck.weight": torch.ones(4, 6).to(torch.float8_e4m3fn)},
        "truth": good | {"bottleneck.weight": torch.ones(4, 6, dtype=torch.bool)},
        "no values": good | {"bottleneck.weight": torch.ones(0, 6)},
        "a number": good | {"bottleneck.weight": torch.tensor(1.0)},
        "a list": [1],
        "deep": deep,
        "a loop": loop,
        "keys of numbers": {1: torch.ones(1)},
        "nothing": {},
        "meta": good | {"bottleneck.bias": torch.zeros(4, device="meta")},
        "a huge view": good | {"bottleneck.weight": torch.ones(1).expand(2**40, 6)},
    }
    for name, content in weird.items():
        yield f"{name}.pt", of_torch(content)
    yield "as it was before 1.6.pth", of_torch({"x": torch.nn.Linear(1, 1)}, _use_new_zipfile_serialization=False)
    content = of_torch(good)
    for size in (1, 20, len(content) // 2, len(content) - 1):
        yield f"the first {size} bytes.ckpt", content[:size]
    rng = np.random.default_rng(0)
    for number in range(12):
        yield f"random {number}.{('pt', 'bin', 'safetensors')[number % 3]}", rng.bytes(10 ** (number // 3 + 1))
    for number, code in enumerate(
        (
            b"\x80\x02" + b"]" * 100_000,
            b"\x80\x02K\x01.",
            b"\x80\x02cos\nsystem\n.",
            b"\x80\xff",
            b"\x80\x02N" + b"2" * 10**6 + b".",
        )
    ):
        yield f"opcodes {number}.pt", code
        yield f"opcodes {number}, zipped.pt", zipped({"a/data.pkl": code, "a/version": b"3\n"}, zipfile.ZIP_STORED)
    for suffix in ("pt", "pth", "ckpt", "bin", "safetensors", "pt2", "pkl"):
        for number, code in enumerate(pickles(canary)):
            yield f"pickle {number}.{suffix}", code
    yield "a bomb.pt", zipped({"a/data.pkl": bytes(bomb), "a/version": b"3\n"})
    tensor = '"bottleneck.%s": {"dtype": "%s", "shape": %s, "data_offsets": %s}'
    bias, ok = tensor % ("bias", "F32", "[4]", "[96, 112]"), tensor % ("weight", "F32", "[4, 6]", "[0, 96]")
    for name, header in {
        "overlap": f"{{{ok}, {bias.replace('[96, 112]', '[80, 96]')}}}",
        "a hole": f"{{{ok}, {bias.replace('[96, 112]', '[200, 216]')}}}",
        "beyond the end": f"{{{ok}, {bias.replace('[96, 112]', '[96, 99999999]')}}}",
        "negative": f"{{{ok.replace('[0,', '[-8,')}, {bias}}}",
        "an unknown type": f"{{{ok.replace('F32', 'F33')}, {bias}}}",
        "a huge shape": f"{{{ok.replace('[4, 6]', '[9999999999999, 6]')}, {bias}}}",
        "a shape that overflows": f"{{{ok.replace('[4, 6]', '[4294967296, 4294967296]')}, {bias}}}",
        "twice": f"{{{ok}, {ok}, {bias}}}",
        "no JSON": "{" * 100,
        "deep": "[" * 100_000,
        "a list": "[]",
        "nothing": "{}",
        "huge numbers": f"{{{ok.replace('96]', '9' * 5000 + ']')}, {bias}}}",
        "NaN": f"{{{ok}, {bias}}}",
        "too few": f"{{{ok}}}",
        "another type": f"{{{ok.replace('F32', 'F64')}, {bias}}}",
    }.items():
        yield f"{name}.safetensors", struct.pack("<Q", len(header)) + header.encode() + b"\xff" * 112
    for size in (2**63, 2**64 - 1, 10**8 + 1, 10**9):
        yield f"a header of {size}.safetensors", struct.pack("<Q", size) + b"{}" * 50
