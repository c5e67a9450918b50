"""Every point of a search for loss weights, and the chosen one."""

import numpy as np
import pandas as pd

from rae_bench.densities.specs import SecondStage
from rae_bench.report.rendering import Table
from rae_bench.report.tables.cells import cell_values
from rae_bench.study.specs import Row, SummarySpec
from rae_bench.study.vocabulary import POINT


def search_table(spec: SummarySpec, frame: pd.DataFrame, dataset: str) -> Table:
    """Every point of a search with its weights and the criterion: the geometric mean of its row's Rec., N and GMM."""
    records = []
    for name, row in spec.ordered_rows.items():
        distances = {column: cell_values(frame, dataset, row, column) for column in ("reconstruction", "n", "gmm")}
        means = {column: float(values.mean()) for column, values in distances.items() if len(values)}
        weights = _weights(spec, dataset, row)
        records.append(
            {
                "dataset": dataset,
                "row": name.split(POINT)[0],
                "latent": weights.get("latent", np.nan),
                "regulariser": weights.get("regulariser", np.nan),
                **{f"fd_{column}": means.get(column, np.nan) for column in distances},
                "criterion": float(np.exp(np.mean(np.log(list(means.values()))))),
            }
        )
    data = pd.DataFrame(records)
    data["chosen"] = data.groupby("row")["criterion"].transform("min") == data["criterion"]
    shown = ["row", "latent", "regulariser", "fd_reconstruction", "fd_n", "fd_gmm", "criterion"]
    rows = [
        ["–" if isinstance(value, float) and np.isnan(value) else f"{value:.4g}" if isinstance(value, float) else value
         for value in record]
        for record in data[shown].itertuples(index=False)
    ]  # fmt: skip
    bold = {(int(i), len(shown) - 1) for i in np.flatnonzero(data["chosen"])}
    return Table(
        f"search_{dataset}",
        f"{spec.datasets[dataset].label}: search for the loss weights",
        ["Model", "latent weight", "regulariser weight", "FD Rec.", "FD N", "FD GMM", "criterion"],
        rows,
        bold,
        [
            f"Criterion: geometric mean of FD in columns Rec., N and GMM against the {spec.reference_split} split."
            " Bold: the chosen point.",
        ],
        data,
    )


def _weights(spec: SummarySpec, dataset: str, row: Row) -> dict[str, float]:
    density = spec.density(dataset, row.model, row.n)
    objective = density.objective if isinstance(density, SecondStage) else spec.trainings[dataset][row.model].objective
    terms = {"latent": objective.latent, "regulariser": objective.regulariser}
    return {name: float(term.weight) for name, term in terms.items() if hasattr(term, "weight")}
