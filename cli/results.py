"""Commands about results: evaluate methods over target subjects, list the methods."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from featlab.cli.campaigns import run_and_show
from featlab.cli.complete import complete_method
from featlab.cli.output import Output
from featlab.cli.session import Session, command, workspace_command

if TYPE_CHECKING:
    from featlab.methods import Method

NameOption = Annotated[
    str | None, typer.Option("--name", metavar="NAME", help="Folder under results/; default: a key of the run.")
]
PlotsOption = Annotated[bool, typer.Option("--plots/--no-plots", help="Draw the figures.")]


_SCORED = ("targets", "draws", "seeds", "methods", "sources", "pool", "smooth", "frames", "contamination")
_SHOWN = ("strategy", "label_rule", "device", "jobs", "wide")


@workspace_command(*_SCORED, *_SHOWN, "dim")
def evaluate(session: Session, name: NameOption = None, plots: PlotsOption = True) -> None:
    """Adapt to target subjects with the main methods and score them. Finished runs are kept and reused."""
    run_and_show(session, "evaluate", session.values({"protocol.methods": session["methods"]}), name=name, plots=plots)


@workspace_command(*_SCORED, *_SHOWN, "scope")
def benchmark(
    session: Session,
    share: Annotated[
        str,
        typer.Option("--share", metavar="I/N", help="Run the I-th of N shares, on machines that share the workspace."),
    ] = "1/1",
    collect: Annotated[
        bool, typer.Option("--collect", help="Run nothing; make the tables of the runs that are there.")
    ] = False,
    name: NameOption = None,
    plots: PlotsOption = True,
) -> None:
    """Run every method on every target and seed, into one table. Resumable: finished runs are kept, failed retried."""
    from featlab.methods import method_names

    values = session.values({"protocol.methods": session["methods"] or method_names()})
    run_and_show(session, "benchmark", values, name=name, plots=plots, share=_share(share), collect=collect)


@command("json_mode")
def methods(
    session: Session,
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="Say all about this one.", autocompletion=complete_method),
    ] = None,
) -> None:
    """List the methods and what each needs; with a name, where it comes from, how it departs, and its options."""
    from featlab.methods import get_method, method_names

    output = session.output
    classes = [get_method(item) for item in (method_names() if name is None else [name])]
    output.json({"methods": [_facts(item) for item in classes]})
    if name is not None:
        _show_method(output, classes[0])
        return
    lines = [
        (item.name, item.title, item.setting, ", ".join(_needs(item)) or "–", ", ".join(item.updates) or "nothing")
        for item in classes
    ]
    output.columns(("Name", "Title", "Setting", "Needs", "Changes"), lines, text_columns=5)
    output.show("featlab methods NAME says where a method comes from, how it departs from its paper, and its options")


def _facts(method: type[Method]) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "name": method.name,
        "title": method.title,
        "setting": method.setting,
        "needs": _needs(method),
        "published": method.published,
        "carries": method.carries,
        "updates": list(method.updates),
        "supports_single_class": method.supports_single_class,
        "options": asdict(method.config_type()),
        "space": {option: list(values) for option, values in method.space},
    }


def _show_method(output: Output, method: type[Method]) -> None:
    import inspect

    facts = _facts(method)
    shown = {
        "setting": method.setting,
        "needs": ", ".join(facts["needs"]) or "nothing but the source model and the target's rows",
        "changes": ", ".join(method.updates) or "nothing",
        "leaves the source": method.carries or None,
        "meant for one class": "yes" if method.supports_single_class else "no: its objective expects every class",
    }
    output.facts(f"{method.name}: {method.title}", shown)
    output.show("", inspect.cleandoc(method.__doc__ or ""), "", method.published)
    tried = dict(method.space)
    lines = [
        (f"adapt.{method.name}.{option}", value, ", ".join(map(str, tried[option])) if option in tried else "–")
        for option, value in facts["options"].items()
    ]
    if lines:
        output.columns(("Option", "Default", "featlab tune tries"), lines, text_columns=3)


def _needs(method: type[Method]) -> list[str]:
    needs = {
        "style bank": method.needs_style_bank,
        "source extras": method.needs_extras,
        "target labels": method.needs_labels,
        "source rows": method.needs_source,
        "a neutral clip": method.needs_neutral,
    }
    return [name for name, needed in needs.items() if needed]


def _share(text: str) -> tuple[int, int]:
    from featlab.errors import ConfigError

    mine, slash, of = text.partition("/")
    if not (slash and mine.isdecimal() and of.isdecimal() and 1 <= int(mine) <= int(of)):
        raise ConfigError(f"--share {text}: expected I/N with I from 1 to N, for example 2/8")
    return int(mine), int(of)
