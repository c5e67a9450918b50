"""Training curves of each part of the loss."""

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from rae_bench.base import storage
from rae_bench.report.plots.style import looks
from rae_bench.report.tables.wording import model_labels
from rae_bench.study.files import StudyFiles
from rae_bench.study.specs import SummarySpec

TERMS = ("reconstruction", "latent", "regulariser")


def optimised(spec: SummarySpec, dataset: str) -> dict[str, str]:
    """The printed names of the models that have epochs."""
    trained = spec.trainings[dataset]
    return {model: label for model, label in model_labels(spec).items() if trained[model].network.is_optimised}


def training_curves(spec: SummarySpec, files: StudyFiles, dataset: str) -> Figure:
    """Each term of validation images by epoch, a panel per term that any model has, a thin line per seed.

    Models have their family's colour and a dash of their own.
    """
    labels, drawn_as = optimised(spec, dataset), looks(spec)
    histories = {
        (model, seed): storage.read_frame(files.run(dataset, model, seed).history, "epoch", "train_total")
        for model in labels
        for seed in spec.train_seeds
    }
    terms = [term for term in TERMS if any(_has(one, term) for one in histories.values())] or ["total"]
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
        is_positive = min(value for line in axis.lines for value in line.get_ydata()) > 0
        axis.set_yscale(**{"value": "log"} if is_positive else {"value": "symlog", "linthresh": 1e-3})
        axis.set(xlabel="epoch", title=f"{term} (unweighted)")
    axes[0, 0].set_ylabel("nats per validation image")
    handles, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, ncols=min(len(names), 5), loc="outside lower center", frameon=False, handlelength=4)
    sns.despine(figure)
    return figure


def _has(history: pd.DataFrame, term: str) -> bool:
    """Whether a model has a term: one of a user's own has what it calls by these names."""
    column = f"train_{term}"
    return column in history and bool((history[column] != 0).any())
