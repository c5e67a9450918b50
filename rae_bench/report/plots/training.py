"""Training curves of each part of the loss."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rae_bench.base import storage
from rae_bench.report.plots.style import MANY, Dash, looks
from rae_bench.report.tables.wording import model_labels
from rae_bench.study.files import StudyFiles
from rae_bench.study.specs import SummarySpec

TERMS: dict[str, Dash] = {"reconstruction": "-", "latent": (0, (4, 1.5)), "regulariser": (0, (1, 1))}
"""The parts of a loss, and their lines where a panel has several."""
ACROSS = 6
"""Panels beside each other where every model has one."""
Histories = dict[tuple[str, int], pd.DataFrame]
"""The training histories, by model and training seed."""


def optimised(spec: SummarySpec, dataset: str) -> dict[str, str]:
    """The printed names of the models that have epochs."""
    trained = spec.trainings[dataset]
    return {model: label for model, label in model_labels(spec).items() if trained[model].network.is_optimised}


def training_curves(spec: SummarySpec, files: StudyFiles, dataset: str) -> Figure:
    """Each term of validation images by epoch that any model has, a thin line per seed, in the colour of its family.

    A panel per term, where models have a dash of their own; of more than twelve models, a panel per model.
    """
    labels = optimised(spec, dataset)
    histories = {
        (model, seed): storage.read_frame(files.run(dataset, model, seed).history, "epoch", "train_total")
        for model in labels
        for seed in spec.train_seeds
    }
    terms = [term for term in TERMS if any(_has(one, term) for one in histories.values())] or ["total"]
    draw = _by_model if len(labels) > MANY else _by_term
    figure = draw(spec, labels, histories, terms)
    sns.despine(figure)
    return figure


def _by_model(spec: SummarySpec, labels: dict[str, str], histories: Histories, terms: list[str]) -> Figure:
    """A panel per model, all on one scale, with a dash per term: dashes cannot tell more models than a few apart."""
    colours = {model: look.colour for model, look in looks(spec).items()}
    down = -(-len(labels) // ACROSS)
    figure, axes = plt.subplots(
        down, ACROSS, figsize=(7.2, 1.15 * down + 0.5), sharex=True, sharey=True, squeeze=False, layout="constrained"
    )
    for axis, (model, label) in zip(axes.flat, labels.items(), strict=False):
        for seed in spec.train_seeds:
            history = histories[model, seed]
            for term in terms:
                if _has(history, term):
                    axis.plot(
                        history["epoch"] + 1,
                        history[f"validation_{term}"],
                        color=colours[model],
                        linestyle=TERMS.get(term, "-"),
                        linewidth=0.7,
                    )
        axis.set_title(label, fontsize=7)
        axis.tick_params(labelsize=6)
    for axis in axes.flat[len(labels) :]:
        axis.set_visible(False)
    for axis in axes.flat[max(0, len(labels) - ACROSS) : len(labels)]:  # the last of each column
        axis.set_xlabel("epoch", fontsize=7)
        axis.tick_params(labelbottom=True)
    _scale(list(axes.flat))
    figure.supylabel("nats per validation image, unweighted", fontsize=8)
    lines = [Line2D([], [], color="0.2", linestyle=TERMS.get(term, "-"), linewidth=0.8) for term in terms]
    figure.legend(lines, terms, ncols=len(terms), loc="outside lower center", frameon=False, handlelength=4)
    return figure


def _by_term(spec: SummarySpec, labels: dict[str, str], histories: Histories, terms: list[str]) -> Figure:
    drawn_as = looks(spec)
    width = 7.2 if len(terms) > 1 else 4.6
    figure, axes = plt.subplots(1, len(terms), figsize=(width, 3.0), squeeze=False, layout="constrained")
    for axis, term in zip(axes[0], terms, strict=True):
        for (model, seed), history in histories.items():
            if _has(history, term):
                look, label = drawn_as[model], labels[model] if seed == spec.train_seeds[0] else None
                axis.plot(
                    history["epoch"] + 1,
                    history[f"validation_{term}"],
                    color=look.colour,
                    linestyle=look.dash,
                    linewidth=0.8,
                    label=label,
                )
        _scale([axis])
        axis.set(xlabel="epoch", title=f"{term} (unweighted)")
    axes[0, 0].set_ylabel("nats per validation image")
    handles, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, ncols=min(len(names), 5), loc="outside lower center", frameon=False, handlelength=4)
    return figure


def _scale(axes: list[Axes]) -> None:
    """Logarithms for axes of one scale; where a term is not positive, only of what is away from zero."""
    is_positive = min(np.min(np.asarray(line.get_ydata())) for axis in axes for line in axis.lines) > 0
    for axis in axes:
        axis.set_yscale(**{"value": "log"} if is_positive else {"value": "symlog", "linthresh": 1e-3})


def _has(history: pd.DataFrame, term: str) -> bool:
    """Whether a model has a term: one of a user's own has what it calls by these names."""
    column = f"train_{term}"
    return column in history and bool((history[column] != 0).any())
