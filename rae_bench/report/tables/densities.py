"""Every model under every density: a metric, the likelihood of codes or images, and how the densities compare."""

from typing import Any

import numpy as np
import pandas as pd

from rae_bench.densities.specs import SelectedMixture
from rae_bench.report.comparisons import Compared
from rae_bench.report.rendering import Table
from rae_bench.report.tables.cells import RATIOS, Cell, as_records, compared, extractor_label
from rae_bench.report.tables.notes import BOLD, copy_note, fresh_ratios, measured_notes, synthetic_notes, warning_notes
from rae_bench.report.tables.wording import METRICS, density_label, distance_name, mean_sd, model_labels
from rae_bench.report.verdicts import WORDS, Better, leaders, verdicts
from rae_bench.study.specs import SummarySpec

GRID = ("frechet_distance", "precision", "recall", "log_likelihood_validation", "nearest_training_ratio")
"""What the grid of densities shows of each model and density, a table each."""
JUDGED = (
    "Kernel bandwidths, flows and second stages chose their bandwidth or epoch on these same validation codes."
    " Densities fitted to draws from posteriors are judged on draws, not comparable with the others."
    " Of a codebook's entries they are probabilities, not densities. –: no likelihood."
)
"""How to read likelihoods of validation codes."""
HELD_OUT: tuple[str, str, Better] = ("Held-out log-likelihood of validation codes, nats a code", "", "higher")


def _comparable(spec: SummarySpec, dataset: str, model: str, cells: dict[str, pd.Series]) -> list[dict[str, pd.Series]]:
    """The densities by what their likelihoods are of: the same codes, and vectors or entries; groups of two or more."""
    groups: dict[tuple[str, bool], dict[str, pd.Series]] = {}
    for name, values in cells.items():
        density = spec.density(dataset, model, name)
        groups.setdefault((density.codes, "a codebook" in density.needs), {})[name] = values
    return [group for group in groups.values() if len(group) > 1]


def density_order(spec: SummarySpec, dataset: str) -> list[str]:
    """Every density, the study's own in its order, then the second stages of rows."""
    return [*spec.densities, *sorted(set(spec.fits[dataset]) - set(spec.densities))]


def density_table(spec: SummarySpec, frame: pd.DataFrame, dataset: str, metric: str) -> Table:
    """One metric of every trained model (columns) under every density (rows)."""
    mine = frame[(frame["dataset"] == dataset) & (frame["metric"] == metric) & (frame["density"] != "")]
    # reconstructions and mid-points that passed through a second stage bear its name, too
    mine = mine[mine["image_set"].isin(["sample", "codes"])]
    data = _spread(mine, "density", "model")
    data.insert(0, "metric", metric)
    data.insert(0, "dataset", dataset)
    models = model_labels(spec)
    order = [name for name in density_order(spec, dataset) if name in set(data["density"])]
    title, _, better = {**METRICS, "log_likelihood_validation": HELD_OUT}[metric]
    has_leaders = metric in ("frechet_distance", "log_likelihood_validation")
    bold, within = set(), spec.equal_within if metric in RATIOS else 1.0
    for j, model in enumerate(models if has_leaders else [], start=1):
        cells = {
            str(density): values.groupby("train_seed")["value"].mean()
            for density, values in mine[mine["model"] == model].groupby("density")
        }
        cells = {density: np.log(values) if metric in RATIOS else values for density, values in cells.items()}
        for alike in [cells] if metric in RATIOS else _comparable(spec, dataset, model, cells):
            bold |= {(order.index(density), j) for density in leaders(Compared.of(alike), better, within)}
    if metric == "log_likelihood_validation":
        notes = [
            *synthetic_notes(spec, dataset),
            f"Mean ± SD over {len(spec.train_seeds)} training seeds.",
            f"Comparable within a column only: another model has other codes. {JUDGED}",
            *_selected_notes(spec, dataset),
        ]
    else:
        notes = measured_notes(spec, frame, dataset, metric)
        if metric == "nearest_training_ratio":
            fresh = fresh_ratios(frame, dataset)
            is_near = {name: list(data.loc[data["density"] == name, "mean"] < fresh[0]) for name in order}
            near = [f"{density_label(name)} ({sum(of)} of {len(of)} models)" for name, of in is_near.items() if any(of)]
            notes = [*notes, copy_note(fresh, near)]
    return Table(
        f"densities_{metric}_{dataset}",
        f"{spec.datasets[dataset].label}: every model under every density. {title} {'↓' if better == 'lower' else '↑'}",
        ["", *models.values()],
        [[density_label(name), *texts] for name, texts in _texts(data, order, list(models), metric)],
        bold,
        [
            *notes,
            "Second stages and other densities alike were fitted ex post on the codes of"
            f" {spec.datasets[dataset].n_train:,} training images.",
            *([BOLD] if has_leaders else []),
            *warning_notes(frame, dataset, metric),
        ],
        data,
    )


def density_verdict_table(spec: SummarySpec, frame: pd.DataFrame, dataset: str) -> Table:
    """Every density beside the mixture of column GMM, model by model: the ratio, and for how many models which word."""
    rows = {name: row for name, row in spec.competing.items() if row.gmm}
    cells = compared(spec, frame, dataset, "gmm", *spec.densities)
    both: list[tuple[Cell, Cell]] = [
        ((name, density), (name, "gmm"))
        for density in spec.densities
        for name, row in rows.items()
        if density != row.gmm and (name, density) in cells.means
    ]
    differences = [cells.difference(*pair) for pair in both]
    words = verdicts(differences, [float(np.log(spec.equal_within))] * len(both))
    data = pd.DataFrame(
        [
            {
                **{"dataset": dataset, "density": density, "row": name, "beside": rows[name].gmm},
                **dict(zip(("ratio", "low", "high"), np.exp([one.mean, *one.interval]), strict=True)),
                **{"verdict": word, "seeds": cells.seeds},
            }
            for ((name, density), _), one, word in zip(both, differences, words, strict=True)
        ],
        columns=["dataset", "density", "row", "beside", "ratio", "low", "high", "verdict", "seeds"],
    )
    texts = []
    for density, mine in data.groupby("density", sort=False):
        ratios, counts = mine["ratio"], mine["verdict"].value_counts()
        between = f"{np.exp(np.log(ratios).mean()):.2f} ({ratios.min():.2f} to {ratios.max():.2f})"
        texts.append([density_label(str(density)), between, *(str(counts.get(word, 0)) for word in WORDS)])
    beside = " or ".join(dict.fromkeys(density_label(row.gmm) for row in rows.values()))
    return Table(
        f"densities_verdicts_{dataset}",
        f"{spec.datasets[dataset].label}: every density beside the mixture of column GMM,"
        f" {distance_name('FD', extractor_label(frame, dataset))} ↓",
        ["", f"Ratio to {beside}", *(f"{word} for" for word in WORDS)],
        texts,
        set(),
        [
            *synthetic_notes(spec, dataset),
            "Ratio: the geometric mean over the models that have the density and, in brackets, the least and the"
            " largest of them. Better, equal, worse, undecided: for how many models the density is called so beside the"
            " mixture of the same training. Equal: surely between"
            f" {1 / spec.equal_within:.2f} and {spec.equal_within:g}. Better, worse: surely lower, higher, and not"
            f" surely equal. Surely: p < 0.05 after Holm's correction over all {len(both)} comparisons, over"
            f" {cells.seeds} training seeds. What a seed does to all models alike is paired. Every ratio with its 95 %"
            f" interval, unadjusted: densities_verdicts_{dataset}.csv.",
        ],
        data,
    )


def _selected_notes(spec: SummarySpec, dataset: str) -> list[str]:
    """A note that a density's number of components was chosen on validation codes; none where none was."""
    is_selected = any(isinstance(density, SelectedMixture) for density in spec.fits[dataset].values())
    return ["Selected mixtures chose their number of components on these codes, too."] if is_selected else []


def selection_tables(spec: SummarySpec, frame: pd.DataFrame, dataset: str) -> list[Table]:
    """The held-out likelihoods of every selected mixture by number of components, and the number each fit took."""
    names = [name for name, density in spec.fits[dataset].items() if isinstance(density, SelectedMixture)]
    return [_selection_table(spec, frame, dataset, name) for name in names]


def _selection_table(spec: SummarySpec, frame: pd.DataFrame, dataset: str, density: str) -> Table:
    mine = frame[(frame["dataset"] == dataset) & (frame["density"] == density)]
    tried = mine[mine["metric"].str.fullmatch(r"log_likelihood_validation_\d+")]
    tried = tried.assign(n_components=tried["metric"].str.rpartition("_")[2].astype(int))
    data = _spread(tried, "n_components", "model")
    data.insert(0, "density", density)
    data.insert(0, "dataset", dataset)
    best = tried.loc[tried.groupby(["model", "train_seed", "fit_seed"])["value"].idxmax()]
    chosen = best.groupby(["n_components", "model"]).size().to_dict()
    data["n_chosen"] = [chosen.get((one["n_components"], one["model"]), 0) for one in as_records(data)]
    models = {model: label for model, label in model_labels(spec).items() if model in set(data["model"])}
    texts = {
        (one["n_components"], one["model"]): f"{mean_sd(one['mean'], one['sd'], 'log_likelihood')} ({one['n_chosen']})"
        for one in as_records(data)
    }
    return Table(
        f"selection_{density}_{dataset}",
        f"{spec.datasets[dataset].label}: {density_label(density)}. {HELD_OUT[0]}, by number of components ↑",
        ["", *models.values()],
        [
            [f"K = {n_components}", *(texts.get((n_components, model), "–") for model in models)]
            for n_components in sorted(set(data["n_components"]))
        ],
        set(),
        [
            *synthetic_notes(spec, dataset),
            f"Mean ± SD over {len(spec.train_seeds)} training seeds; in brackets, how many fits chose this K.",
            "A fit chooses the K of the largest value: that value is the best of a few, and no estimate for new codes."
            " Comparable within a column only: another model has other codes.",
        ],
        data,
    )


def likelihood_table(spec: SummarySpec, frame: pd.DataFrame, dataset: str) -> Table:
    """Evidence bound and importance-sampled likelihood of reference images, under each density as the prior.

    An estimate that is not believed (`Likelihood`) for one of the training seeds is not shown.
    """
    mine = frame[(frame["dataset"] == dataset) & (frame["image_set"] == "reference")]
    values = mine[mine["metric"].isin(["evidence_bound", "log_likelihood_images"])]
    data = _spread(values, "model", "density")
    data.insert(0, "dataset", dataset)
    details = {
        part: mine[mine["metric"] == f"log_likelihood_images_{part}"].set_index(["model", "density", "train_seed"])[
            "value"
        ]
        for part in ("doubling", "half_width", "effective_share")
    }
    is_converged = (details["doubling"] < details["half_width"]).groupby(["model", "density"]).all()
    data["is_converged"] = [is_converged.get((one["model"], one["density"]), True) for one in as_records(data)]
    for part, found in details.items():
        seeds = found.groupby(["model", "density"]).mean()
        data[part] = [seeds.get((one["model"], one["density"]), np.nan) for one in as_records(data)]
    models = {model: label for model, label in model_labels(spec).items() if model in set(data["model"])}
    order = [name for name in ("", *density_order(spec, dataset)) if name in set(data["density"])]
    shown = data.assign(text=[_likelihood_text(one) for one in as_records(data)])
    texts = {(one["density"], one["model"]): one["text"] for one in as_records(shown)}
    return Table(
        f"likelihood_{dataset}",
        f"{spec.datasets[dataset].label}: log-likelihood of {spec.reference_split} images, nats an image ↑",
        ["", *models.values()],
        [
            [
                f"estimate, prior {density_label(name)}" if name else "evidence bound, prior N(0,I)",
                *(texts.get((name, model), "–") for model in models),
            ]
            for name in order
        ],
        set(),
        [
            "Models with a KL term only. Decoder: Gaussian of variance β, the KL weight, which differs between models:"
            " compare within a column. The bound's codes are the encoder's, its prior N(0,I). Estimates: importance"
            " sampling around the mode of each image's posterior; in brackets the effective share of the codes.",
            "Not converged: twice as many codes moved it by more than half its 95 % interval over images.",
            "Densities of continuous pixels in [0, 1], not dequantised: no bits per dimension.",
        ],
        data,
    )


def _likelihood_text(one: dict[str, Any]) -> str:
    if not one["is_converged"]:
        return "not converged"
    text = mean_sd(one["mean"], one["sd"], "log_likelihood")
    return text if np.isnan(one["effective_share"]) else f"{text} ({100 * one['effective_share']:.0f} %)"


def _spread(values: pd.DataFrame, *keys: str) -> pd.DataFrame:
    """Mean, SD and number of training seeds of the values of each density and model."""
    seeds = values.groupby([*keys, "train_seed"])["value"].mean()
    data = seeds.groupby(list(keys)).agg(["mean", "std", "size"]).reset_index()
    return data.rename(columns={"std": "sd", "size": "n_seeds"})


def _texts(data: pd.DataFrame, order: list[str], models: list[str], metric: str) -> list[tuple[str, list[str]]]:
    """Each density of `order` with the text of its cell under each model."""
    cells = {(one["density"], one["model"]): mean_sd(one["mean"], one["sd"], metric) for one in as_records(data)}
    return [(name, [cells.get((name, model), "–") for model in models]) for name in order]
