"""What hostile files are made of: pickles that run code, archives, arrays with any header, pictures of any size."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

Made = Iterator[tuple[str, bytes]]
"""Names of files, whose endings say how they are read, and what is in them."""


class Payload:
    """What writes a file when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.code = f"open({str(canary)!r}, 'w').close()"

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (self.code,)


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Return a zip archive."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method, compresslevel=1) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def saved(array: Any, **options: Any) -> bytes:
    """Return what `numpy.save` writes."""
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def npy(header: str, content: bytes = bytes(96), version: bytes = b"\x01\x00") -> bytes:
    """Return an ``.npy`` with any header."""
    size = struct.pack("<H" if version == b"\x01\x00" else "<I", len(header) + 1)
    return b"\x93NUMPY" + version + size + header.encode("latin1") + b"\n" + content


def pickles(canary: Path) -> list[bytes]:
    """Return pickles that write the canary, in the forms in which they are found."""
    payload = Payload(canary)
    plain = [pickle.dumps(payload, protocol) for protocol in (0, 2, 4)]
    return [*plain, zipped({"archive/data.pkl": plain[1], "archive/version": b"3\n"}, zipfile.ZIP_STORED)]


def png(size: tuple[int, int], rows: int, chunks: list[tuple[bytes, bytes]] | None = None) -> bytes:
    """Return a grey picture of zeros, with some of its rows and whatever else."""
    packer = zlib.compressobj(9)
    data = (
        b"".join(packer.compress(bytes(size[0] + 1) * min(10**6, rows - at)) for at in range(0, rows, 10**6))
        + packer.flush()
    )
    found = [(b"IHDR", struct.pack(">IIBBBBB", *size, 8, 0, 0, 0, 0)), *(chunks or []), (b"IDAT", data), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(part)) + kind + part + struct.pack(">I", zlib.crc32(kind + part)) for kind, part in found
    )
