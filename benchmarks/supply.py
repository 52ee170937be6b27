"""What featlab stands on: every pin with the hashes of its files, every licence, every known weakness.

    python benchmarks/supply.py --write    # renew requirements-hashed.txt and docs/licences.md (asks the package index)
    python benchmarks/supply.py            # check both, and run pip-audit where it is installed

Run it in an environment with every pin of constraints.txt. Exit 0: all is as it should be; 1: the lines say what isn't.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path

from packaging.utils import canonicalize_name, parse_wheel_filename

ROOT = Path(__file__).parents[1]
PINS, HASHED, LICENCES = ROOT / "constraints.txt", ROOT / "requirements-hashed.txt", ROOT / "docs/licences.md"
INDEX = "https://pypi.org/simple/{}/"
PYTHONS = ("py3", "cp311", "cp312", "cp313")
# The builds without CUDA of download.pytorch.org, which the pin of torch takes too; the index doesn't have them.
ELSEWHERE = {"torch": ["6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b"]}
FREE = re.compile(r"\b(MIT|MIT-CMU|BSD|0BSD|Apache|ISC|PSF|Python Software Foundation|Zlib|CC0|BSL-1\.0|CNRI)\b")
EXPLAINED = {
    "av": "extra `video`: its wheels carry FFmpeg (LGPL 3 or later) with x264 and x265 (GPL 2 or later)",
    "hypothesis": "for the tests only",
    "pathspec": "of mypy, for the tests only",
    "tqdm": "of the extra `hf`, unchanged",
}


def pins(path: Path) -> dict[str, str]:
    """Return the version of each pinned distribution, by its canonical name."""
    found = re.findall(r"^([A-Za-z0-9._-]+)==([^\s\\]+)", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {canonicalize_name(name): version for name, version in found}


def hashes(path: Path) -> dict[str, list[str]]:
    """Return the hashes that a file of requirements gives each of them."""
    blocks = re.split(r"\n(?=[A-Za-z0-9])", path.read_text(encoding="utf-8"))
    named = [(re.match(r"([A-Za-z0-9._-]+)==", block), block) for block in blocks]
    return {
        canonicalize_name(name[1]): re.findall(r"--hash=sha256:([0-9a-f]{64})", block) for name, block in named if name
    }


def files(name: str, version: str) -> Iterator[str]:
    """Yield the SHA-256 of each file of a release that a Python of ours could install."""
    request = urllib.request.Request(INDEX.format(name), headers={"Accept": "application/vnd.pypi.simple.v1+json"})
    with urllib.request.urlopen(request) as answer:
        listed = json.load(answer)["files"]
    for file in listed:
        if file["filename"].endswith(".whl"):
            _, found, _, tags = parse_wheel_filename(file["filename"])
            fits = any(tag.interpreter in PYTHONS or tag.abi == "abi3" for tag in tags)
        else:
            stem = re.sub(r"\.(tar\.gz|zip)$", "", file["filename"])
            fits, found = True, stem.rpartition("-")[2]
        if fits and str(found) == version:
            yield file["hashes"]["sha256"]


def licence(distribution: Distribution) -> str:
    """Return the licence that a distribution states of itself, in one short text."""
    about = distribution.metadata
    classified = [text.split(" :: ")[-1] for text in about.get_all("Classifier") or [] if text.startswith("License ::")]
    stated = (about.get("License") or "").strip()
    short = stated if 0 < len(stated) < 50 and "\n" not in stated else ""
    return about.get("License-Expression") or ", ".join(classified) or short or "not stated"


def write_hashed() -> None:
    """Write every pin with its hashes."""
    lines = [
        "# constraints.txt with the SHA-256 of every file that may be installed for Python 3.11 to 3.13.",
        "# Made by benchmarks/supply.py --write. See docs/licences.md.",
    ]
    for name, version in sorted(pins(PINS).items()):
        found = sorted({*files(name, version), *ELSEWHERE.get(name, [])})
        if not found:
            raise SystemExit(f"{name} {version}: the index has no such file")
        lines.append(" \\\n    ".join([f"{name}=={version}", *(f"--hash=sha256:{one}" for one in found)]))
    HASHED.write_text("\n".join(lines) + "\n", encoding="utf-8")


def licence_rows() -> list[str]:
    """Return a row for each pinned distribution of this environment."""
    installed = {canonicalize_name(one.name): one for one in distributions()}
    rows = []
    for name, version in sorted(pins(PINS).items()):
        if name in installed:
            rows.append(f"| {name} | {version} | {licence(installed[name])} | {EXPLAINED.get(name, '')} |")
    return rows


def faults() -> Iterator[str]:
    """Yield what isn't as it should be, a line each."""
    pinned, hashed = pins(PINS), hashes(HASHED)
    for name in sorted(pinned.keys() ^ hashed.keys()):
        yield f"{name}: in one of {PINS.name} and {HASHED.name} only"
    if pinned != pins(HASHED):
        yield f"{HASHED.name}: other versions than {PINS.name}; run --write"
    installed = {canonicalize_name(one.name): one for one in distributions()}
    for name, version in pinned.items():
        if not hashed.get(name):
            yield f"{name}: without a hash"
        if name not in installed:
            yield f"{name}: not installed here, so its licence is not looked at"
            continue
        if installed[name].version.partition("+")[0] != version:
            yield f"{name}: {installed[name].version} is installed, {version} is pinned"
        stated = licence(installed[name])
        if not FREE.search(stated) and name not in EXPLAINED:
            yield f"{name}: licence {stated!r} is neither a permissive one nor explained"
    written = LICENCES.read_text(encoding="utf-8")
    for row in licence_rows():
        if row not in written:
            yield f"{LICENCES.name}: lacks {row}; run --write"


def audit() -> str:
    """Return what pip-audit says of the pins, in one line."""
    program = shutil.which("pip-audit") or shutil.which("pip-audit", path=str(Path(sys.executable).parent))
    if program is None:
        return "pip-audit: not installed, not run"
    done = subprocess.run(
        [program, "--disable-pip", "--require-hashes", "-r", str(HASHED), "--format", "json"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    try:
        found = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        return f"pip-audit: could not be run ({(done.stderr.strip() or 'no answer').splitlines()[-1]})"
    skipped = [one["name"] for one in found if "skip_reason" in one]
    if len(skipped) == len(found):
        return "pip-audit: could not be run (no database of weaknesses was reached)"
    weak = [f"{one['name']} {flaw['id']}" for one in found for flaw in one.get("vulns", [])]
    return (
        f"pip-audit: {len(found) - len(skipped)} looked up, {len(skipped)} not found, weak: {', '.join(weak) or 'none'}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="Renew the two files.")
    options = parser.parse_args()
    if options.write:
        write_hashed()
        head, _, _ = LICENCES.read_text(encoding="utf-8").partition("| package |")
        table = ["| package | version | licence | note |", "|---|---|---|---|", *licence_rows()]
        LICENCES.write_text(head + "\n".join(table) + "\n", encoding="utf-8")
    found = list(faults())
    print("\n".join(found) or f"{len(pins(PINS))} pins: each with hashes and a licence that is permissive or explained")
    print(audit())
    raise SystemExit(1 if found else 0)


if __name__ == "__main__":
    main()
