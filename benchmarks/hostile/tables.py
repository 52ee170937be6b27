"""Features for `featlab import`: .csv, .tsv, .npy, .npz and .parquet."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as arrow
from pyarrow import parquet

from hostile.parts import Made, npy, pickles, saved, zipped


def tables(canary: Path, bomb: int = 2_000_000_000) -> Made:
    """Features for `featlab import`; the bombs are of so many bytes, and nearly nothing when packed."""
    head = "{'descr': '<f4', 'fortran_order': False, 'shape': %s}"
    index = {"subject": saved(np.array(["a", "b"])), "label": saved(np.array(["neutral", "x"]))}
    good = saved(np.ones((2, 3), dtype=np.float32))
    for shape in (
        "(-1, 3)",
        "(2, -3)",
        "(8, 10**9)",
        "(1000000000000, 3)",
        "()",
        "(24,)",
        "(2, 3, 4)",
        "(True, 3)",
        "2",
    ):
        yield f"shape {shape}.npy", npy(head % shape)
        yield (
            f"shape {shape}.npz",
            zipped({**{f"{name}.npy": data for name, data in index.items()}, "X.npy": npy(head % shape)}),
        )
    for kind in ("|O", "<m8", "<M8[s]", "|V8", "<c8", "|S4", "<U2", "|b1", ">f4", "<f16", "x", "<f4, <f4"):
        yield f"type {kind.replace('/', '')}.npy", npy(head.replace("<f4", kind) % "(2, 3)")
    for name, header in {
        "nested": "(" * 5000,
        "a call": "__import__('os').system('true')",
        "empty": "",
        "a list": "[1]",
        "huge number": head % ("(" + "9" * 5000 + ", 3)"),
        "long": head % "(2, 3)" + " " * 60000,
    }.items():
        yield f"{name} in the header.npy", npy(header)
        yield f"{name} in the header.npz", zipped({"X.npy": npy(header), "subject.npy": index["subject"]})
    yield "a version of the future.npy", npy(head % "(2, 3)", version=b"\x09\x00")
    yield "cut.npy", good[:-5]
    yield "objects.npy", saved(np.array([["a", None]], dtype=object))
    yield "objects.npz", zipped({"X.npy": good, "subject.npy": saved(np.array(["a", None], dtype=object))})
    zeros = npy(head % f"({bomb // 40}, 10)", bytes(bomb))
    yield "a bomb.npz", zipped({"X.npy": zeros, "subject.npy": index["subject"]})
    yield (
        "a bomb beside the features.npz",
        zipped({"X.npy": good, "y.npy": zeros, **{f"{n}.npy": d for n, d in index.items()}}),
    )
    for name in ("../X.npy", "/X.npy", "X", "X.npy/", "X.npy\0.npy", "C:X.npy"):
        yield (
            f"a member {len(name)} letters, {name[:1]!r}.npz".replace("/", "slash"),
            zipped({name: good, "subject.npy": index["subject"]}),
        )
    yield "a member that is no array.npz", zipped({"X.npy": b"hello", "subject.npy": index["subject"]})
    yield "a zip in it.npz", zipped({"X.npy": zipped({"X.npy": good}), "subject.npy": index["subject"]})
    yield "nothing in it.npz", zipped({})
    content = zipped({"X.npy": good, "subject.npy": index["subject"]}, zipfile.ZIP_STORED)
    yield "cut.npz", content[:-30]
    yield "a changed byte.npz", content.replace(b"\x00\x00\x80?", b"\x00\x00\x80@", 1)
    yield "NaN.npz", zipped({"X.npy": saved(np.full((2, 3), np.nan)), **{f"{n}.npy": d for n, d in index.items()}})
    many = np.arange(40_000)
    labels = np.where(many == 0, "neutral", many.astype("U5"))
    yield (
        "40,000 labels.npz",
        zipped({"X.npy": saved(np.ones((40_000, 1))), "subject.npy": saved(many % 2), "label.npy": saved(labels)}),
    )
    row = b"s,neutral,v,%d,1,2\n"
    lines = b"subject,label,video,frame,a,b\n" + b"".join(row % frame for frame in range(3))
    for name, text in {
        "a NUL": lines + b"s,\0,v,9,1,2\n",
        "latin 1": lines + "é,x,v,9,1,2\n".encode("latin1"),
        "UTF-16": lines.decode().encode("utf-16"),
        "a mark in the middle": lines + b"\xef\xbb\xbfs,x,v,9,1,2\n\xff",
        "an open quote": lines + b'"s,x,v,9,1,2\n',
        "a short row": lines + b"s,x\n",
        "columns twice": lines.replace(b"a,b", b"a,a"),
        "40,000 labels": lines + b"".join(b"s,l%d,v,%d,1,2\n" % (n, n) for n in range(9, 40_009)),
        "no rows": lines[:30],
        "a frame too many": lines + b"s,neutral,v,99999999999,1,2\n",
        "a frame of 5,000 digits": lines + b"s,x,v," + b"9" * 5000 + b",1,2\n",
        "a fraction of a frame": lines + b"s,neutral,v,1.5,1,2\n",
        "the same row": lines + row % 1,
        "an endless number": lines + row.replace(b"1,2", b"1e999,2") % 9,
        "text": lines + row.replace(b"1,2", b"=cmd|x,2") % 9,
        "binary": bytes(range(256)) * 40,
        "one byte": b"\x00",
        "nothing": b"",
        "quotes": b'"' * 100_001,
        "commas": b"," * 100_000 + b"\n" + b"," * 100_000,
        "another number of cells": lines + b"s,neutral,v,9,1\n",
        "an empty subject": lines + b",neutral,v,9,1,2\n",
        "10,000,000 letters in a cell": lines + b"s,x,v,9," + b"1" * 10**7 + b",2\n",
        "no subject": lines.replace(b"subject", b"who"),
    }.items():
        yield f"{name}.csv", text
        yield f"{name}.tsv", text.replace(b",", b"\t")
    for suffix in ("npy", "npz", "csv", "tsv", "parquet", "txt", "pkl"):
        for number, content in enumerate(pickles(canary)):
            yield f"pickle {number}.{suffix}", content
    yield from parquets()


def written(**columns: Any) -> bytes:
    """Return columns as Parquet."""
    sink = io.BytesIO()
    parquet.write_table(arrow.table(columns), sink)
    return sink.getvalue()


def parquets() -> Made:
    """Broken and strange parquet files."""
    good = written(subject=["a", "b"], label=["neutral", "x"], f=[1.0, 2.0])
    end = struct.unpack("<I", good[-8:-4])[0]
    yield "cut.parquet", good[:-9]
    yield "magic alone.parquet", b"PAR1PAR1"
    yield "a footer too long.parquet", good[:-8] + struct.pack("<I", 2**31 - 1) + b"PAR1"
    yield "a footer of zeros.parquet", good[: -8 - end] + bytes(end) + good[-8:]
    yield "pages of 0xff.parquet", good[:4] + b"\xff" * (len(good) - 12 - end) + good[-8 - end :]
    yield "NaN.parquet", written(subject=["a", "b"], label=["neutral", "x"], f=[float("nan"), 1.0])
    yield "structs.parquet", written(subject=["a", "b"], f=[{"x": 1}, {"x": 2}])
    yield "bytes.parquet", written(subject=[b"\xff", b"\xfe"], f=[1.0, 2.0])
    yield "dates.parquet", written(subject=np.array(["2020-01-01", "nat"], dtype="M8[D]"), f=[1.0, 2.0])
    yield "lists of two lengths.parquet", written(subject=["a", "b"], f=[[1.0], [1.0, 2.0]])
    yield (
        "40,000 labels.parquet",
        written(subject=["a"] * 40_000, label=["neutral", *map(str, range(39_999))], f=[1.0] * 40_000),
    )
