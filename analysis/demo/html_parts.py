"""What pages in one file share: colours and type for light and dark, files and pictures as data URIs."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from urllib.parse import quote

from PIL import Image

__all__ = ["BASE_STYLE", "data_uri", "jpeg_of", "svg_uri"]

BASE_STYLE = """\
:root { --text: #1c1e21; --soft: #5f666d; --back: #fff; --card: #f5f6f7; --line: #d9dce0; --mark: #0072b2;
  --warn: #fdf3e4; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e6e7e9; --soft: #a2a8af; --back: #15171a; --card: #202327; --line: #3a3f45; --mark: #6cb8e6;
    --warn: #33291a; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 68rem; background: var(--back); color: var(--text);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .3rem; }
h2 { font-size: 1.2rem; margin: 2.6rem 0 .6rem; }
p { margin: .5rem 0; max-width: 46rem; }
.lead { color: var(--soft); margin-top: 0; }
.note { background: var(--warn); border-left: 4px solid #e69f00; padding: .6rem .9rem; border-radius: 4px;
  max-width: none; }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: 6px; }
table { border-collapse: collapse; width: 100%; font-size: .82rem; font-variant-numeric: tabular-nums; }
th, td { padding: .32rem .45rem; text-align: right; white-space: nowrap; }
thead th { white-space: normal; border-bottom: 1px solid var(--line); color: var(--soft); font-weight: 600;
  vertical-align: bottom; }
.words { text-align: left; }
tr.group td { border-top: 1px solid var(--line); }
td b { color: var(--mark); }
.under { color: var(--soft); font-size: .84rem; }
figure { margin: 0; }
figcaption { color: var(--soft); font-size: .9rem; margin: .5rem 0 0; max-width: 46rem; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: 6px; padding: .8rem 1rem; overflow-x: auto;
  font: .84rem/1.6 ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; font-size: .84rem; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
"""
"""Of every page; a page puts its own rules after it."""

_SAFE_IN_SVG = " /:;,=()+-_.?&*!@~$"
"""Letters that a data URI takes as they are, so that an SVG grows by a twentieth in place of a third."""


def data_uri(kind: str, data: bytes) -> str:
    """Return a file as a data URI.

    Args:
        kind: Media type, e.g. ``text/csv``.
        data: Its bytes.
    """
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def svg_uri(svg: bytes) -> str:
    """Return an SVG as a data URI that is read back byte by byte."""
    return f"data:image/svg+xml,{quote(svg, safe=_SAFE_IN_SVG)}"


def jpeg_of(png: Path) -> bytes:
    """Return a picture with photographs as JPEG, a tenth of the .png.

    Raises:
        OSError: No picture there, or a damaged one.
    """
    data = io.BytesIO()
    with Image.open(png) as picture:
        picture.convert("RGB").save(data, "JPEG", quality=85)
    return data.getvalue()
