"""Texts: manifests, featlab.toml, the JSON of bundles and lists."""

from __future__ import annotations

import json
from pathlib import Path

from hostile.parts import Made, pickles, png


def manifests(folder: Path, many: int = 10**5) -> Made:
    """Lists of pictures; those of a good one are ``a/1.png``, ``a/2.png`` and ``b/1.png`` beside it."""
    head = b"path,subject,label,video,frame\n"
    good = head + b"a/1.png,a,neutral,v,0\na/2.png,a,smile,v,1\nb/1.png,b,neutral,v,0\n"
    (folder / "link.png").symlink_to("/etc/passwd")
    for path in (
        *(
            "../" * 30 + "etc/passwd",
            "/etc/passwd",
            "/dev/zero",
            "/dev/stdin",
            "/proc/self/mem",
            "/proc/kcore",
            "link.png",
        ),
        *(
            "a",
            ".",
            "..",
            "~/x.png",
            "http://localhost/x.png",
            "file:///etc/passwd",
            "a/1.png/",
            "|touch x",
            "a" * 5000,
        ),
        *(
            "9" * 5000 + ".png",
            "a/" * 3000 + "1.png",
            "C:\\x.png",
            "\\\\server\\x.png",
            "con.png",
            "-",
            "--help",
            "a/1.png#row=1",
        ),
    ):
        yield f"path {path[:30]}", good + f'"{path}",a,smile,w,7\n'.encode()
        yield f"only {path[:30]}", head + f'"{path}",a,neutral,w,7\n'.encode()
    for name, row in {
        "NUL": b"a/2.png\0,a,x,v,9",
        "UTF-8 cut": b"a/2.png,\xe4\xb8,x,v,9",
        "latin 1": b"a/2.png,\xe9,x,v,9",
        "a mark": b"\xef\xbb\xbfa/2.png,a,x,v,9",
        "a quote": b'a/2.png,"a,x,v,9',
        "a line": b'a/2.png,"a\nb",x,v,9',
        "a return": b'a/2.png,"a\rb",x,v,9',
        "an escape": b"a/2.png,\x1b[31ma,x,v,9",
        "a frame of 5,000 digits": b"a/2.png,a,x,v," + b"9" * 5000,
        "a frame below 0": b"a/2.png,a,x,v,-1",
        "a frame that is none": b"a/2.png,a,x,v,nan",
        "digits of another script": "a/2.png,a,x,v,٣".encode(),
        "10,000,000 letters": b"a/2.png," + b"a" * 10**7 + b",x,v,9",
        "a label of 10,000,000": b"a/2.png,a," + b"x" * 10**7 + b",v,9",
        "no cells": b"",
        "blanks": b" , , , , ",
        "the same again": b"a/1.png,a,neutral,v,0",
        "right to left": "a/2.png,a\u202e,x,v,9".encode(),
        "an unpaired half": b"a/2.png,\xed\xa0\x80,x,v,9",
        "many cells": b"a/2.png" + b"," * 10**5,
    }.items():
        yield name, good + row + b"\n"
    yield (
        f"{many:,} columns",
        head[:-1] + b"".join(b",c%d" % n for n in range(many)) + b"\n" + b"a/1.png,a,neutral,v,0" + b"," * many + b"\n",
    )
    yield (
        "40,000 labels",
        head + b"".join(b"a/1.png,a,%s,v,%d\n" % (b"l%d" % n if n else b"neutral", n) for n in range(40_000)),
    )
    yield "UTF-16", good.decode().encode("utf-16")
    yield "UTF-32", good.decode().encode("utf-32")
    yield "columns twice", good.replace(b"video", b"path")
    yield "old line ends", good.replace(b"\n", b"\r")
    yield "no line ends", good.replace(b"\n", b"")
    yield "a head alone", head
    yield "nothing", b""
    yield "a picture", png((40, 40), 40)
    for number, code in enumerate(pickles(folder / "canary")):
        yield f"pickle {number}", code


def settings() -> Made:
    """What calls itself featlab.toml."""
    yield "deep lists", b"head.lr = " + b"[" * 20_000
    yield "deep tables", b"head.lr = " + b"{a=" * 20_000
    yield "a deep key", b"[" + b".".join([b"a"] * 20_000) + b"]"
    yield "a huge number", b"[head]\nepochs = " + b"9" * 5000
    yield "a huge power", b"[head]\nlr = 1e99999"
    for value in ("nan", "inf", "-1", '""', "[]", "{}", "true", "1979-05-27", "'''x'''", '"\\u0000"'):
        yield f"head.epochs {value[:4]!r}", f"[head]\nepochs = {value}".encode()
        yield f"head.lr {value[:4]!r}", f"[head]\nlr = {value}".encode()
    yield from {
        "a NUL": b"\0",
        "latin 1": b"cache = '\xe9'",
        "twice": b"cache = 'a'\ncache = 'b'",
        "an unknown section": b"[x]",
        "an unknown key": b"[head]\nx = 1",
        "binary": bytes(range(256)),
        "a section for a file": b"[cache]\na = 1",
        "a file for a section": b"head = 1",
        "10 MB": b"# " + b"x" * 10**7 + b"\n?",
    }.items()


def descriptions(canary: Path) -> Made:
    """JSON in place of a bundle's own, of a list of failures, of who made features."""
    yield "deep", b"[" * 100_000
    yield "deep objects", b'{"a":' * 100_000
    for name, content in {
        "a list": [],
        "a number": 1,
        "null": None,
        "text": "x",
        "format": {"format_version": float("inf")},
        "old": {"format_version": -1},
        "new": {"format_version": 99},
        "nothing": {"format_version": 2},
        "a list for a version": {"format_version": [2]},
    }.items():
        yield name, json.dumps(content).encode()
    yield "twice", b'{"format_version": 2, "format_version": 99}'
    yield "a huge number", b'{"format_version": ' + b"9" * 5000 + b"}"
    yield "latin 1", b'{"a": "\xe9"}'
    yield "UTF-16", '{"a": 1}'.encode("utf-16")
    yield "empty", b""
    yield "zeros", bytes(1000)
    yield "a bomb of blanks", b" " * 10**7
    for number, content in enumerate(pickles(canary)):
        yield f"pickle {number}", content
