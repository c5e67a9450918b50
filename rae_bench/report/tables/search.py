"""Every point of a search for loss weights, and the chosen one."""

import numpy as np
import pandas as pd

from rae_bench.densities.specs import SecondStage
from rae_bench.report.rendering import Table
from rae_bench.report.tables.cells import cell_frame, cell_values
from rae_bench.study.specs import Row, SummarySpec
from rae_bench.study.vocabulary import POINT

CRITERION = ("reconstruction", "n", "gmm")
"""The columns whose distances a point is judged by."""
SHOWN = {
    "row": "Model",
    "latent": "latent weight",
    "regulariser": "regulariser weight",
    "fd_reconstruction": "FD Rec.",
    "fd_n": "FD N",
    "fd_gmm": "FD GMM",
    "criterion": "criterion",
}


def search_table(spec: SummarySpec, frame: pd.DataFrame, dataset: str) -> Table:
    """Every point of a search with its weights and the criterion: the geometric mean of its row's Rec., N and GMM.

    `noise` is the standard error of the criterion's logarithm over fits; `settings` the fingerprint of its evaluation.
    """
    records = []
    for name, row in spec.ordered_rows.items():
        means = {column: cell_values(frame, dataset, row, column).mean() for column in CRITERION}
        records.append(
            {
                "dataset": dataset,
                "row": name.split(POINT)[0],
                **{term: _weight(spec, dataset, row, term) for term in ("latent", "regulariser")},
                **{f"fd_{column}": mean for column, mean in means.items()},
                "criterion": float(np.exp(np.nanmean(np.log(list(means.values()))))),
                "noise": _noise(frame, dataset, row),
                "settings": spec.evaluations[dataset][row.model],
            }
        )
    data = pd.DataFrame(records)
    data["chosen"] = data.groupby("row")["criterion"].transform("min") == data["criterion"]
    return Table(
        f"search_{dataset}",
        f"{spec.datasets[dataset].label}: search for the loss weights",
        list(SHOWN.values()),
        [
            [row, *("–" if np.isnan(value) else f"{value:.4g}" for value in values)]
            for row, *values in data[list(SHOWN)].itertuples(index=False)
        ],
        {(int(i), len(SHOWN) - 1) for i in np.flatnonzero(data["chosen"])},
        [
            f"Criterion: geometric mean of FD in columns Rec., N and GMM against the {spec.reference_split} split."
            " Bold: the chosen point.",
        ],
        data,
    )


def _noise(frame: pd.DataFrame, dataset: str, row: Row) -> float:
    """The standard error, over fits, of the mean logarithm of the distances that the row has; 0 of a single fit.

    A fit of a second stage counts in all columns at once; a column of one fit is the same for all.
    """
    columns = {}
    for column in CRITERION:
        values = cell_frame(frame, dataset, row, column, "frechet_distance")
        if len(values):
            columns[column] = np.log(values.groupby("fit_seed")["value"].mean())
    fits = pd.DataFrame(columns)
    for column, values in columns.items():
        fits[column] = fits[column].fillna(values.iloc[0]) if len(values) == 1 else fits[column]
    means = fits.mean(axis=1)
    return float(means.std(ddof=1) / np.sqrt(len(means))) if len(means) > 1 else 0.0


def _weight(spec: SummarySpec, dataset: str, row: Row, term: str) -> float:
    """The weight of a term of the row's loss; of a second stage's own where it has one. NaN without such a term."""
    density = spec.density(dataset, row.model, row.n)
    objective = density.objective if isinstance(density, SecondStage) else spec.trainings[dataset][row.model].objective
    return float(getattr(getattr(objective, term), "weight", np.nan))
