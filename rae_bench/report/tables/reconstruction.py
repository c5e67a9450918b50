"""How near reconstructions are to their originals, pixel by pixel."""

import pandas as pd

from rae_bench.report.rendering import Table
from rae_bench.report.tables.cells import cell_values
from rae_bench.report.tables.wording import mean_sd
from rae_bench.study.specs import SummarySpec


def reconstruction_table(spec: SummarySpec, frame: pd.DataFrame, dataset: str) -> Table:
    """Squared error of reconstructions beside PCA's; on digits, how often a classifier still sees the true label."""
    mine = frame[frame["dataset"] == dataset]
    labelled = "label_agreement" in set(mine["metric"])
    records, rows = [], []
    for name, row in spec.ordered_rows.items():
        error = cell_values(frame, dataset, row, "reconstruction", "squared_error")
        record = {"dataset": dataset, "row": name, "label": row.label, "n_seeds": len(error)}
        record |= {"squared_error_mean": error.mean(), "squared_error_sd": error.std(ddof=1)}
        texts = [row.label, mean_sd(error.mean(), error.std(ddof=1), "squared_error")]
        for metric, decimals in (("psnr", 2), ("ssim", 3)):
            values = cell_values(frame, dataset, row, "reconstruction", metric)
            record |= {f"{metric}_mean": values.mean(), f"{metric}_sd": values.std(ddof=1)}
            texts.append(f"{values.mean():.{decimals}f}")
        if labelled:
            agreement = cell_values(frame, dataset, row, "reconstruction", "label_agreement")
            record |= {"label_agreement_mean": agreement.mean(), "label_agreement_min": agreement.min()}
            texts += [f"{100 * agreement.mean():.1f}", f"{100 * agreement.min():.1f}"]
        records.append(record)
        rows.append(texts)
    pca = float(mine.loc[mine["metric"] == "pca_squared_error", "value"].iloc[0])
    records.append({"dataset": dataset, "row": "pca", "label": "PCA", "squared_error_mean": pca})
    rows.append(["PCA", f"{pca:.2f}", "–", "–", *(["–", "–"] if labelled else [])])
    header = ["", "‖x − x̂‖² ↓", "PSNR, dB ↑", "SSIM ↑", *(["Label kept, % ↑", "worst seed"] if labelled else [])]
    notes = [
        "Squared error summed over pixels in [0, 1], mean over the reference images, after rounding to 8 bits.",
        f"PCA: fitted on the training images, as many components as a code has dimensions"
        f" ({next(iter(spec.trainings[dataset].values())).network.latent_dim}).",
    ]
    if labelled:
        notes.append("Label kept: share of reconstructions that the digit classifier gives the true label.")
    return Table(
        f"reconstruction_{dataset}",
        f"{spec.datasets[dataset].label}: reconstructions of {spec.reference_split} images",
        header,
        rows,
        set(),
        notes,
        pd.DataFrame(records),
    )
