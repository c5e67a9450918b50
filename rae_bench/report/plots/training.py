"""Training curves of each part of the loss."""

from pathlib import Path

import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.figure import Figure

from rae_bench.base import storage
from rae_bench.study.specs import SummarySpec


def history_path(root: Path, dataset: str, model: str, seed: int) -> Path:
    """Where the losses of a run stand, of the study in `root`."""
    return root / dataset / model / f"seed{seed}" / "history.parquet"


def training_curves(spec: SummarySpec, root: Path, dataset: str) -> Figure:
    """Reconstruction, latent and regulariser term by epoch, a panel per term, a colour per model."""
    models = list(dict.fromkeys(row.model for row in spec.ordered_rows.values()))
    labels = {row.model: row.label for row in reversed(spec.ordered_rows.values()) if not row.through}
    palette = dict(zip(models, sns.color_palette("tab10", len(models)), strict=True))
    terms = ("reconstruction", "latent", "regulariser")
    figure, axes = plt.subplots(1, 3, figsize=(7.2, 2.6), layout="constrained")
    for model in models:
        for seed in spec.train_seeds:
            sides = [f"{side}_{term}" for side in ("train", "validation") for term in terms]
            history = storage.read_frame(history_path(root, dataset, model, seed), "epoch", *sides)
            for axis, term in zip(axes, terms, strict=True):
                if (history[f"train_{term}"] == 0).all():
                    continue
                for side, width in (("validation", 1.1), ("train", 0.4)):
                    axis.plot(
                        history["epoch"] + 1,
                        history[f"{side}_{term}"],
                        color=palette[model],
                        linewidth=width,
                        label=labels.get(model, model) if (seed, side) == (spec.train_seeds[0], "validation") else None,
                    )
    for axis, term in zip(axes, terms, strict=True):
        values = [value for line in axis.lines for value in line.get_ydata()]
        axis.set_yscale(
            "log" if values and min(values) > 0 else "symlog",
            **({} if values and min(values) > 0 else {"linthresh": 1e-3}),
        )
        axis.set(xlabel="epoch", title=f"{term} (unweighted)")
    axes[0].set_ylabel("nats per image")
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, ncols=len(models), loc="outside lower center", frameon=False)
    sns.despine(figure)
    return figure
