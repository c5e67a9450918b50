"""Training curves of each part of the loss."""

import itertools

import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.figure import Figure

from rae_bench.base import storage
from rae_bench.report.tables.wording import model_labels
from rae_bench.study.files import StudyFiles
from rae_bench.study.specs import SummarySpec


def training_curves(spec: SummarySpec, files: StudyFiles, dataset: str) -> Figure:
    """Reconstruction, latent and regulariser term by epoch, a panel per term, a colour per model that has epochs."""
    labels = {
        model: label
        for model, label in model_labels(spec).items()
        if spec.trainings[dataset][model].network.is_optimised
    }
    palette = dict(zip(labels, sns.color_palette("tab10", len(labels)), strict=True))
    terms, sides = ("reconstruction", "latent", "regulariser"), {"validation": 1.1, "train": 0.4}
    figure, axes = plt.subplots(1, 3, figsize=(7.2, 2.6), layout="constrained")
    for (model, label), seed in itertools.product(labels.items(), spec.train_seeds):
        history = storage.read_frame(files.run(dataset, model, seed).history, "epoch", "train_total")
        for (axis, term), (side, width) in itertools.product(zip(axes, terms, strict=True), sides.items()):
            # a model of a user's own has terms of its own
            if f"train_{term}" in history and (history[f"train_{term}"] != 0).any():
                is_named = (seed, side) == (spec.train_seeds[0], "validation")
                axis.plot(
                    history["epoch"] + 1,
                    history[f"{side}_{term}"],
                    color=palette[model],
                    linewidth=width,
                    label=label if is_named else None,
                )
    for axis, term in zip(axes, terms, strict=True):
        is_positive = min((value for line in axis.lines for value in line.get_ydata()), default=0) > 0
        axis.set_yscale(**{"value": "log"} if is_positive else {"value": "symlog", "linthresh": 1e-3})
        axis.set(xlabel="epoch", title=f"{term} (unweighted)")
    axes[0].set_ylabel("nats per image")
    figure.legend(*axes[0].get_legend_handles_labels(), ncols=len(labels), loc="outside lower center", frameon=False)
    sns.despine(figure)
    return figure
