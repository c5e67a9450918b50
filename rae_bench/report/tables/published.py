"""The paper's Table 1 beside ours: the published value, ours, their difference, and whether it lies inside the noise.

A published value is one run without error bars. Were it one more run of ours, its difference from the mean of our n
would lie within t(0.975, n − 1) · s · √(1 + 1/n) of zero in 95 % of cases, s being our SD over training seeds: the
prediction interval of one new observation. Inside it, nothing says that the two differ.
"""

from typing import Any

import numpy as np
import pandas as pd

from rae_bench.report.comparisons import prediction_half_width
from rae_bench.report.published import numbers as published
from rae_bench.report.rendering import Table
from rae_bench.report.tables.cells import COLUMNS, as_records, extractor_label, first_draws, has_cell
from rae_bench.report.tables.notes import row_notes
from rae_bench.report.tables.wording import METRICS, distance_name, mean_sd
from rae_bench.scoring.specs import INCEPTION_LABEL, is_fid
from rae_bench.study.specs import PAPER_DATASETS, SummarySpec

COMPARED = ("reconstruction", "n", "gmm", "interpolation")
"""The columns of the paper's Table 1."""
MARKS = {"confirmed": "c", "approx_confirmed": "a", "single_source": "u"}
"""How a value's status is printed; u for unconfirmed."""


def published_tables(spec: SummarySpec, frame: pd.DataFrame) -> list[Table]:
    """For each of the paper's data sets the comparison, and what others report, where they do.

    `frame` may hold any part of the study's runs, or none: what has not been run is said to be so.
    """
    made = []
    for dataset in papers_datasets(spec):
        made.append(comparison_table(spec, frame, dataset))
        if any(one.dataset == spec.published[dataset] for one in published.reproductions()):
            made.append(reproduction_table(spec, dataset))
    return made


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
    for name, row in spec.ordered_rows.items():
        for column in COMPARED:
            theirs = published.lookup(spec.published[dataset], row.label, column)
            if theirs is None and not has_cell(row, column):
                continue
            ours = first_draws(frame, dataset, row, column)
            comparable = theirs is not None and len(ours) > 0 and not withheld
            difference = float(ours.mean()) - theirs.value if theirs is not None and comparable else np.nan
            noise = prediction_half_width(ours) if comparable else np.nan
            found.append(
                {
                    "dataset": dataset,
                    "published_dataset": spec.published[dataset],
                    "row": name,
                    "label": row.label,
                    "column": column,
                    "published": np.nan if theirs is None else theirs.value,
                    "status": "no published value" if theirs is None else theirs.status,
                    "second_source": "" if theirs is None else theirs.second_source,
                    "in_study": has_cell(row, column),
                    "n_seeds": len(ours),
                    "n_planned": len(spec.train_seeds),
                    "mean": ours.mean(),
                    "sd": ours.std(ddof=1),
                    "difference": difference,
                    "noise": noise,
                    "inside": _inside(difference, noise),
                    "withheld": withheld,
                }
            )
    return pd.DataFrame(found)


def _inside(difference: float, noise: float) -> str:
    if np.isnan(difference):
        return ""
    if np.isnan(noise):
        return "not decidable"
    return "yes" if abs(difference) <= noise else "no"


def obstacles(spec: SummarySpec, frame: pd.DataFrame, dataset: str) -> list[str]:
    """Why the study's distances on `dataset` are not the FID that was published; empty if they are."""
    mine = _distances(frame, dataset)
    name = _name(spec, frame, dataset)
    counts = sorted({spec.n_images, *mine["n_generated"], *mine["n_reference"]} - {published.N_IMAGES})
    return [
        *([f"{name} is not FID"] if name != "FID" else []),
        *(f"{count:,} images are not {published.N_IMAGES:,}" for count in counts),
        *([f"{spec.reference_split} images are not test images"] if spec.reference_split != "test" else []),
    ]


def _distances(frame: pd.DataFrame, dataset: str) -> pd.DataFrame:
    return frame[(frame["dataset"] == dataset) & (frame["metric"] == "frechet_distance")]


def _name(spec: SummarySpec, frame: pd.DataFrame, dataset: str) -> str:
    """What the study's distance is called; before there are results, by the network it will be measured in."""
    planned = spec.extractors[dataset]
    label = INCEPTION_LABEL if is_fid(planned) else planned
    if len(_distances(frame, dataset)):
        label = extractor_label(frame, dataset)
    return distance_name(METRICS["frechet_distance"][1], label)


def comparison_table(spec: SummarySpec, frame: pd.DataFrame, dataset: str) -> Table:
    """Every cell of the paper's Table 1 for one data set beside ours."""
    data = published_cells(spec, frame, dataset)
    cells = as_records(data)
    return Table(
        f"published_{dataset}",
        f"{spec.datasets[dataset].label}: the paper's Table 1 ({spec.published[dataset]}) beside ours, protocol"
        f" {spec.protocol}",
        ["", "Column", "Published FID", f"Our {_name(spec, frame, dataset)}", "Seeds", "Difference", "Noise", "Inside"],
        [_texts(cell) for cell in cells],
        {(i, 5) for i, cell in enumerate(cells) if cell["inside"] == "no"},
        [
            "Published: Ghosh et al. 2020, as submitted; single runs without error bars. c: confirmed, found again in a"
            " second place; a: a second place agrees, rounded; u: unconfirmed, read in their table alone.",
            *_our_notes(spec, frame, dataset, data),
            *_noise_notes(data),
            *spec.notes[dataset],
            *row_notes(spec, dataset),
        ],
        data,
    )


def _texts(cell: dict[str, Any]) -> list[str]:
    is_published = cell["status"] in MARKS
    texts = [
        cell["label"],
        COLUMNS[cell["column"]],
        f"{cell['published']:.2f} ({MARKS[cell['status']]})" if is_published else cell["status"],
    ]
    if not cell["in_study"]:
        return [*texts, "not in this study", "–", "–", "–", "–"]
    texts += [_ours(cell), f"{cell['n_seeds']} of {cell['n_planned']}"]
    if np.isnan(cell["difference"]):
        has_both = is_published and cell["n_seeds"]
        return [*texts, "withheld" if has_both else "–", "–", "–"]
    difference = f"{cell['difference']:+.2f}".replace("-", "−")
    return [*texts, difference, "–" if np.isnan(cell["noise"]) else f"{cell['noise']:.2f}", cell["inside"]]


def _ours(cell: dict[str, Any]) -> str:
    if not cell["n_seeds"]:
        return "not run"
    if cell["withheld"]:
        return mean_sd(cell["mean"], cell["sd"], "frechet_distance")
    return f"{cell['mean']:.2f}" + ("" if np.isnan(cell["sd"]) else f" ± {cell['sd']:.2f}")


def _our_notes(spec: SummarySpec, frame: pd.DataFrame, dataset: str, data: pd.DataFrame) -> list[str]:
    mine = _distances(frame, dataset)
    if mine.empty:
        return ["Ours: not run."]
    first, cells = mine.iloc[0], data[data["in_study"]]
    return [
        f"Ours: mean ± SD over the training seeds that have finished, {cells['n_seeds'].sum()} of"
        f" {cells['n_planned'].sum()} in all cells, one draw of samples each. {first['n_generated']:,} generated images"
        f" a cell, {first['n_reference']:,} {spec.reference_split} images as reference. Features: {first['extractor']}."
    ]


def _noise_notes(data: pd.DataFrame) -> list[str]:
    withheld = data["withheld"].iloc[0]
    if withheld:
        return [f"Not comparable, so no difference is given: {withheld}."]
    decided = data[data["inside"].isin(["yes", "no"])]
    inside = f" {(decided['inside'] == 'yes').sum()} of {len(decided)} cells are." if len(decided) else ""
    return [
        "Difference: ours − published. Noise: t(0.975, n − 1)·s·√(1 + 1/n), s our SD over n training seeds: a published"
        " value that were one more run of ours would differ by no more in 95 % of cases. Inside: the difference is no"
        f" larger; bold where it is.{inside} By chance alone one in twenty would not be. Few seeds make the noise wide:"
        " inside is no proof of equality. One seed: not decidable."
    ]


def reproduction_table(spec: SummarySpec, dataset: str) -> Table:
    """What others report who ran the paper's models on the data set again."""
    found = [one for one in published.reproductions() if one.dataset == spec.published[dataset]]
    return Table(
        f"published_reproductions_{dataset}",
        f"{spec.datasets[dataset].label}: what others report ({spec.published[dataset]})",
        ["", "Column", "FID", "Who", "What"],
        [[one.model, one.column, one.value, one.who, one.note] for one in found],
        set(),
        ["As reported; not scored here, and under settings of their own."],
        pd.DataFrame([vars(one) for one in found]),
    )
