"""`featlab layouts`: what data sets have to look like on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from featlab.cli.session import Session, command

if TYPE_CHECKING:
    from featlab.extraction.layouts import Layout

__all__ = ["layouts"]


@command("json_mode")
def layouts(
    session: Session,
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Show one: the tree that it expects, and its options.")
    ] = None,
) -> None:
    """List the layouts of data sets that `featlab extract --layout` knows."""
    from featlab.extraction.layouts import get_layout, layout_names

    output = session.output
    if name is None:
        known = [get_layout(item) for item in layout_names()]
        output.json({"layouts": [_facts(layout) for layout in known]})
        lines = [
            (layout.name, layout.title, layout.subject, layout.neutral, _sampling(layout) or "–") for layout in known
        ]
        output.columns(("Name", "Data set", "Subject", "Neutral", "Of videos"), lines, text_columns=5)
        return
    layout = get_layout(name)
    output.json(_facts(layout) | {"description": layout.description})
    output.facts(
        f"{layout.name}: {layout.title}",
        {"subject": layout.subject, "neutral class": layout.neutral, "of videos": _sampling(layout) or "every frame"},
    )
    output.show("", layout.description.replace("::\n\n", "").replace("``", ""))
    options = _options(layout)
    if options:
        output.show("")
        output.facts(
            "Options, as --layout-option KEY=VALUE",
            {f"{key}={_text(entry['default'])}": entry["help"] for key, entry in options.items()},
        )


def _facts(layout: Layout) -> dict[str, Any]:
    sampling = layout.sampling
    return {
        "name": layout.name,
        "title": layout.title,
        "subject": layout.subject,
        "neutral": layout.neutral,
        "sampling": {"fps": sampling.fps, "window": sampling.window, "stride": sampling.stride},
        "options": _options(layout),
    }


def _options(layout: Layout) -> dict[str, dict[str, Any]]:
    from dataclasses import asdict

    from featlab.config.options import options_of

    declared = options_of(layout.options)
    return {
        key: {"default": default, "help": (declared[key].help or "").replace("`", "")}
        for key, default in asdict(layout.options()).items()
    }


def _sampling(layout: Layout) -> str:
    sampling = layout.sampling
    words = []
    if sampling.window is not None:
        words.append("from {:g} to {:g} s".format(*sampling.window))
    if sampling.fps is not None:
        words.append(f"{sampling.fps:g} frame{'' if sampling.fps == 1 else 's'} a second")
    if sampling.stride > 1:
        words.append(f"every {sampling.stride}th frame")
    return ", ".join(words)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
