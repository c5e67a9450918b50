"""How near reconstructions are to their originals, pixel by pixel."""

import pandas as pd

from rae_bench.report.rendering import Table
from rae_bench.report.tables.cells import cell_values
from rae_bench.report.tables.wording import mean_sd
from rae_bench.study.specs import SummarySpec


def reconstruction_table(spec: SummarySpec, frame: pd.DataFrame, dataset: str) -> Table:
    """Squared error of reconstructions; on digits, how often a classifier still sees the true label."""
    mine = frame[frame["dataset"] == dataset]
    labelled = "label_agreement" in set(mine["metric"])
    records, rows = [], []
    for name, row in ((name, row) for name, row in spec.ordered_rows.items() if not row.has_no_model):
        error, psnr, ssim, agreement = (
            cell_values(frame, dataset, row, "reconstruction", metric)
            for metric in ("squared_error", "psnr", "ssim", "label_agreement")
        )
        record = {"dataset": dataset, "row": name, "label": row.label, "n_seeds": len(error)}
        for metric, values in (("squared_error", error), ("psnr", psnr), ("ssim", ssim)):
            record |= {f"{metric}_mean": values.mean(), f"{metric}_sd": values.std(ddof=1)}
        texts = [row.label, mean_sd(error.mean(), error.std(ddof=1), "squared_error")]
        texts += [f"{psnr.mean():.2f}", f"{ssim.mean():.3f}"]
        if labelled:
            record |= {"label_agreement_mean": agreement.mean(), "label_agreement_min": agreement.min()}
            texts += [f"{100 * agreement.mean():.1f}", f"{100 * agreement.min():.1f}"]
        records.append(record)
        rows.append(texts)
    header = ["", "‖x − x̂‖² ↓", "PSNR, dB ↑", "SSIM ↑", *(["Label kept, % ↑", "worst seed"] if labelled else [])]
    kept = "Label kept: share of reconstructions that the digit classifier gives the true label."
    return Table(
        f"reconstruction_{dataset}",
        f"{spec.datasets[dataset].label}: reconstructions of {spec.image_sets[dataset].reconstructed} images",
        header,
        rows,
        set(),
        [
            "Squared error summed over pixels in [0, 1], mean over these images, after rounding to 8 bits.",
            *([kept] if labelled else []),
        ],
        pd.DataFrame(records),
    )
