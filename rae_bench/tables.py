"""Tidy frame to paper-style tables: csv for programs, md for people, tex (booktabs) for papers.

`table1` has the columns of the paper's Table 1 (reconstruction, N, GMM, interpolation), and beside them N(0, I)
and the single Gaussian for every row, because column N means one or the other by row. One such table per
metric.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from rae_bench import specs, storage
from rae_bench.claims import claims_table
from rae_bench.config import POINT
from rae_bench.rendering import Table, latex, markdown

COLUMNS = {
    "reconstruction": "Rec.",
    "n": "N",
    "standard_normal": "N(0,I)",
    "gaussian": "Gaussian",
    "gmm": "GMM",
    "interpolation": "Interp.",
}
METRICS = {
    "frechet_distance": ("Fréchet distance", "FD", "lower"),
    "kernel_distance": ("Kernel distance x 1000", "KD", "lower"),
    "precision": ("Precision", "Precision", "higher"),
    "recall": ("Recall", "Recall", "higher"),
}
"""Metric: title, short name, which direction is better."""
SCALE = {"kernel_distance": 1000.0}
LEAD = 2.0
"""A value leads if it is better by more than this many pooled SDs; else it is a tie with the best."""


def write(spec: specs.SummarySpec, frame: pd.DataFrame, index: Path) -> None:
    """Write every table of the study beside `index`, and `index`, a list of what there is."""
    listed = []
    for table in build(spec, frame):
        storage.write_frame(index.parent / f"{table.name}.csv", table.data)
        storage.write_text(index.parent / f"{table.name}.md", markdown(table))
        storage.write_text(index.parent / f"{table.name}.tex", latex(table))
        listed.append(
            {
                "name": table.name,
                "title": table.title,
                "header": table.header,
                "rows": table.rows,
                "bold": sorted(table.bold),
                "notes": table.notes,
            }
        )
    storage.write_json(index, listed)


def build(spec: specs.SummarySpec, frame: pd.DataFrame) -> list[Table]:
    """Every table the study asks for, in order."""
    made: list[Table] = []
    for name in spec.tables:
        match name:
            case "table1":
                made += [table1(spec, frame, dataset, "frechet_distance") for dataset in spec.datasets]
            case "details":
                for dataset in spec.datasets:
                    made.append(reconstruction_table(spec, frame, dataset))
                    others = [metric for metric in METRICS if metric != "frechet_distance"]
                    made += [table1(spec, frame, dataset, metric) for metric in others]
            case "claims":
                made.append(_claims(spec, frame))
            case "search":
                made += [search_table(spec, frame, dataset) for dataset in spec.datasets]
            case _:
                raise ValueError(f"no table is called {name!r}")
    return made


# --- cells ------------------------------------------------------------------------------------------------


def cell_values(
    frame: pd.DataFrame, dataset: str, row: specs.Row, column: str, metric: str = "frechet_distance"
) -> pd.Series:
    """A cell's value for each training seed (index), averaged over sample seeds; empty if there is no such cell."""
    if column in ("reconstruction", "interpolation"):
        image_set, density = column, row.through
    else:
        image_set, density = "sample", {"n": row.n, "gmm": row.gmm}.get(column, column)
    if not density and image_set == "sample":
        return pd.Series(dtype=float)
    chosen = frame[
        (frame["dataset"] == dataset)
        & (frame["model"] == row.model)
        & (frame["image_set"] == image_set)
        & (frame["density"] == density)
        & (frame["metric"] == metric)
    ]
    values: pd.Series = chosen.groupby("train_seed")["value"].mean()
    return values


def cells(spec: specs.SummarySpec, frame: pd.DataFrame, dataset: str, metric: str) -> pd.DataFrame:
    """One row per cell: row, label, column, density, mean and sd over training seeds, n_seeds, whether it leads."""
    found = []
    for name, row in spec.ordered_rows.items():
        for column in COLUMNS:
            values = cell_values(frame, dataset, row, column, metric) * SCALE.get(metric, 1.0)
            if len(values):
                found.append(
                    {
                        "dataset": dataset,
                        "row": name,
                        "label": row.label,
                        "column": column,
                        "density": {"n": row.n, "gmm": row.gmm}.get(column, row.through),
                        "metric": metric,
                        "mean": values.mean(),
                        "sd": values.std(ddof=1) if len(values) > 1 else np.nan,
                        "n_seeds": len(values),
                    }
                )
    data = pd.DataFrame(found)
    data["leads"] = False
    for _, group in data.groupby("column"):
        data.loc[leaders(group["mean"], group["sd"], METRICS[metric][2]).index, "leads"] = True
    return data


def distance_name(short: str, label: str) -> str:
    """What a distance (FD or KD) in an extractor's features is called: FID and KID in official Inception's alone.

    Heusel et al. (2017) and Bińkowski et al. (2018) define them by that network; any other gives another distance.
    """
    return {"FD": "FID", "KD": "KID"}[short] if label == specs.INCEPTION_LABEL else f"{short}-{label}"


def leaders(mean: pd.Series, sd: pd.Series, better: str) -> pd.Series:
    """The best and its ties: all within LEAD pooled SDs of the best mean. None where an SD is unknown."""
    if sd.isna().any():
        return mean.iloc[:0]
    worse = mean - mean.min() if better == "lower" else mean.max() - mean
    best = worse.idxmin()
    pooled = np.sqrt((sd**2 + sd[best] ** 2) / 2)
    tied: pd.Series = mean[worse <= LEAD * pooled]
    return tied


# --- the tables -------------------------------------------------------------------------------------------


def table1(spec: specs.SummarySpec, frame: pd.DataFrame, dataset: str, metric: str) -> Table:
    """The paper's Table 1 for one data set and metric."""
    data = cells(spec, frame, dataset, metric)
    rows, bold = [], set()
    for i, (name, row) in enumerate(spec.ordered_rows.items()):
        texts = [row.label]
        for j, column in enumerate(COLUMNS, start=1):
            cell = data[(data["row"] == name) & (data["column"] == column)]
            texts.append("–" if cell.empty else _mean_sd(cell["mean"].iloc[0], cell["sd"].iloc[0], metric))
            if not cell.empty and cell["leads"].iloc[0]:
                bold.add((i, j))
        rows.append(texts)
    title, short, better = METRICS[metric]
    label = _extractor_label(frame, dataset)
    name = "table1" if metric == "frechet_distance" else f"table1_{metric}"
    arrow = "↓" if better == "lower" else "↑"
    return Table(
        f"{name}_{dataset}",
        f"{spec.datasets[dataset].label}: {title}, {distance_name(short, label)} {arrow}"
        if short in ("FD", "KD")
        else f"{spec.datasets[dataset].label}: {title} ({label}) {arrow}",
        ["", *COLUMNS.values()],
        rows,
        bold,
        [*_protocol_notes(spec, frame, dataset, metric), *(_row_notes(spec) if name == "table1" else [])],
        data,
    )


def reconstruction_table(spec: specs.SummarySpec, frame: pd.DataFrame, dataset: str) -> Table:
    """Squared error of reconstructions beside PCA's; on digits, how often a classifier still sees the true label."""
    mine = frame[frame["dataset"] == dataset]
    labelled = "label_agreement" in set(mine["metric"])
    records, rows = [], []
    for name, row in spec.ordered_rows.items():
        error = cell_values(frame, dataset, row, "reconstruction", "squared_error")
        record = {"dataset": dataset, "row": name, "label": row.label, "n_seeds": len(error)}
        record |= {"squared_error_mean": error.mean(), "squared_error_sd": error.std(ddof=1)}
        texts = [row.label, _mean_sd(error.mean(), error.std(ddof=1), "squared_error")]
        if labelled:
            agreement = cell_values(frame, dataset, row, "reconstruction", "label_agreement")
            record |= {"label_agreement_mean": agreement.mean(), "label_agreement_min": agreement.min()}
            texts += [f"{100 * agreement.mean():.1f}", f"{100 * agreement.min():.1f}"]
        records.append(record)
        rows.append(texts)
    pca = float(mine.loc[mine["metric"] == "pca_squared_error", "value"].iloc[0])
    records.append({"dataset": dataset, "row": "pca", "label": "PCA", "squared_error_mean": pca})
    rows.append(["PCA", f"{pca:.2f}", *(["–", "–"] if labelled else [])])
    header = ["", "‖x − x̂‖² ↓", *(["Label kept, % ↑", "worst seed"] if labelled else [])]
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


def _claims(spec: specs.SummarySpec, frame: pd.DataFrame) -> Table:
    data, summary = claims_table(
        {dataset: _paired(spec, frame, dataset) for dataset in spec.datasets},
        {name: row.family for name, row in spec.ordered_rows.items()},
        {name: row.label for name, row in spec.ordered_rows.items()},
    )
    return Table(
        "claims",
        "The paper's claims, held against these results",
        ["Claim (Ghosh et al. 2020, section 6)", "Data set", "Supported", "Undecided", "Contradicted"],
        [[str(text) for text in row] for row in summary],
        set(),
        [
            "Each comparison is a difference of Fréchet distances, paired by training seed, with a 95 % t-interval:"
            " supported where the interval lies on the claimed side of zero, contradicted where on the other,"
            " undecided where it holds zero. Every comparison with its interval: claims.csv.",
            "No correction for many comparisons: of 20 true ties one is expected to be called.",
        ],
        data,
    )


def _paired(spec: specs.SummarySpec, frame: pd.DataFrame, dataset: str) -> dict[tuple[str, str], pd.Series]:
    return {
        (name, column): cell_values(frame, dataset, row, column)
        for name, row in spec.ordered_rows.items()
        for column in COLUMNS
    }


def search_table(spec: specs.SummarySpec, frame: pd.DataFrame, dataset: str) -> Table:
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


def _weights(spec: specs.SummarySpec, dataset: str, row: specs.Row) -> dict[str, float]:
    density = spec.fits[dataset].get(row.n)
    objective = (
        density.objective if isinstance(density, specs.SecondStage) else spec.trainings[dataset][row.model].objective
    )
    terms = {"latent": objective.latent, "regulariser": objective.regulariser}
    return {name: float(term.weight) for name, term in terms.items() if hasattr(term, "weight")}


# --- notes ---------------------------------------------------------------------------------------


def _protocol_notes(spec: specs.SummarySpec, frame: pd.DataFrame, dataset: str, metric: str) -> list[str]:
    mine = frame[(frame["dataset"] == dataset) & (frame["metric"] == metric)]
    first = mine.iloc[0]
    label = first["extractor_label"]
    floor = float(first["floor"]) * SCALE.get(metric, 1.0)
    notes = [
        f"Mean ± SD over {len(spec.train_seeds)} training seeds. {first['n_generated']:,} generated images a cell,"
        f" {first['n_reference']:,} {spec.reference_split} images as reference. Features: {first['extractor']}."
        + (" Not comparable with FID." if metric == "frechet_distance" and label != specs.INCEPTION_LABEL else ""),
        f"Real against real ({spec.floor_split} against {spec.reference_split}, same counts): {floor:.4g}."
        " Rec. is paired with its own reference images and may lie below that.",
        f"Bold: within {LEAD:g} pooled SDs of the column's best.",
    ]
    if spec.datasets[dataset].is_synthetic:
        notes.insert(0, "SYNTHETIC images, drawn by a program: no evidence about photographs.")
    return notes


def _row_notes(spec: specs.SummarySpec) -> list[str]:
    by_density: dict[str, list[str]] = {}
    for row in spec.ordered_rows.values():
        by_density.setdefault(row.n, []).append(row.label)
    names = {"standard_normal": "N(0,I)", "gaussian": "one fitted Gaussian"}
    parts = [f"{names.get(density, density)}: {', '.join(labels)}" for density, labels in by_density.items()]
    notes = [f"Column N is {'; '.join(parts)}. GMM: ten components, full covariance. All fitted on training codes."]
    for row in spec.ordered_rows.values():
        if row.through:
            others = [other.label for other in spec.ordered_rows.values() if other.model == row.model and other != row]
            same = f" Same weights as {', '.join(others)}, hence the same N(0,I) and Gaussian." if others else ""
            notes.append(f"{row.label}: Rec. and Interp. pass through its second stage.{same}")
    return notes


def _extractor_label(frame: pd.DataFrame, dataset: str) -> str:
    return str(frame.loc[frame["dataset"] == dataset, "extractor_label"].iloc[0])


def _mean_sd(mean: float, sd: float, metric: str) -> str:
    magnitude = 0 if metric in ("precision", "recall") or mean == 0 else int(np.floor(np.log10(abs(mean))))
    digits = 3 if metric in ("precision", "recall") else max(0, 2 - magnitude)  # three significant ones
    return f"{mean:.{digits}f}" if np.isnan(sd) else f"{mean:.{digits}f} ± {sd:.{digits}f}"
