"""What the commands about one person share: their bundle, and their adaptation to it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from featlab.cli.common import Output, flag_values, held_out, open_workspace, warn_of_seen

if TYPE_CHECKING:
    from featlab.bundle.bundle import Bundle
    from featlab.cache import FeatureTable
    from featlab.methods import AdaptedModel
    from featlab.workspace.workspace import Workspace

__all__ = ["Person", "bundle_for", "open_person"]


@dataclass(frozen=True, eq=False)
class Person:
    """One person's model.

    Attributes:
        bundle: The source model.
        model: The person's.
        method: Registry name of the method.
        reused: Whether the adaptation was stored.
        rows: The person's rows; ``None`` where no cache was needed.
    """

    bundle: Bundle
    model: AdaptedModel
    method: str
    reused: bool
    rows: FeatureTable | None

    def cached_rows(self, subject: str) -> FeatureTable:
        """Return the person's rows, or say that there is no cache with them."""
        from featlab.errors import InputError

        if self.rows is None:
            raise InputError(
                f"there is no cache with rows of {subject}; name one with --cache, or images with --images"
            )
        return self.rows


def open_person(
    subject: str,
    output: Output,
    *,
    method: str | None,
    bundle: Path | None,
    targets: str | None,
    workspace: Path,
    cache: Path | None,
    settings: list[str] | None,
    seed: int | None,
    device: str,
) -> Person:
    """Return a person's model; adapts first where that is missing, and runs the source stages that are.

    A named bundle in which the person's adaptation is stored needs no cache: without one, what is stored is taken.
    """
    from featlab.workspace.predict import adapted_model, stored_model

    values = flag_values(
        workspace, cache=cache, settings=settings, seed=seed, targets=targets, flags={"adapt.method": method}
    )
    if bundle is not None and cache is None and not _has_cache(workspace):
        from featlab.bundle.bundle import load_bundle
        from featlab.errors import InputError

        loaded = load_bundle(bundle)
        model, stored = stored_model(loaded, bundle, subject)
        if method is not None and method != stored:
            raise InputError(
                f"{subject} is adapted by {stored}, not {method}, and there is no cache to adapt on; name a --cache"
            )
        return Person(loaded, model, stored, True, None)
    with output.stages() as progress:
        opened = open_workspace(workspace, values, output, device=device, on_epoch=progress)
        loaded, folder = bundle_for(opened, output, subject, bundle, targets)
    adapted, reused = adapted_model(
        loaded, folder, opened.table, opened.extractor, subject, opened.config, notify=output.note
    )
    return Person(loaded, adapted, opened.config.adapt.method, reused, opened.table.rows_of(subject))


def bundle_for(
    workspace: Workspace, output: Output, subject: str, folder: Path | None, targets: str | None
) -> tuple[Bundle, Path]:
    """Return the bundle that was named, or the workspace's own for a person, made now if need be."""
    from featlab.bundle.bundle import load_bundle
    from featlab.errors import InputError, closest
    from featlab.methods import get_method
    from featlab.workspace.stages import bundle_stage

    get_method(workspace.config.adapt.method)
    if subject not in workspace.table.subjects:
        known = workspace.table.subjects
        raise InputError(f"unknown subject {subject!r}{closest(subject, known)}; the cache has {len(known)}")
    warn_of_seen(output, workspace.extractor, [subject])
    if folder is not None:
        bundle = load_bundle(folder)
        bundle.check_extractor(workspace.extractor, str(workspace.config.cache))
        return bundle, folder
    _check_can_adapt(workspace, subject)
    kept_out = held_out(workspace, [subject], targets_given=targets is not None)
    bundle, made = bundle_stage(workspace.source(kept_out), [workspace.config.adapt.method])
    if made.reused:
        output.note(f"bundle: {made.folder}, of {len(bundle.source_subjects)} source subjects")
    return bundle, made.folder


def _check_can_adapt(workspace: Workspace, subject: str) -> None:
    """Fail before the source stages run, not after."""
    from featlab.methods import make_method
    from featlab.workspace.adapt import adapt_rows

    config = workspace.config
    make_method(config.adapt.method, config.adapt.options)
    adapt_rows(workspace.table.rows_of(subject), config.protocol.gap)


def _has_cache(workspace: Path) -> bool:
    from featlab.config.load import load_config

    return (workspace / load_config(workspace / "featlab.toml").cache).exists()
