"""The paper's Table 1 beside ours: the published value, ours, their difference, and whether it lies inside the noise.

A published value is one run without error bars. Were it one more run of ours, its difference from the mean of our n
would lie within t(0.975, n − 1) · s · √(1 + 1/n) of zero in 95 % of cases, s being our SD over training seeds: the
prediction interval of one new observation. Inside it, nothing says that the two differ.
"""

from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from rae_bench.report.comparisons import CONFIDENCE
from rae_bench.report.published import numbers as published
from rae_bench.report.rendering import Table
from rae_bench.report.tables.cells import COLUMNS, as_records, first_draws, place
from rae_bench.report.tables.notes import row_notes
from rae_bench.report.tables.wording import distance_name, mean_sd
from rae_bench.scoring.specs import INCEPTION_LABEL, is_fid
from rae_bench.study.specs import PAPER_DATASETS, SummarySpec

COMPARED = ("reconstruction", "n", "gmm", "interpolation")
"""The columns of the paper's Table 1."""
MARKS = {"confirmed": "c", "approx_confirmed": "a", "single_source": "u"}
"""How a value's status is printed; u for unconfirmed."""
NOT_PUBLISHED = published.Published(np.nan, "no published value", "")


def published_tables(spec: SummarySpec, frame: pd.DataFrame) -> list[Table]:
    """The comparison for each of the paper's data sets, and what others report, where they do.

    `frame` may hold any part of the study's runs, or none: what has not been run is said to be so.
    """
    return [
        table
        for dataset in papers_datasets(spec)
        for table in (comparison_table(spec, frame, dataset), *reproduction_tables(spec, dataset))
    ]


def papers_datasets(spec: SummarySpec) -> list[str]:
    """The study's data sets that the paper has, in the paper's order."""
    order = list(PAPER_DATASETS.values())
    found = [dataset for dataset, name in spec.published.items() if name]
    return sorted(found, key=lambda dataset: (order.index(spec.published[dataset]), dataset))


def published_cells(spec: SummarySpec, frame: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """One row per cell that the paper or the study has.

    `difference`: ours − published, NaN where `withheld` says why the two cannot be compared. `inside`: yes, no,
    "not decidable" for a single seed; empty where there is nothing to compare.
    """
    withheld = "; ".join(obstacles(spec, frame, dataset))
    found = []
    for name, row in spec.competing.items():
        for column in COMPARED:
            theirs = published.table1().get((spec.published[dataset], row.label, column), NOT_PUBLISHED)
            in_study = place(row, column) is not None
            if theirs is NOT_PUBLISHED and not in_study:
                continue
            ours = first_draws(frame, dataset, row, column)
            difference = np.nan if withheld else float(ours.mean()) - theirs.value
            found.append(
                {
                    "dataset": dataset,
                    "published_dataset": spec.published[dataset],
                    "row": name,
                    "label": row.label,
                    "column": column,
                    "published": theirs.value,
                    "status": theirs.status,
                    "second_source": theirs.second_source,
                    "in_study": in_study,
                    "n_seeds": len(ours),
                    "n_planned": len(spec.train_seeds),
                    "mean": ours.mean(),
                    "sd": ours.std(ddof=1),
                    "difference": difference,
                    "noise": np.nan if np.isnan(difference) else prediction_half_width(ours),
                }
            )
    data = pd.DataFrame(found)
    data["inside"] = "no"
    data.loc[data["difference"].abs() <= data["noise"], "inside"] = "yes"
    data.loc[data["noise"].isna(), "inside"] = "not decidable"
    data.loc[data["difference"].isna(), "inside"] = ""
    return data.assign(withheld=withheld)


def obstacles(spec: SummarySpec, frame: pd.DataFrame, dataset: str) -> list[str]:
    """Why the study's distances on `dataset` are not the FID that was published; empty if they are."""
    mine = _distances(frame, dataset)
    name = _name(spec, frame, dataset)
    counts = sorted(
        {spec.n_images, spec.n_generated, *mine["n_generated"], *mine["n_reference"]} - {published.N_IMAGES}
    )
    return [
        *([f"{name} is not FID"] if name != "FID" else []),
        *(f"{count:,} images are not {published.N_IMAGES:,}" for count in counts),
        *([f"{spec.reference_split} images are not test images"] if spec.reference_split != "test" else []),
    ]


def _distances(frame: pd.DataFrame, dataset: str) -> pd.DataFrame:
    return frame[(frame["dataset"] == dataset) & (frame["metric"] == "frechet_distance")]


def _name(spec: SummarySpec, frame: pd.DataFrame, dataset: str) -> str:
    """What the study's distance is called; before there are results, by the network it will be measured in."""
    planned, measured = spec.extractors[dataset], _distances(frame, dataset)["extractor_label"]
    label = measured.iloc[0] if len(measured) else INCEPTION_LABEL if is_fid(planned) else planned
    return distance_name("FD", label)


def comparison_table(spec: SummarySpec, frame: pd.DataFrame, dataset: str) -> Table:
    """Every cell of the paper's Table 1 for one data set beside ours."""
    data = published_cells(spec, frame, dataset)
    return Table(
        f"published_{dataset}",
        f"{spec.datasets[dataset].label}: the paper's Table 1 ({spec.published[dataset]}) beside ours, protocol"
        f" {spec.protocol}",
        ["", "Column", "Published FID", f"Our {_name(spec, frame, dataset)}", "Seeds", "Difference", "Noise", "Inside"],
        [_texts(cell) for cell in as_records(data)],
        {(int(i), 5) for i in np.flatnonzero(data["inside"] == "no")},
        [
            "Published: Ghosh et al. 2020, as submitted; single runs without error bars. c: confirmed, found again in a"
            " second place; a: a second place agrees, rounded; u: unconfirmed, read in their table alone.",
            _measured_note(spec, _distances(frame, dataset), data[data["in_study"]]),
            _noise_note(data),
            *spec.notes[dataset],
            *row_notes(spec, dataset, spec.competing),
        ],
        data,
    )


def _texts(cell: dict[str, Any]) -> list[str]:
    is_published = cell["status"] in MARKS
    theirs = f"{cell['published']:.2f} ({MARKS[cell['status']]})" if is_published else cell["status"]
    if not cell["in_study"]:
        return [cell["label"], COLUMNS[cell["column"]], theirs, "not in this study", "–", "–", "–", "–"]
    ours, compared = "not run", ["–", "–", "–"]
    if cell["n_seeds"]:
        ours = mean_sd(cell["mean"], cell["sd"], "frechet_distance", None if cell["withheld"] else 2)
        compared[0] = "withheld" if is_published else "–"
    if cell["inside"]:
        difference = f"{cell['difference']:+.2f}".replace("-", "−")
        compared = [difference, "–" if np.isnan(cell["noise"]) else f"{cell['noise']:.2f}", cell["inside"]]
    seeds = f"{cell['n_seeds']} of {cell['n_planned']}"
    return [cell["label"], COLUMNS[cell["column"]], theirs, ours, seeds, *compared]


def _measured_note(spec: SummarySpec, distances: pd.DataFrame, cells: pd.DataFrame) -> str:
    if distances.empty:
        return "Ours: not run."
    first = distances.iloc[0]
    return (
        f"Ours: mean ± SD over the training seeds that have finished, {cells['n_seeds'].sum()} of"
        f" {cells['n_planned'].sum()} in all cells, one draw of samples each. {first['n_generated']:,} generated images"
        f" a cell, {first['n_reference']:,} {spec.reference_split} images as reference. Features: {first['extractor']}."
    )


def _noise_note(data: pd.DataFrame) -> str:
    if withheld := data["withheld"].iloc[0]:
        return f"Not comparable, so no difference is given: {withheld}."
    inside, decided = (data["inside"] == "yes").sum(), data["inside"].isin(["yes", "no"]).sum()
    return (
        "Difference: ours − published. Noise: t(0.975, n − 1)·s·√(1 + 1/n), s our SD over n training seeds: a published"
        " value that were one more run of ours would differ by no more in 95 % of cases. Inside: the difference is no"
        f" larger; bold where it is.{f' {inside} of {decided} cells are.' if decided else ''} By chance alone one in"
        " twenty would not be. Few seeds make the noise wide: inside is no proof of equality. One seed: not decidable."
    )


def reproduction_tables(spec: SummarySpec, dataset: str) -> list[Table]:
    """A table of what others report who ran the paper's models on the data set again; none where nobody did."""
    data = published.reproductions(spec.published[dataset])
    table = Table(
        f"published_reproductions_{dataset}",
        f"{spec.datasets[dataset].label}: what others report ({spec.published[dataset]})",
        ["", "Column", "FID", "Who", "What"],
        data.drop(columns="dataset").to_numpy().tolist(),
        set(),
        ["As reported; not scored here, and under settings of their own."],
        data,
    )
    return [table] if table.rows else []


def prediction_half_width(values: pd.Series) -> float:
    """How far one new value of the same kind lies from the mean of `values` in 95 % of cases: t · s · √(1 + 1/n).

    s is the SD of the n values, t the Student quantile of n − 1 degrees of freedom; NaN for a single value.
    """
    n = len(values)
    if n < 2:
        return float("nan")
    return float(stats.t.ppf(0.5 + CONFIDENCE / 2, n - 1) * values.std(ddof=1) * np.sqrt(1 + 1 / n))
