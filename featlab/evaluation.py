"""Run methods on targets, and score them. The only place where a target's labels meet a model."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from featlab.bundle import Bundle
from featlab.cache import FeatureTable
from featlab.clip_conditions import WHOLE_CLIP, ClipConditions, reduced_split
from featlab.errors import FeatlabError, InputError
from featlab.evaluation_rows import Cost, RunNumbers, failed_rows, scored_rows
from featlab.flops import count_flops
from featlab.methods import AdaptedModel, Method, base_model
from featlab.methods.oracle import Oracle
from featlab.methods.source_access import SourceAccess, SourceFeatures
from featlab.metrics import SubjectMetrics, subject_metrics
from featlab.models import PersonalModel
from featlab.oracle_folds import oracle_probabilities
from featlab.protocol import Split, check_disjoint, split_dataset, split_target, target_of
from featlab.results import EvaluationRow
from featlab.seeding import run_seed

__all__ = ["RunNumbers", "adapted_model", "before_and_after", "evaluate_dataset", "evaluate_subject", "failed_rows"]


def evaluate_subject(
    bundle: Bundle,
    table: FeatureTable,
    methods: Sequence[Method],
    *,
    source: SourceFeatures | None = None,
    numbers: RunNumbers | None = None,
    gap: int = 5,
    conditions: ClipConditions = WHOLE_CLIP,
) -> list[EvaluationRow]:
    """Adapt to one target subject's neutral clip with every method and score each on the subject's test rows.

    Args:
        bundle: Trained without this subject.
        table: Rows of one subject.
        methods: What to run.
        source: Source rows for the methods that need them; without, those fail.
        numbers: Recorded in the rows.
        gap: See `featlab.protocol.split_target`.
        conditions: A shorter clip, or one that is not all neutral.

    Returns:
        A row a method. A method that fails gives a row with its error, and the others still run.

    Raises:
        InputError: Not one subject, a source subject, or a subject that can't be split.
    """
    numbers = numbers or RunNumbers()
    names = table.subject_names_present()
    if len(names) != 1:
        raise InputError(f"an evaluation takes the rows of one target subject, got {len(names)}")
    _check(bundle, table)
    split = reduced_split(table, split_target(table, gap), conditions, bundle.seed)
    return [row for method in methods for row in _rows(bundle, table, split, method, source, numbers)]


def evaluate_dataset(
    bundle: Bundle,
    table: FeatureTable,
    methods: Sequence[Method],
    *,
    source: SourceFeatures | None = None,
    numbers: RunNumbers | None = None,
    gap: int = 5,
) -> list[EvaluationRow]:
    """Adapt once to a whole target data set, unlabelled, all classes, with every method; score each of its subjects.

    Args:
        bundle: Trained without these subjects.
        table: Rows of all target subjects.
        methods: What to run.
        source: Source rows for the methods that need them; without, those fail.
        numbers: Recorded in the rows; their scope is ``dataset``.
        gap: See `featlab.protocol.split_dataset`.

    Returns:
        A row a method and subject. A method that takes one person's neutral clip fails in every row, and says so.

    Raises:
        InputError: A source subject among the targets, or a data set that can't be split.
    """
    numbers = replace(numbers or RunNumbers(), scope="dataset")
    _check(bundle, table)
    split = split_dataset(table, gap)
    return [row for method in methods for row in _rows(bundle, table, split, method, source, numbers)]


def before_and_after(
    bundle: Bundle, table: FeatureTable, model: PersonalModel, gap: int = 5
) -> tuple[SubjectMetrics, SubjectMetrics] | None:
    """Score the source model and an adapted one on the labelled test rows of a subject: to look at, never to adapt by.

    Args:
        bundle: The source model.
        table: Rows of one subject; its classes are matched to the bundle's by name.
        model: What adapting to the subject gave.
        gap: See `featlab.protocol.split_target`.

    Returns:
        The scores before and after; ``None`` when no test row has a label that the bundle knows.
    """
    if (table.label < 0).all():
        return None
    codes = [bundle.classes.index(name) if name in bundle.classes else -1 for name in table.classes]
    test = split_target(table, gap).test
    # An unknown label is -1, which picks the last of these.
    labels = np.array([*codes, -1], dtype=np.int16)[table.label[test]]
    if (labels < 0).all():
        return None
    before, after = (
        subject_metrics(
            labels,
            AdaptedModel(part).predict_proba(table.embeddings[test]),
            classes=bundle.classes,
            neutral_code=bundle.neutral_code,
        )
        for part in (base_model(bundle), model)
    )
    return before, after


def _check(bundle: Bundle, table: FeatureTable) -> None:
    check_disjoint(bundle.source_subjects, table.subject_names_present())
    if table.classes != bundle.classes:
        raise InputError(f"the rows have classes {', '.join(table.classes)}, the bundle {', '.join(bundle.classes)}")


def _rows(
    bundle: Bundle,
    table: FeatureTable,
    split: Split,
    method: Method,
    source: SourceFeatures | None,
    numbers: RunNumbers,
) -> list[EvaluationRow]:
    """Run one method and return a row a subject."""
    names = table.subject_names_present()
    whole = numbers.scope == "dataset"
    seed = run_seed(bundle.seed, method.name, "the target data set" if whole else names[0])
    start = time.perf_counter()
    try:
        if isinstance(method, Oracle) and not whole:
            probabilities, model = oracle_probabilities(bundle, table, split, method)
            seconds = time.perf_counter() - start
        else:
            model = adapted_model(bundle, table, split, method, source, seed, whole)
            seconds = time.perf_counter() - start
            probabilities = model.predict_proba(table.embeddings[split.test])
        flops = math.nan
        if numbers.count_flops:
            flops = count_flops(lambda: adapted_model(bundle, table, split, method, source, seed, whole))
    except (FeatlabError, RuntimeError) as error:
        # A RuntimeError is how torch says that a computation failed: out of memory, an eigenvalue that isn't found.
        return failed_rows(method, names, numbers, error, time.perf_counter() - start)
    cost = Cost(len(split.adapt), seconds, model.iterations, model.trainable, flops)
    return scored_rows(table, split.test, probabilities, method, numbers, cost)


def adapted_model(
    bundle: Bundle,
    table: FeatureTable,
    split: Split,
    method: Method,
    source: SourceFeatures | None,
    seed: int,
    whole: bool = False,
) -> AdaptedModel:
    """Adapt a method as an evaluation does; an oracle is given the labels of the rows that it adapts on.

    Args:
        bundle: The source model.
        table: Rows of the target.
        split: Which of them are adapted on.
        method: What adapts.
        source: Source rows, for the methods that need them.
        seed: Of whatever is random.
        whole: Whether the target is a data set, not one person's neutral clip.

    Raises:
        InputError: A method that needs what isn't there.
    """
    target = target_of(table, split.adapt)
    if isinstance(method, Oracle):
        return method.fit(bundle, target, table.label[split.adapt])
    if whole and method.needs_neutral:
        raise InputError(f"{method.name} takes one person's neutral clip; a data set of people and classes is none")
    if isinstance(method, SourceAccess):
        if source is None:
            raise InputError(f"{method.name} needs the source rows beside the target's, and was given none")
        return method.fit(bundle, source, target, seed=seed)
    return method.adapt(bundle, target, seed=seed)
