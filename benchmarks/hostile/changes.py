"""Changes at random of small valid files: of bytes, of words, of values, of arrays, of datasets."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from hostile.parts import zipped

Random = np.random.Generator
_WORDS = [
    *b"0 -1 1 2 1e999 -1e999 nan NaN Infinity 1e38 0.5 65536 2147483648 1_000 0x7 1,5 -0 1e-999".split(),
    *b", ; ' { } [ ] : = # . / ../ null true false {} [] neutral none None subject label path frame".split(),
    *(b" ", b"\t", b'"', b'""', b"\n", b"\r\n", b"\r", b"\0", b"\\", b"\xef\xbb\xbf", b"\xff", b"\xed\xa0\x80"),
    *"\u202e é e\u0301 ٣ \u2028 <script> =1+1 \x1b[31m".encode().split(b" "),
    *(b"9" * 5000, b"a" * 5000, b"[" * 3000, b'{"a":' * 3000),
]


def bytes_changed(data: bytes, rng: Random) -> bytes:
    """Change, take out, put in, repeat or cut bytes, a few times."""
    content = bytearray(data)
    for _ in range(int(rng.geometric(0.5))):
        at, size = int(rng.integers(len(content) + 1)), int(rng.integers(1, 9))
        match int(rng.integers(6)):
            case 0 if at < len(content):
                content[at] ^= 1 << int(rng.integers(8))
            case 1:
                content[at : at + size] = rng.bytes(size)
            case 2:
                del content[at : at + size * size]
            case 3:
                content[at:at] = content[at : at + 8 * size]
            case 4:
                content[at : at + size] = rng.choice([b"\0", b"\xff", b"\x7f"]) * size
            case 5 if rng.random() < 0.2:
                del content[at:]
    return bytes(content)


def words_changed(data: bytes, rng: Random) -> bytes:
    """Change words, numbers and lines of a text; one time in four, bytes."""
    if rng.random() < 0.25:
        return bytes_changed(data, rng)
    content = data
    for _ in range(int(rng.geometric(0.6))):
        word = _WORDS[int(rng.integers(len(_WORDS)))]
        at = int(rng.integers(len(content) + 1))
        match int(rng.integers(4)):
            case 0:
                content = content[:at] + word + content[at:]
            case 1:
                ends = [
                    place for place in (content.find(mark, at) for mark in (b",", b"\n", b" ", b"]", b"}")) if place > 0
                ]
                content = content[:at] + word + content[min(ends, default=at) :]
            case 2:
                lines = content.splitlines(keepends=True) or [b""]
                rng.shuffle(lines)  # type: ignore[arg-type]
                content = b"".join(lines[: int(rng.integers(1, len(lines) + 1))])
            case 3:
                lines = content.splitlines(keepends=True) or [b""]
                content += lines[int(rng.integers(len(lines)))]
    return content


def tree_changed(data: bytes, rng: Random) -> bytes:
    """Change one value of JSON, or take it out; one time in three, words."""
    if rng.random() < 0.33:
        return words_changed(data, rng)
    content = json.loads(data)
    places: list[tuple[Any, Any]] = []

    def walk(part: Any) -> None:
        for key, value in part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ():
            places.append((part, key))
            walk(value)

    walk(content)
    strange = [
        None,
        True,
        -1,
        0,
        1,
        2**70,
        0.5,
        1e308,
        "",
        "x",
        "\0",
        [],
        {},
        [[]],
        [None],
        {"x": 1},
        "a" * 5000,
        "\ud800",
    ]
    for _ in range(int(rng.geometric(0.6))):
        part, key = places[int(rng.integers(len(places)))]
        if rng.random() < 0.2 and isinstance(part, dict):
            part.pop(key, None)
        elif isinstance(part, dict) or key < len(part):
            part[key] = strange[int(rng.integers(len(strange)))]
    return json.dumps(content).encode()


def members_changed(members: Mapping[str, bytes], rng: Random) -> bytes:
    """Change one member of an archive before it is packed, or the archive."""
    name = list(members)[int(rng.integers(len(members)))]
    if rng.random() < 0.3:
        return bytes_changed(zipped(dict(members)), rng)
    return zipped({**members, name: bytes_changed(members[name], rng)})


def arrays_changed(arrays: Mapping[str, Any], rng: Random) -> bytes:
    """Change values, types and shapes of the arrays of an .npz."""
    changed = {name: strange_array(array, rng) if rng.random() < 0.4 else array for name, array in arrays.items()}
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=True, **changed)
    return buffer.getvalue()


def strange_array(array: Any, rng: Random) -> Any:
    """Return an array with other values, of another type or another shape."""
    dtypes = ["f2", "f4", "f8", "i1", "i2", "i8", "u1", "u8", "?", "c8", "S3", "U3", "O", ">f4", "M8[s]"]
    match int(rng.integers(4)):
        case 0:
            return array.reshape(-1)[: int(rng.integers(array.size + 1))]
        case 1:
            return array[None] if rng.random() < 0.5 else np.concatenate([array, array])
        case 2:
            values = np.array(array)
            if values.dtype.kind in "iuf":
                strange = [np.nan, np.inf, 1e38, -1] if values.dtype.kind == "f" else [-1, 99, 2**15 - 1]
                values.reshape(-1)[int(rng.integers(values.size))] = strange[int(rng.integers(len(strange)))]
            return values
        case _:
            plain = array if array.dtype.kind in "iuf" else np.arange(array.size).reshape(array.shape)
            with np.errstate(all="ignore"):
                return plain.astype(dtypes[int(rng.integers(len(dtypes)))])


def cache_changed(good: Path, rng: Random) -> tuple[Path, Callable[[h5py.File], None]]:
    """Return a cache, and a change of what it says by HDF5's own means, with checksums that fit."""

    def edit(file: h5py.File) -> None:
        names = list(file)
        name = names[int(rng.integers(len(names)))]
        if rng.random() < 0.3:
            attribute = list(file.attrs)[int(rng.integers(len(file.attrs)))]
            told = str(file.attrs[attribute]).encode()
            file.attrs[attribute] = np.bytes_(words_changed(told, rng)[:60_000] or b"x")
            return
        array = strange_array(file[name][()], rng)
        del file[name]
        if array.dtype.kind not in "OUM":
            file.create_dataset(name, data=array)

    return good, edit


def edited(path: Path, content: tuple[Path, Callable[[h5py.File], None]]) -> None:
    """Write what `cache_changed` returned."""
    shutil.copy(content[0], path)
    with h5py.File(path, "r+") as file:
        content[1](file)
