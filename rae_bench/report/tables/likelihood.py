"""Log-likelihoods of images, by model and prior."""

import pandas as pd

from rae_bench.report.rendering import Table
from rae_bench.report.tables.cells import as_records
from rae_bench.report.tables.densities import density_order
from rae_bench.report.tables.wording import density_label, mean_sd, model_labels
from rae_bench.study.specs import SummarySpec


def likelihood_table(spec: SummarySpec, frame: pd.DataFrame, dataset: str) -> Table:
    """Evidence bound and importance-sampled likelihood of reference images, under each density as the prior."""
    mine = frame[(frame["dataset"] == dataset) & (frame["image_set"] == "reference")]
    seeds = mine.groupby(["model", "density", "train_seed"])["value"].mean()
    data = seeds.groupby(["model", "density"]).agg(["mean", "std", "size"]).reset_index()
    data = data.rename(columns={"std": "sd", "size": "n_seeds"})
    data.insert(0, "dataset", dataset)
    models = {model: label for model, label in model_labels(spec).items() if model in set(data["model"])}
    cells = {(row["density"], row["model"]): row for row in as_records(data)}
    names = [name for name in ("", *density_order(spec, dataset)) if name in set(data["density"])]
    rows = [
        [
            f"estimate, prior {density_label(name)}" if name else "evidence bound, prior N(0,I)",
            *(
                "–" if (one := cells.get((name, model))) is None else mean_sd(one["mean"], one["sd"], "log_likelihood")
                for model in models
            ),
        ]
        for name in names
    ]
    return Table(
        f"likelihood_{dataset}",
        f"{spec.datasets[dataset].label}: log-likelihood of {spec.reference_split} images, nats an image ↑",
        ["", *models.values()],
        rows,
        set(),
        [
            "Models with a KL term only. Decoder: Gaussian of variance β, the KL weight, which differs between models:"
            " compare within a column. Estimates: importance sampling from the posterior. The bound's prior is N(0,I).",
            "Densities of continuous pixels in [0, 1], not dequantised: no bits per dimension.",
        ],
        data,
    )
