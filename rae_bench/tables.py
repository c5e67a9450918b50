"""Tidy frame to paper-style tables: csv for programs, md for people, tex (booktabs) for papers.

`table1` has the columns of the paper's Table 1 (reconstruction, N, GMM, interpolation), and beside them N(0, I)
and the single Gaussian for every row, because column N means one or the other by row. One such table per
metric.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rae_bench import specs, storage
from rae_bench.claims import claims_table
from rae_bench.comparisons import kendall, pairs, rank_agreement, ranks
from rae_bench.config import OWN, POINT
from rae_bench.rendering import Table, latex, markdown
from rae_bench.results import HALF_SD, warnings

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
    "frechet_infinity": ("Fréchet distance extrapolated to infinitely many images", "FD∞", "lower"),
    "kernel_distance": ("Kernel distance x 1000 (mean over subsets)", "KD", "lower"),
    "kernel_mmd2": ("Kernel MMD² x 1000 (all images)", "MMD²", "lower"),
    "precision": ("Precision", "Precision", "higher"),
    "recall": ("Recall", "Recall", "higher"),
    "density": ("Density", "Density", "higher"),
    "coverage": ("Coverage", "Coverage", "higher"),
    "prd_f1_8": ("PRD F_1/8 (precision)", "F_1/8", "higher"),
    "prd_f8": ("PRD F_8 (recall)", "F_8", "higher"),
    "nearest_training_ratio": (
        "Distance to the nearest training image, over a fresh real image's",
        "NN ratio",
        "higher",
    ),
    "attribute_error": ("Attribute-marginal error (total variation)", "Attribute error", "lower"),
    "mode_coverage": ("Mode coverage", "Mode coverage", "higher"),
}
"""Metric: title, short name, which direction is better (for the ratio: further from copying)."""
DISTANCES = {"FD": "FID", "FD∞": "FID∞", "KD": "KID", "MMD²": "MMD²-Inception"}
"""Short names of distances, and what they are called in official Inception features."""
SHARES = ("precision", "recall", "density", "coverage", "prd_f1_8", "prd_f8", "nearest_training_ratio", "mode_coverage")
"""Metrics of order one, shown with three decimals."""
SCALE = {"kernel_distance": 1000.0, "kernel_mmd2": 1000.0}
LEAD = 2.0
"""A value leads if it is better by more than this many pooled SDs; else it is a tie with the best."""
LEVEL = 0.05
MOST_WARNINGS = 5


def write(spec: specs.SummarySpec, frame: pd.DataFrame, root: Path, index: Path) -> None:
    """Write every table of the study in `root` beside `index`, and `index`, a list of what there is."""
    listed = []
    for table in build(spec, frame, root):
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


def build(spec: specs.SummarySpec, frame: pd.DataFrame, root: Path) -> list[Table]:
    """Every table the study asks for, in order; `root` holds the panel of protocols, where there is one."""
    made: list[Table] = []
    for name in spec.tables:
        match name:
            case "table1":
                made += [table1(spec, frame, dataset, "frechet_distance") for dataset in spec.datasets]
            case "details":
                for dataset in spec.datasets:
                    made.append(reconstruction_table(spec, frame, dataset))
                    present = set(frame.loc[frame["dataset"] == dataset, "metric"])
                    others = [metric for metric in METRICS if metric in present - {"frechet_distance"}]
                    made += [table1(spec, frame, dataset, metric) for metric in others]
                    if "evidence_bound" in present:
                        made.append(likelihood_table(spec, frame, dataset))
            case "claims":
                made.append(_claims(spec, frame))
            case "comparisons":
                for dataset in spec.datasets:
                    made += [ranking_table(spec, frame, dataset), comparisons_table(spec, frame, dataset)]
            case "densities":
                for dataset in spec.datasets:
                    made += [density_table(spec, frame, dataset, metric) for metric in GRID]
            case "protocols":
                panel = storage.read_frame(root / "protocols.parquet")
                made += [protocol_table(spec, panel, dataset) for dataset in spec.datasets]
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
    values: pd.Series = (
        _chosen(frame, dataset, row.model, image_set, density, metric).groupby("train_seed")["value"].mean()
    )
    return values


def sampler_values(frame: pd.DataFrame, dataset: str, row: specs.Row) -> pd.Series:
    """The Fréchet distance of the row's GMM, or of its N where it has none, by train and sample seed."""
    chosen = _chosen(frame, dataset, row.model, "sample", row.gmm or row.n, "frechet_distance")
    values: pd.Series = chosen.set_index(["train_seed", "sample_seed"])["value"]
    return values


def _chosen(frame: pd.DataFrame, dataset: str, model: str, image_set: str, density: str, metric: str) -> pd.DataFrame:
    return frame[
        (frame["dataset"] == dataset)
        & (frame["model"] == model)
        & (frame["image_set"] == image_set)
        & (frame["density"] == density)
        & (frame["metric"] == metric)
    ]


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
    """What one of DISTANCES in an extractor's features is called: FID and KID in official Inception's alone.

    Heusel et al. (2017) and Bińkowski et al. (2018) define them by that network; any other gives another distance.
    """
    return DISTANCES[short] if label == specs.INCEPTION_LABEL else f"{short}-{label}"


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
        if short in DISTANCES
        else f"{spec.datasets[dataset].label}: {title} ({label}) {arrow}",
        ["", *COLUMNS.values()],
        rows,
        bold,
        [
            *_measured_notes(spec, frame, dataset, metric),
            "Rec. is paired with its own reference images and may lie below real against real.",
            f"Bold: within {LEAD:g} pooled SDs of the column's best.",
            *_warning_notes(frame, dataset, metric),
            *(_row_notes(spec) if name == "table1" else []),
        ],
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


def _claims(spec: specs.SummarySpec, frame: pd.DataFrame) -> Table:
    data, summary = claims_table(
        {dataset: _paired(spec, frame, dataset) for dataset in spec.datasets},
        {name: row.family for name, row in spec.ordered_rows.items()},
        {name: row.label for name, row in spec.ordered_rows.items()},
    )
    return Table(
        "claims",
        "The paper's claims, held against these results",
        [
            "Claim (Ghosh et al. 2020, section 6)",
            "Data set",
            "Supported",
            "Undecided",
            "Contradicted",
            "Supported after correction",
        ],
        [[str(text) for text in row] for row in summary],
        set(),
        [
            "Each comparison is a difference of Fréchet distances, paired by training seed, with a 95 % t-interval:"
            " supported where the interval lies on the claimed side of zero, contradicted where on the other,"
            " undecided where it holds zero. Every comparison with its interval: claims.csv.",
            "The three counts are uncorrected: of 20 true ties one is expected to be called. The last column counts"
            " those whose p stays below 0.05 after Holm's correction over all comparisons of the data set.",
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


GRID = ("frechet_distance", "precision", "recall", "log_likelihood_validation", "nearest_training_ratio")
"""What the grid of densities shows of each model and density, a table each."""
GRID_TITLES = {"log_likelihood_validation": "Held-out log-likelihood of validation codes, nats a code"}


def density_label(name: str) -> str:
    """A density's printed name."""
    fixed = {"standard_normal": "N(0,I)", "gaussian": "Gaussian", "gaussian_diagonal": "Gaussian, diagonal"}
    fixed |= {"second_stage": "second stage", "second_stage_dai_wipf": "second stage (Dai and Wipf)", "kde": "KDE"}
    if name in fixed:
        return fixed[name]
    if name.endswith("_sampled"):
        return f"{density_label(name.removesuffix('_sampled'))} of draws"
    kind, number = name.rstrip("0123456789"), name[len(name.rstrip("0123456789")) :]
    return {"gmm": "GMM-", "dp": "DP-"}[kind] + number if kind in ("gmm", "dp") and number else name.replace("_", " ")


def density_order(spec: specs.SummarySpec, dataset: str) -> list[str]:
    """Every density, the study's own in its order, then the second stages of rows."""
    return [*spec.densities, *sorted(set(spec.fits[dataset]) - set(spec.densities))]


def model_labels(spec: specs.SummarySpec) -> dict[str, str]:
    """The printed name of each trained model: that of its row which is not a second stage's."""
    labels = {row.model: row.label for row in reversed(spec.ordered_rows.values()) if not row.through}
    return {model: labels.get(model, model) for model in dict.fromkeys(r.model for r in spec.ordered_rows.values())}


def density_table(spec: specs.SummarySpec, frame: pd.DataFrame, dataset: str, metric: str) -> Table:
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
    cells = {(row["density"], row["model"]): row for row in _records(data)}
    rows, bold = [], set()
    for i, density in enumerate(order):
        found = [cells.get((density, model)) for model in models]
        rows.append(
            [
                density_label(density),
                *("–" if one is None else _mean_sd(one["mean"], one["sd"], metric) for one in found),
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
            *_synthetic_notes(spec, dataset),
            f"Mean ± SD over {len(spec.train_seeds)} training seeds.",
            "Comparable within a column only: another model has other codes. Kernel bandwidths, flows and second stages"
            " chose their bandwidth or epoch on these same validation codes. Densities fitted to draws from posteriors"
            " are judged on draws, not comparable with the others. –: no likelihood.",
        ]
    else:
        notes = _measured_notes(spec, frame, dataset, metric)
    notes.append(
        "Second stages and other densities alike were fitted ex post on the codes of"
        f" {spec.datasets[dataset].n_train:,} training images."
    )
    if metric in ("frechet_distance", "log_likelihood_validation"):
        notes.append(f"Bold: within {LEAD:g} pooled SDs of the column's best.")
    notes += _warning_notes(frame, dataset, metric)
    return Table(
        f"densities_{metric}_{dataset}",
        f"{spec.datasets[dataset].label}: every model under every density. {title} {arrow}",
        ["", *models.values()],
        rows,
        bold,
        notes,
        data,
    )


def likelihood_table(spec: specs.SummarySpec, frame: pd.DataFrame, dataset: str) -> Table:
    """Evidence bound and importance-sampled likelihood of reference images, under each density as the prior."""
    mine = frame[(frame["dataset"] == dataset) & (frame["image_set"] == "reference")]
    seeds = mine.groupby(["model", "density", "train_seed"])["value"].mean()
    data = seeds.groupby(["model", "density"]).agg(["mean", "std", "size"]).reset_index()
    data = data.rename(columns={"std": "sd", "size": "n_seeds"})
    data.insert(0, "dataset", dataset)
    models = {model: label for model, label in model_labels(spec).items() if model in set(data["model"])}
    cells = {(row["density"], row["model"]): row for row in _records(data)}
    names = [name for name in ("", *density_order(spec, dataset)) if name in set(data["density"])]
    rows = [
        [
            f"estimate, prior {density_label(name)}" if name else "evidence bound, prior N(0,I)",
            *(
                "–" if (one := cells.get((name, model))) is None else _mean_sd(one["mean"], one["sd"], "log_likelihood")
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


def ranking_table(spec: specs.SummarySpec, frame: pd.DataFrame, dataset: str) -> Table:
    """Rows ordered by their sampler's mean distance, with the stability of their ranks and whom they beat."""
    samples = {name: sampler_values(frame, dataset, row) for name, row in spec.ordered_rows.items()}
    ranked, compared = ranks(samples), pairs(samples)
    records = []
    for name, values in samples.items():
        wins = compared[
            ((compared["a"] == name) & (compared["mean_difference"] < 0))
            | ((compared["b"] == name) & (compared["mean_difference"] > 0))
        ]
        seeds = values.groupby(level="train_seed").mean()
        records.append(
            {
                "dataset": dataset,
                "row": name,
                "label": spec.rows[name].label,
                "sampler": spec.rows[name].gmm or spec.rows[name].n,
                "mean": seeds.mean(),
                "sd": seeds.std(ddof=1),
                "mean_rank": ranked.loc[name].mean(),
                "best_rank": ranked.loc[name].min(),
                "worst_rank": ranked.loc[name].max(),
                "p_best": (ranked.loc[name] == ranked.min()).mean(),
                "beats": int((wins["p_value"] < LEVEL).sum()),
                "beats_holm": int((wins["p_holm"] < LEVEL).sum()),
            }
        )
    data = pd.DataFrame(records).sort_values(["mean", "row"], ignore_index=True)
    rows = [
        [
            f"{one['label']} ({density_label(one['sampler'])})",
            _mean_sd(one["mean"], one["sd"], "frechet_distance"),
            f"{one['mean_rank']:.1f}",
            f"{one['best_rank']:g} to {one['worst_rank']:g}",
            f"{one['p_best']:.2f}",
            str(one["beats"]),
            str(one["beats_holm"]),
        ]
        for one in _records(data)
    ]
    agreement = rank_agreement(ranked)
    return Table(
        f"ranking_{dataset}",
        f"{spec.datasets[dataset].label}: ranking of samplers by"
        f" {distance_name('FD', _extractor_label(frame, dataset))}",
        ["", "Distance ↓", "mean rank", "ranks", "P(first)", f"beats, of {len(samples) - 1}", "after correction"],
        rows,
        set(),
        [
            f"Over {ranked.shape[1]} pairs of training and sample seed. Two of them rank the rows alike with Kendall's"
            f" tau {agreement:.2f} (mean over pairs of seeds)."
            if not np.isnan(agreement)
            else "One row or one seed: no stability is known.",
            f"Beats: paired t-test over training seeds, p < {LEVEL:g}; after correction: Holm's, over all"
            f" {len(compared)} pairs (comparisons_{dataset}.csv).",
        ],
        data,
    )


def comparisons_table(spec: specs.SummarySpec, frame: pd.DataFrame, dataset: str) -> Table:
    """Every pair of rows: difference of their samplers' distances, and the probability that one beats the other."""
    samples = {name: sampler_values(frame, dataset, row) for name, row in spec.ordered_rows.items()}
    data = pairs(samples)
    data.insert(0, "dataset", dataset)
    labels = {name: row.label for name, row in spec.rows.items()}
    beats = {(one["a"], one["b"]): float(one["p_a_beats_b"]) for one in _records(data)}
    beats |= {(b, a): 1 - value for (a, b), value in beats.items()}
    rows = [
        [labels[a], *("–" if a == b else f"{beats[a, b]:.2f}" for b in spec.ordered_rows)] for a in spec.ordered_rows
    ]
    return Table(
        f"comparisons_{dataset}",
        f"{spec.datasets[dataset].label}: probability that the row's sampler beats the column's",
        ["", *(labels[name] for name in spec.ordered_rows)],
        rows,
        set(),
        ["Share of common training and sample seeds at which the row's Fréchet distance is the lower one; ties half."],
        data,
    )


def protocol_table(spec: specs.SummarySpec, panel: pd.DataFrame, dataset: str) -> Table:
    """How far each protocol ranks the rows as the study's own does, in columns N and GMM."""
    own = spec.protocols[dataset][OWN]
    records, rows = [], []
    for name in protocol_order(spec, dataset):
        found = vars(spec.protocols[dataset][name])
        changes = {key: value for key, value in found.items() if value != vars(own)[key]}
        texts = [name.replace("_", " "), ", ".join(f"{key} {value}" for key, value in changes.items()) or "–"]
        for column in ("n", "gmm"):
            means = protocol_means(spec, panel, dataset, name, column)
            base = protocol_means(spec, panel, dataset, OWN, column)
            tau = kendall(base, means)
            first = spec.rows[str(means.idxmin())].label if len(means) else "–"
            records.append({"dataset": dataset, "protocol": name, "column": column, "tau": tau, "first": first})
            texts += ["–" if np.isnan(tau) else f"{tau:.2f}", first]
        rows.append(texts)
    return Table(
        f"protocols_{dataset}",
        f"{spec.datasets[dataset].label}: which rankings survive another protocol",
        ["Protocol", "Changes", "tau, N", "first, N", "tau, GMM", "first, GMM"],
        rows,
        set(),
        [
            "The same samples, scored in other ways. tau: Kendall's, of the rows' ranking by mean Fréchet distance over"
            " seeds, against the study's own protocol: 1 the same order, 0 unrelated.",
            f"Own: {', '.join(f'{key} {value}' for key, value in vars(own).items())}.",
        ],
        pd.DataFrame(records),
    )


def protocol_order(spec: specs.SummarySpec, dataset: str) -> list[str]:
    """The study's own protocol, then the others."""
    return [OWN, *sorted(set(spec.protocols[dataset]) - {OWN})]


def protocol_means(spec: specs.SummarySpec, panel: pd.DataFrame, dataset: str, protocol: str, column: str) -> pd.Series:
    """Mean Fréchet distance over seeds of each row that has the column, under one protocol."""
    mine = panel[(panel["dataset"] == dataset) & (panel["protocol"] == protocol)]
    found = {}
    for name, row in spec.ordered_rows.items():
        density = row.n if column == "n" else row.gmm
        values = mine.loc[(mine["model"] == row.model) & (mine["density"] == density), "value"]
        if len(values):
            found[name] = float(values.mean())
    return pd.Series(found)


# --- notes ---------------------------------------------------------------------------------------


def _synthetic_notes(spec: specs.SummarySpec, dataset: str) -> list[str]:
    drawn = spec.datasets[dataset].is_synthetic
    return ["SYNTHETIC images, drawn by a program: no evidence about photographs."] if drawn else []


def _measured_notes(spec: specs.SummarySpec, frame: pd.DataFrame, dataset: str, metric: str) -> list[str]:
    mine = frame[(frame["dataset"] == dataset) & (frame["metric"] == metric)]
    first = mine.iloc[0]
    label = first["extractor_label"]
    floor = float(first["floor"]) * SCALE.get(metric, 1.0)
    floor_sd = "" if np.isnan(first["floor_sd"]) else f" ± {first['floor_sd']:.2g} (half-sampling SD)"
    half = frame.loc[(frame["dataset"] == dataset) & (frame["metric"] == HALF_SD.get(metric)), "value"]
    sampling = f" Sampling SD of one cell, one seed (half-sampling, median of cells): {half.median():.2g}."
    return [
        *_synthetic_notes(spec, dataset),
        f"Mean ± SD over {len(spec.train_seeds)} training seeds. {first['n_generated']:,} generated images a cell,"
        f" {first['n_reference']:,} {spec.reference_split} images as reference. Features: {first['extractor']}."
        + (" Not comparable with FID." if metric == "frechet_distance" and label != specs.INCEPTION_LABEL else ""),
        f"Real against real ({spec.floor_split} against {spec.reference_split}, same counts): {floor:.4g}{floor_sd}."
        + (sampling if len(half) else ""),
    ]


def _warning_notes(frame: pd.DataFrame, dataset: str, metric: str) -> list[str]:
    if metric not in ("frechet_distance", "precision", "recall"):
        return []
    found = [text for text in warnings(frame[frame["dataset"] == dataset]) if metric in text or "images for" in text]
    notes = [f"Warning: {text.removeprefix(f'{dataset}: ')}." for text in found[:MOST_WARNINGS]]
    if len(found) > MOST_WARNINGS:
        notes.append(f"And {len(found) - MOST_WARNINGS} more warnings: the log of `collect`.")
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


def _records(data: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in record.items()} for record in data.to_dict("records")]


def _extractor_label(frame: pd.DataFrame, dataset: str) -> str:
    return str(frame.loc[frame["dataset"] == dataset, "extractor_label"].iloc[0])


def _mean_sd(mean: float, sd: float, metric: str) -> str:
    magnitude = 0 if metric in SHARES or mean == 0 else int(np.floor(np.log10(abs(mean))))
    digits = 3 if metric in SHARES else max(0, 2 - magnitude)  # three significant ones
    return f"{mean:.{digits}f}" if np.isnan(sd) else f"{mean:.{digits}f} ± {sd:.{digits}f}"
