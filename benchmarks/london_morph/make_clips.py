"""`london-morph`, made again: clips of subtle smiles from the photographs of the Face Research Lab London Set.

Two photographs of a person, neutral and smiling, are morphed into each other along a face mesh; four clips of 12 frames
follow intensity curves between them, filmed with other light, sensor and head movement each time. The random numbers
behind the published clips aren't known: these are other clips of the same people and the same distribution.

    pip install 'featlab[landmarks]' 'mediapipe==0.10.21'
    python benchmarks/london_morph/make_clips.py PHOTOGRAPHS --out london-morph

PHOTOGRAPHS is the download, unpacked: NNN_03.jpg (neutral) and NNN_08.jpg (smiling), in any folders below it.
"""

from __future__ import annotations

import argparse
import csv
import io
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from london_film import CLIPS, FRAMES, SIDE, draw_clip, draw_look, film
from london_warp import make_morph
from numpy.typing import NDArray
from PIL import Image

from featlab import __version__
from featlab.cache.atomic import atomic_path, atomic_write_text
from featlab.compute import generator
from featlab.errors import FeatlabError, InputError
from featlab.extraction.decode import decode_image
from featlab.extraction.faces.detectors import make_mesh_detector

Mesh = Callable[[NDArray[np.uint8]], NDArray[np.floating]]
"""From an RGB image, uint8 (H, W, 3), to a face mesh (478, 2) in its pixels, all NaN when there is no face."""

_MORPH = """1 2 3 6 8 11 13 14 16 17 18 20 22 24 25 26 27 29 30 36 44 45 61 62 63 66 68 69 70 81 82 83 87 90 91 92 96 97
    102 104 107 113 114 117 120 122 123 124 128 130 131 134 135 137 138 139 140 141 142 143 172 173"""
MORPH_PEOPLE = tuple(int(number) for number in _MORPH.split())
"""Numbers of the 62 people of `london-morph`, whose clips the README's table is about."""

_CROP = 160
"""Side of the morphed picture, pixels, for a frame of 96."""
_NOTE = """\
# Clips made from the Face Research Lab London Set

{frames} frames of {people} people, {size} x {size} pixels, made with featlab {version} (seed {seed}; mesh: {mesh}).

- **Source.** DeBruine, L. & Jones, B. (2017). Face Research Lab London Set, version 5. figshare,
  doi 10.6084/m9.figshare.5047666.v5. Licence: CC BY 4.0, https://creativecommons.org/licenses/by/4.0/
- **What was changed.** The neutral and the smiling photograph of a person are morphed into each other, cropped by the
  eyes, and altered in brightness, colour, light, noise and head movement. This is a derivative work under the same
  licence: whoever passes it on gives the credit above and says what was changed.
- **manifest.csv.** `intensity` is the weight of the smiling photograph: for analysis, never a feature.
- **landmarks.npy.** float32 ({frames}, 68, 2), pixels, rows as in the manifest, iBUG order.
"""


def find_photographs(root: Path) -> dict[int, dict[str, Path]]:
    """Return each person's photographs below a folder: ``{number: {"03": neutral, "08": smiling}}``."""
    found: dict[int, dict[str, Path]] = {}
    for path in sorted(root.rglob("*")):
        match = re.fullmatch(r"(\d{3})_(03|08)\.(?:jpe?g|png)", path.name, re.IGNORECASE)
        if match is None or "__MACOSX" in path.parts:
            continue
        photographs = found.setdefault(int(match[1]), {})
        if match[2] in photographs:
            raise InputError(f"{photographs[match[2]]} and {path} are one photograph twice; remove one of them")
        photographs[match[2]] = path
    if not found:
        raise InputError(f"{root}: no NNN_03.jpg or NNN_08.jpg there; unpack the download's archives first")
    return found


def make_clips(
    root: Path, folder: Path, mesh: Mesh, mesh_info: str, numbers: set[int] | None, seed: int, size: int
) -> list[str]:
    """Write everybody's clips with ``landmarks.npy``, ``README.md`` and, last, ``manifest.csv``.

    Args:
        root: Where the photographs are.
        folder: Where to; what is there is replaced.
        mesh: Finds the meshes of faces, (F, 478, 2); the largest is taken.
        mesh_info: One line on who finds it, for the note.
        numbers: Who is wanted; None for everybody.
        seed: A person's clips depend on it and on the person's number only.
        size: Side of a frame, pixels.

    Returns:
        Why people are left out, a line each.

    Raises:
        InputError: There is no photograph, or nobody could be drawn.
    """
    photographs = find_photographs(root)
    text, landmarks, left_out = io.StringIO(), [], []
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("path", "subject", "label", "video", "frame", "intensity"))
    (folder / "frames").mkdir(parents=True, exist_ok=True)
    (folder / "manifest.csv").unlink(missing_ok=True)
    crop = round(size * _CROP / SIDE)
    for number in sorted(photographs if numbers is None else numbers):
        subject = f"s{number:03d}"
        try:
            images = [_read(photographs.get(number, {}).get(kind), f"{number:03d}_{kind}.jpg") for kind in ("03", "08")]
            meshes = [_find(mesh, image, f"{number:03d}") for image in images]
        except InputError as error:
            left_out.append(f"{subject}: {error}")
            continue
        morph = make_morph((images[0], images[1]), (meshes[0], meshes[1]), crop)
        look = draw_look(seed, subject)
        for label, letter in CLIPS:
            rng = generator(seed, "london", subject, label, letter)
            clip = draw_clip(look, label, rng, size, crop)
            frames, points = film(clip, morph, rng, size)
            landmarks.append(points)
            video = f"{subject}-{label}-{letter}"
            for frame, (picture, intensity) in enumerate(zip(frames, clip.intensity, strict=True)):
                path = f"frames/{video}-{frame:02d}.jpg"
                Image.fromarray(picture).save(folder / path, quality=88)
                rows.writerow((path, subject, label, video, frame, f"{intensity:.3f}"))
        print(f"{subject}: {len(CLIPS)} clips", file=sys.stderr)
    if not landmarks:
        raise InputError(f"{root}: nobody could be drawn; {left_out[0]}")
    with atomic_path(folder / "landmarks.npy") as partial, partial.open("wb") as file:
        np.save(file, np.concatenate(landmarks))
    people = len(landmarks) // len(CLIPS)
    note = {"frames": len(landmarks) * FRAMES, "people": people, "size": size, "seed": seed, "mesh": mesh_info}
    atomic_write_text(folder / "README.md", _NOTE.format(version=__version__, **note))
    atomic_write_text(folder / "manifest.csv", text.getvalue())
    return left_out


def _read(path: Path | None, name: str) -> NDArray[np.uint8]:
    if path is None:
        raise InputError(f"no photograph {name}")
    return decode_image(path)


def _find(mesh: Mesh, image: NDArray[np.uint8], name: str) -> NDArray[np.float64]:
    faces = np.asarray(mesh(image), dtype=np.float64)
    if not len(faces):
        raise InputError(f"no face was found in a photograph of {name}")
    largest: NDArray[np.float64] = faces[np.ptp(faces, axis=1).prod(axis=1).argmax()]
    return largest


def main() -> int:
    """Run it; returns 3 when people were left out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--out", type=Path, default=Path("london-morph"))
    parser.add_argument("--people", default="morph", help="morph (the 62 of the README's table), all, or 1,2,11")
    parser.add_argument("--task", type=Path, help="mediapipe's bundle, where its wheel has no models inside")
    parser.add_argument("--size", type=int, default=SIDE, help="side of a frame, pixels")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    named = {"morph": set(MORPH_PEOPLE), "all": None}
    numbers = named[given.people] if given.people in named else {int(part) for part in given.people.split(",")}
    try:
        find_photographs(given.photographs)
        detector = make_mesh_detector(given.task, whole=True)
        left_out = make_clips(
            given.photographs, given.out, detector.detect, detector.info, numbers, given.seed, given.size
        )
    except FeatlabError as error:
        parser.exit(2, f"error: {error}\n")
    print("\n".join([f"{given.out / 'manifest.csv'}", *(f"left out: {line}" for line in left_out)]))
    print("credit: DeBruine & Jones (2017), doi 10.6084/m9.figshare.5047666.v5, CC BY 4.0; a derivative work")
    return 3 if left_out else 0


if __name__ == "__main__":
    sys.exit(main())
