"""Commands at the source site: train the head, pair rows, pretrain the translator into a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from featlab.cli.common import (
    CacheOption,
    DeviceOption,
    JsonOption,
    LabelRuleOption,
    MethodsOption,
    Output,
    QuietOption,
    SeedOption,
    SetOption,
    StrategyOption,
    SubjectsOption,
    TargetsOption,
    WorkspaceOption,
    flag_values,
    held_out,
    names_in,
    open_workspace,
)

if TYPE_CHECKING:
    from featlab.workspace.stages import Source, StageOutput
    from featlab.workspace.workspace import Workspace

__all__ = ["pair", "pretrain", "train"]

_TOP = 5
"""Reference subjects that are named."""

DimOption = Annotated[int | None, typer.Option("--dim", min=0, metavar="D", help="Features kept; 0 keeps them all.")]


def train(
    subjects: SubjectsOption = None,
    targets: TargetsOption = None,
    dim: DimOption = None,
    workspace: WorkspaceOption = Path("."),
    cache: CacheOption = None,
    settings: SetOption = None,
    seed: SeedOption = None,
    device: DeviceOption = "auto",
    json_mode: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train the source head: bottleneck B and classifier C, on everyone who is no target."""
    from featlab.workspace.stages import train_stage

    output = Output(json_mode=json_mode, quiet=quiet)
    values = flag_values(
        workspace, cache=cache, settings=settings, seed=seed, targets=targets, flags={"features.dim": dim}
    )
    with output.stages() as progress:
        opened = open_workspace(workspace, values, output, device=device, on_epoch=progress)
        source = _source(opened, output, subjects, targets)
        trained, made = train_stage(source)
    losses = progress.losses.get("train", [])
    facts = {
        "rows": len(source.table),
        "source_subjects": len(source.subjects),
        "classes": list(source.table.classes),
        "features": trained.projection.components.shape[1],
        "bottleneck": trained.head.linear.out_features,
        "final_loss": losses[-1] if losses else None,
    }
    output.json({"stage": "train", **_where(made), **facts})
    shown = {"classes": ", ".join(source.table.classes), "final_loss": f"{losses[-1]:.4f}" if losses else None}
    _tell(output, "train", made, facts | shown)


def pair(
    strategy: StrategyOption = None,
    label_rule: LabelRuleOption = None,
    subjects: SubjectsOption = None,
    targets: TargetsOption = None,
    workspace: WorkspaceOption = Path("."),
    cache: CacheOption = None,
    settings: SetOption = None,
    seed: SeedOption = None,
    json_mode: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Give each source row a reference: a row of another subject."""
    from featlab.pairing.pairs import pairs_summary
    from featlab.workspace.stages import pair_stage

    output = Output(json_mode=json_mode, quiet=quiet)
    flags = {"pair.strategy": strategy, "pair.label_rule": label_rule}
    values = flag_values(workspace, cache=cache, settings=settings, seed=seed, targets=targets, flags=flags)
    opened = open_workspace(workspace, values, output, device="cpu")
    source = _source(opened, output, subjects, targets)
    pairs, made = pair_stage(source)
    summary = pairs_summary(pairs, source.table)
    output.json({"stage": "pair", **_where(made), **summary})
    used = sorted(summary["references"].items(), key=lambda item: (-item[1], item[0]))[:_TOP]
    score, same = summary["median_score"], summary["same_label_share"]
    shown = {
        "strategy": summary["strategy"],
        "label_rule": summary["label_rule"],
        "pairs": f"{summary['pairs']:,}",
        "rows without a reference": summary["skipped"],
        "median_score": None if score is None else f"{score:.4f}",
        "same_label_share": None if same is None else f"{100 * same:.1f} %",
        "different reference rows": f"{summary['reference_rows']:,}",
        "most used reference row": f"{summary['most_used_row']} times",
        "most used reference subjects": ", ".join(f"{name} ({count:,})" for name, count in used),
        "list": made.folder / "pairs.csv",
    }
    _tell(output, "pair", made, shown)


def pretrain(
    strategy: StrategyOption = None,
    label_rule: LabelRuleOption = None,
    methods: MethodsOption = None,
    subjects: SubjectsOption = None,
    targets: TargetsOption = None,
    dim: DimOption = None,
    workspace: WorkspaceOption = Path("."),
    cache: CacheOption = None,
    settings: SetOption = None,
    seed: SeedOption = None,
    device: DeviceOption = "auto",
    json_mode: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Pretrain the translator T and write the model bundle: all that leaves the source site."""
    from featlab.workspace.stages import bundle_stage

    output = Output(json_mode=json_mode, quiet=quiet)
    flags = {"pair.strategy": strategy, "pair.label_rule": label_rule, "features.dim": dim}
    values = flag_values(workspace, cache=cache, settings=settings, seed=seed, targets=targets, flags=flags)
    with output.stages() as progress:
        opened = open_workspace(workspace, values, output, device=device, on_epoch=progress)
        source = _source(opened, output, subjects, targets)
        # What adapt asks for by default, so that it finds this bundle.
        bundle, made = bundle_stage(source, names_in(methods) or [opened.config.adapt.method])
    first, last = (bundle.history[0], bundle.history[-1]) if bundle.history else ({}, {})
    pretrain = bundle.config.pretrain
    facts = {
        "source_subjects": len(bundle.source_subjects),
        "objective": pretrain.objective,
        "translator": "linear" if pretrain.linear else "mlp",
        "evaluations" if pretrain.linear else "epochs": len(bundle.history),
        "first_loss": first.get("loss"),
        "last_loss": last.get("loss"),
        "bank_subjects": len(bundle.bank.subjects) if bundle.bank else 0,
        "extras": sorted(bundle.extras),
        "translator_parameters": sum(item.numel() for item in bundle.translator.parameters()),
    }
    output.json({"stage": "pretrain", **_where(made), **facts, "first": dict(first), "last": dict(last)})
    terms = [name for name in last if name != "loss"]
    shown: dict[str, object] = {
        name: value for name, value in facts.items() if name not in ("first_loss", "last_loss", "extras")
    }
    shown["style_bank"] = f"{shown.pop('bank_subjects')} subjects" if bundle.bank else "none"
    shown["loss"] = f"{first['loss']:.4f} to {last['loss']:.4f}" if bundle.history else None
    shown |= {f"  {name}": f"{first[name]:.4f} to {last[name]:.4f}" for name in terms}
    if bundle.extras:
        shown["prepared for"] = ", ".join(sorted(bundle.extras))
    _tell(output, "pretrain", made, shown)


def _source(workspace: Workspace, output: Output, subjects: list[str] | None, targets: str | None) -> Source:
    kept_out = held_out(workspace, subjects or (), targets_given=targets is not None)
    source = workspace.source(kept_out)
    if not kept_out and not workspace.config.protocol.sources:
        output.note(f"nobody is held out: all {len(source.subjects)} subjects are source (--targets holds some out)")
    elif kept_out:
        names = ", ".join(kept_out[:8]) + (", …" if len(kept_out) > 8 else "")
        output.note(f"held out: {names}; {len(source.subjects)} source subjects")
    return source


def _where(made: StageOutput) -> dict[str, object]:
    return {"folder": made.folder, "reused": made.reused}


def _tell(output: Output, stage: str, made: StageOutput, facts: dict[str, object]) -> None:
    reused = " (reused: the same inputs were run before)" if made.reused else ""
    output.facts(f"{stage}: {made.folder}{reused}", {name.replace("_", " "): value for name, value in facts.items()})
