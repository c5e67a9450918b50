"""The grid: every model under every density."""

import pandas as pd

from rae_bench.report.rendering import Table
from rae_bench.report.tables.cells import LEAD, as_records, leaders
from rae_bench.report.tables.notes import measured_notes, synthetic_notes, warning_notes
from rae_bench.report.tables.wording import METRICS, density_label, mean_sd, model_labels
from rae_bench.study.specs import SummarySpec

GRID = ("frechet_distance", "precision", "recall", "log_likelihood_validation", "nearest_training_ratio")
"""What the grid of densities shows of each model and density, a table each."""
GRID_TITLES = {"log_likelihood_validation": "Held-out log-likelihood of validation codes, nats a code"}


def density_order(spec: SummarySpec, dataset: str) -> list[str]:
    """Every density, the study's own in its order, then the second stages of rows."""
    return [*spec.densities, *sorted(set(spec.fits[dataset]) - set(spec.densities))]


def density_table(spec: SummarySpec, frame: pd.DataFrame, dataset: str, metric: str) -> Table:
    """One metric of every trained model (columns) under every density (rows)."""
    mine = frame[(frame["dataset"] == dataset) & (frame["metric"] == metric) & (frame["density"] != "")]
    mine = mine[mine["image_set"].isin(["sample", "codes"])]
    seeds = mine.groupby(["density", "model", "train_seed"])["value"].mean()
    data = seeds.groupby(["density", "model"]).agg(["mean", "std", "size"]).reset_index()
    data = data.rename(columns={"std": "sd", "size": "n_seeds"})
    data.insert(0, "metric", metric)
    data.insert(0, "dataset", dataset)
    models = model_labels(spec)
    order = [name for name in density_order(spec, dataset) if name in set(data["density"])]
    title, _, better = METRICS.get(metric, (GRID_TITLES.get(metric, metric), "", "higher"))
    cells = {(row["density"], row["model"]): row for row in as_records(data)}
    rows, bold = [], set()
    for i, density in enumerate(order):
        found = [cells.get((density, model)) for model in models]
        rows.append(
            [
                density_label(density),
                *("–" if one is None else mean_sd(one["mean"], one["sd"], metric) for one in found),
            ]
        )
        for j, model in enumerate(models, start=1):
            column = data[data["model"] == model].set_index("density")
            if metric in ("frechet_distance", "log_likelihood_validation") and density in column.index:
                best = leaders(column["mean"], column["sd"], better).index
                bold |= {(i, j)} if density in best else set()
    arrow = "↓" if better == "lower" else "↑"
    if metric == "log_likelihood_validation":
        notes = [
            *synthetic_notes(spec, dataset),
            f"Mean ± SD over {len(spec.train_seeds)} training seeds.",
            "Comparable within a column only: another model has other codes. Kernel bandwidths, flows and second stages"
            " chose their bandwidth or epoch on these same validation codes. Densities fitted to draws from posteriors"
            " are judged on draws, not comparable with the others. –: no likelihood.",
        ]
    else:
        notes = measured_notes(spec, frame, dataset, metric)
    notes.append(
        "Second stages and other densities alike were fitted ex post on the codes of"
        f" {spec.datasets[dataset].n_train:,} training images."
    )
    if metric in ("frechet_distance", "log_likelihood_validation"):
        notes.append(f"Bold: within {LEAD:g} pooled SDs of the column's best.")
    notes += warning_notes(frame, dataset, metric)
    return Table(
        f"densities_{metric}_{dataset}",
        f"{spec.datasets[dataset].label}: every model under every density. {title} {arrow}",
        ["", *models.values()],
        rows,
        bold,
        notes,
        data,
    )
