"""Commands about results: evaluate methods over target subjects, list the methods."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from featlab.cli.campaigns import Run, run_and_show
from featlab.cli.common import (
    CacheOption,
    ContaminationOption,
    DeviceOption,
    FramesOption,
    JobsOption,
    JsonOption,
    LabelRuleOption,
    MethodsOption,
    Output,
    PoolOption,
    QuietOption,
    SeedOption,
    SetOption,
    SmoothOption,
    SourcesOption,
    StrategyOption,
    TargetsOption,
    WideOption,
    WorkspaceOption,
    flag_values,
)
from featlab.cli.complete import complete_method, complete_methods

if TYPE_CHECKING:
    from featlab.methods import Method

__all__ = ["benchmark", "evaluate", "methods"]

DrawsOption = Annotated[int | None, typer.Option("--draws", min=1, metavar="K", help="Random draws of targets.")]
SeedsOption = Annotated[int | None, typer.Option("--seeds", min=1, metavar="K", help="Seeds within a draw.")]
NameOption = Annotated[
    str | None, typer.Option("--name", metavar="NAME", help="Folder under results/; default: a key of the run.")
]
PlotsOption = Annotated[bool, typer.Option("--plots/--no-plots", help="Draw the figures.")]


def evaluate(
    targets: TargetsOption = None,
    draws: DrawsOption = None,
    methods: MethodsOption = None,
    seeds: SeedsOption = None,
    sources: SourcesOption = None,
    pool: PoolOption = None,
    smooth: SmoothOption = None,
    frames: FramesOption = None,
    contamination: ContaminationOption = None,
    strategy: StrategyOption = None,
    label_rule: LabelRuleOption = None,
    dim: Annotated[
        int | None, typer.Option("--dim", min=0, metavar="D", help="Features kept; 0 keeps them all.")
    ] = None,
    name: NameOption = None,
    plots: PlotsOption = True,
    workspace: WorkspaceOption = Path("."),
    cache: CacheOption = None,
    settings: SetOption = None,
    seed: SeedOption = None,
    device: DeviceOption = "auto",
    jobs: JobsOption = 0,
    json_mode: JsonOption = False,
    wide: WideOption = False,
    quiet: QuietOption = False,
) -> None:
    """Adapt to target subjects with every method and score them. Finished cells are kept and reused."""
    output = Output(json_mode=json_mode, quiet=quiet, wide=wide)
    flags = {
        "protocol.draws": draws,
        "protocol.methods": methods,
        "protocol.seeds": seeds,
        "protocol.sources": sources,
        "protocol.smoothing": smooth,
        "protocol.frames": frames,
        "protocol.contamination": contamination,
        "pair.strategy": strategy,
        "pair.label_rule": label_rule,
        "features.dim": dim,
    }
    values = flag_values(workspace, cache=cache, settings=settings, seed=seed, targets=targets, pool=pool, flags=flags)
    run_and_show(Run("evaluate", workspace, name, plots, device, jobs), values, output)


def benchmark(
    targets: TargetsOption = None,
    draws: DrawsOption = None,
    seeds: SeedsOption = None,
    methods: Annotated[
        str | None,
        typer.Option(
            "--methods", metavar="NAME,…", help="Default: every method there is.", autocompletion=complete_methods
        ),
    ] = None,
    scope: Annotated[
        str | None,
        typer.Option(
            "--scope",
            metavar="person|dataset",
            help="Adapt to each target from a neutral clip, or to all of them as one unlabelled data set.",
        ),
    ] = None,
    share: Annotated[
        str,
        typer.Option("--share", metavar="I/N", help="Run the I-th of N shares, on machines that share the workspace."),
    ] = "1/1",
    collect: Annotated[
        bool, typer.Option("--collect", help="Run nothing; make the tables of the cells that are there.")
    ] = False,
    sources: SourcesOption = None,
    pool: PoolOption = None,
    smooth: SmoothOption = None,
    frames: FramesOption = None,
    contamination: ContaminationOption = None,
    strategy: StrategyOption = None,
    label_rule: LabelRuleOption = None,
    name: NameOption = None,
    plots: PlotsOption = True,
    workspace: WorkspaceOption = Path("."),
    cache: CacheOption = None,
    settings: SetOption = None,
    seed: SeedOption = None,
    device: DeviceOption = "auto",
    jobs: JobsOption = 0,
    json_mode: JsonOption = False,
    wide: WideOption = False,
    quiet: QuietOption = False,
) -> None:
    """Run every method on every target and seed, into one table. Resumable: finished cells are kept, failed retried."""
    from featlab.methods import method_names

    output = Output(json_mode=json_mode, quiet=quiet, wide=wide)
    flags = {
        "protocol.draws": draws,
        "protocol.methods": methods or method_names(),
        "protocol.scope": scope,
        "protocol.seeds": seeds,
        "protocol.sources": sources,
        "protocol.smoothing": smooth,
        "protocol.frames": frames,
        "protocol.contamination": contamination,
        "pair.strategy": strategy,
        "pair.label_rule": label_rule,
    }
    values = flag_values(workspace, cache=cache, settings=settings, seed=seed, targets=targets, pool=pool, flags=flags)
    run = Run("benchmark", workspace, name, plots, device, jobs, _share(share), collect)
    run_and_show(run, values, output)


def methods(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="Say all about this one.", autocompletion=complete_method),
    ] = None,
    json_mode: JsonOption = False,
) -> None:
    """List the methods and what each needs; with a name, where it comes from, how it departs, and its options."""
    from featlab.methods import get_method, method_names

    output = Output(json_mode=json_mode)
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
