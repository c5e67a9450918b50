"""What a mixture's number of components does to distances and likelihoods."""

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from rae_bench.densities.specs import DirichletMixture, GaussianMixture
from rae_bench.report.tables.wording import model_labels
from rae_bench.study.specs import SummarySpec


def has_several_counts(spec: SummarySpec, dataset: str) -> bool:
    """Whether a study has mixtures of more than one number of components."""
    return len({count for _, count in _counts(spec, dataset).values()}) > 1


def _counts(spec: SummarySpec, dataset: str) -> dict[str, tuple[str, int]]:
    """The line and the number of components of each mixture of mean codes, by its name."""
    return {
        name: ("--" if isinstance(density, DirichletMixture) else "-", density.n_components)
        for name, density in spec.fits[dataset].items()
        if isinstance(density, (GaussianMixture, DirichletMixture)) and density.codes == "mean"
    }


def components(spec: SummarySpec, frame: pd.DataFrame, dataset: str) -> Figure:
    """Distance and likelihood against the number of mixture components, a column of panels per model.

    Mixtures fitted to mean codes only: the likelihoods of draws are on another scale.
    """
    counts = _counts(spec, dataset)
    mine = frame[(frame["dataset"] == dataset) & frame["density"].isin(list(counts))]
    fitted = set(mine["model"])
    models = {model: label for model, label in model_labels(spec).items() if model in fitted}
    mine = mine.assign(components=mine["density"].map({name: count for name, (_, count) in counts.items()}))
    figure, axes = plt.subplots(
        2, len(models), figsize=(1.0 * len(models) + 0.6, 3.0), sharex=True, squeeze=False, layout="constrained"
    )
    lines = (
        (0, "frechet_distance", "#0a3a78", 1.2),
        (1, "log_likelihood_train", "0.5", 0.7),
        (1, "log_likelihood_validation", "#c9510f", 1.4),
    )
    for j, (model, label) in enumerate(models.items()):
        for style in ("-", "--"):
            names = [name for name, (found, _) in counts.items() if found == style]
            for i, metric, colour, width in lines:
                values = mine[(mine["model"] == model) & (mine["metric"] == metric) & mine["density"].isin(names)]
                seeds = values.groupby(["components", "train_seed"])["value"].mean()
                drawn = seeds.groupby("components").agg(["mean", "std"])
                axes[i, j].plot(
                    drawn.index, drawn["mean"], style, color=colour, linewidth=width, marker=".", markersize=2
                )
                low, high = drawn["mean"] - drawn["std"], drawn["mean"] + drawn["std"]
                axes[i, j].fill_between(drawn.index, low, high, color=colour, alpha=0.15, linewidth=0)
        axes[0, j].set(title=label, xscale="log", yscale="log")
        axes[1, j].set(xlabel="K", xticks=[1, 10, 100], xticklabels=["1", "10", "100"])
        held_out = mine[(mine["model"] == model) & (mine["metric"] == "log_likelihood_validation")]["value"]
        train = mine[(mine["model"] == model) & (mine["metric"] == "log_likelihood_train")]["value"]
        if len(held_out):  # an overfitted mixture's likelihood falls out of any scale: show where it turns
            best, simple = float(held_out.max()), float(min(held_out.median(), train.min()))
            axes[1, j].set_ylim(simple - 0.5 * (best - simple) - 1, best + 1.5 * (best - simple) + 1)
        for axis in axes[:, j]:
            axis.tick_params(labelsize=6, which="both")
    lowest = min(axis.get_ylim()[0] for axis in axes[0])
    highest = max(axis.get_ylim()[1] for axis in axes[0])
    for j, axis in enumerate(axes[0]):
        axis.set_ylim(lowest, highest)
        if j:
            axis.tick_params(labelleft=False, which="both")
    axes[0, 0].set_ylabel("Fréchet distance")
    axes[1, 0].set_ylabel("log-likelihood")
    sns.despine(figure)
    return figure
