"""Every figure under one name; each takes arrays or results, reads no file and returns a matplotlib ``Figure``."""

from __future__ import annotations

from featlab.analysis.ablation.figures import plot_bars, plot_dots, plot_lines, plot_modes, plot_surface
from featlab.analysis.cost_page import complexity_data, plot_complexity
from featlab.analysis.demo.plot_people import plot_people
from featlab.analysis.evaluation.plot_confusion import plot_confusion
from featlab.analysis.evaluation.plot_projection import plot_projection, projection_data
from featlab.analysis.evaluation.plot_ranks import plot_ranks, ranks_data
from featlab.analysis.evaluation.plot_reliability import plot_reliability, reliability_data
from featlab.analysis.evaluation.plots import plot_subjects, plot_summary, subjects_data, summary_data
from featlab.analysis.inside.branches_page import branch_data, plot_branches
from featlab.analysis.inside.map_page import plot_map
from featlab.analysis.inside.neighbours import plot_neighbours
from featlab.analysis.inside.strips import plot_clip, plot_pairs
from featlab.analysis.inside.style_page import plot_style

__all__ = [
    "branch_data",
    "complexity_data",
    "plot_bars",
    "plot_branches",
    "plot_clip",
    "plot_complexity",
    "plot_confusion",
    "plot_dots",
    "plot_lines",
    "plot_map",
    "plot_modes",
    "plot_neighbours",
    "plot_pairs",
    "plot_people",
    "plot_projection",
    "plot_ranks",
    "plot_reliability",
    "plot_style",
    "plot_subjects",
    "plot_summary",
    "plot_surface",
    "projection_data",
    "ranks_data",
    "reliability_data",
    "subjects_data",
    "summary_data",
]
