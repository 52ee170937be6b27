"""What the site has beside the pages of this folder: commands, options, notebooks, two files.

mkdocs calls the functions whose names begin with `on_`. A link to a file that is not in this folder is text on the
site, which holds no source.
"""

from __future__ import annotations

import base64
import inspect
import json
import posixpath
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from mkdocs.plugins import event_priority, get_plugin_logger
from mkdocs.structure.files import File

from featlab.cli.app import make_app
from featlab.config.load import SECTIONS, Config, toml_value
from featlab.config.options import options_of

ROOT = Path(__file__).parents[1]
MADE = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
MOVED = {**MADE, "README.md": "index.md"}
LONGEST = 2300
"""Words that are read in ten minutes."""
LOOKED_UP = ("reference/commands.md", "reference/options.md", "changelog.md")
log = get_plugin_logger("pages")


def commands_page() -> str:
    """Return every command with its arguments and flags, as ``--help`` says them."""
    lines = ["# Commands", "", "`featlab COMMAND --help` says the same."]
    for words, command in _commands(typer.main.get_command(make_app())):
        about = inspect.cleandoc(command.help or "").split("\f")[0]
        lines += ["", f"## {words}", "", about, "", "| | default | |", "|---|---|---|"]
        for one in command.params:
            help_text = _cell(getattr(one, "help", None) or "")
            names = ", ".join(f"`{name}`" for name in one.opts) if one.opts[0].startswith("-") else f"`{one.name}`"
            default = "" if one.default in (None, False, ()) or callable(one.default) else f"`{one.default}`"
            lines.append(f"| {names} | {default} | {help_text} |")
    return "\n".join(lines) + "\n"


def options_page() -> str:
    """Return every option of ``featlab.toml`` that is not a method's."""
    config = Config()
    lines = [
        "# Options",
        "",
        "Of `featlab.toml`, and of `--set section.key=value`. Those of a method are on its own page.",
    ]
    for name in SECTIONS:
        part = getattr(config, name)
        lines += ["", f"## {name}", "", inspect.getdoc(type(part)) or "", "", "| option | default | |", "|---|---|---|"]
        for key, declared in options_of(type(part)).items():
            only = f" Only with {declared.only}." if declared.only else ""
            value = getattr(part, key)
            default = "" if isinstance(value, dict) else f"`{toml_value(value)}`"
            lines.append(f"| `{key}` | {default} | {_cell((declared.help or '') + only)} |")
    return "\n".join(lines) + "\n"


def tutorial(source: Path) -> tuple[str, dict[str, bytes]]:
    """Return a notebook as a page, and its pictures by name."""
    parts, pictures = [], {}
    for cell in json.loads(source.read_text(encoding="utf-8"))["cells"]:
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
        for output in cell.get("outputs", []):
            if "text" in output:
                parts.append(f"```text\n{''.join(output['text']).rstrip()}\n```")
            elif picture := output.get("data", {}).get("image/png"):
                name = f"{source.stem}-{len(pictures) + 1}.png"
                pictures[name] = base64.b64decode(picture)
                parts.append(f"![What the cell above draws]({name})")
    return "\n\n".join(parts) + f"\n\nThis page is a notebook: `docs/tutorials/{source.name}`.\n", pictures


def words_to_read(markdown: str) -> int:
    """Count words, those of tables too, but no numbers, no code in blocks, no pictures and no places of links."""
    text = re.sub(r"^ *```.*?^ *```$|!\[[^\]]*\]\([^)]*\)|(?<=\])\([^)]*\)", "", markdown, flags=re.M | re.S)
    return sum(bool(re.search(r"[^\W\d_]{2}", word)) for word in text.split())


def _commands(group: Any, before: str = "featlab") -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        words = f"{before} {name}"
        if hasattr(command, "commands"):
            yield from _commands(command, words)
        else:
            yield words, command


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


@event_priority(100)  # Before the plugin reads it.
def on_config(config: Any) -> Any:
    """Show the docstrings' reader one package, as an installation has it: here it lies in four folders."""
    package = Path(tempfile.mkdtemp()) / "featlab"
    package.mkdir()
    for part in [*(ROOT / "featlab").iterdir(), *(ROOT / name for name in ("cache", "analysis", "cli"))]:
        (package / part.name).symlink_to(part)
    config.plugins["mkdocstrings"].config.handlers["python"]["paths"] = [str(package.parent)]
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are made."""
    pages = {
        place: (ROOT / source).read_text(encoding="utf-8") for source, place in MOVED.items() if place != "index.md"
    }
    pages |= {"reference/commands.md": commands_page(), "reference/options.md": options_page()}
    for source in sorted((ROOT / "docs/tutorials").glob("*.ipynb")):
        pages[f"tutorials/{source.stem}.md"], pictures = tutorial(source)
        for name, picture in pictures.items():
            files.append(File.generated(config, f"tutorials/{name}", content=picture))
    for place, text in pages.items():
        if old := files.get_file_from_path(place):
            files.remove(old)
        files.append(File.generated(config, place, content=text))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """Turn links of the repository into links of the site; warn of a page that takes longer than ten minutes."""
    if (count := words_to_read(markdown)) > LONGEST and page.file.src_uri not in LOOKED_UP:
        log.warning("%s has %d words to read, more than %d: split or shorten it", page.file.src_uri, count, LONGEST)
    here = posixpath.dirname(page.file.src_uri)
    # What is at the project's root is written for there.
    root = "" if page.file.src_uri in MADE.values() else "docs"

    def link(found: re.Match[str]) -> str:
        text, target = found.groups()
        if re.match(r"https?:|#", target):
            return found[0]
        path, mark, anchor = target.partition("#")
        source = posixpath.normpath(posixpath.join(root, here, path))
        if source not in MOVED and not source.startswith("docs/"):
            if not (ROOT / source).exists():
                log.warning("%s links to %s, which is not there", page.file.src_uri, source)
            return text
        place = MOVED.get(source, source.removeprefix("docs/").replace(".ipynb", ".md"))
        return f"[{text}]({posixpath.relpath(place, here or '.')}{mark}{anchor})"

    return re.sub(r"(?<!!)\[([^\]]*)\]\(([^)\s]+)\)", link, markdown)
