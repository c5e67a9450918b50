"""Metric files to one tidy frame: one value per row, with everything needed to interpret it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from rae_bench import __version__
from rae_bench.base.plain import fingerprint
from rae_bench.scoring.specs import IMAGES_PER_FEATURE, EvaluationSpec
from rae_bench.study.specs import SummarySpec

KEYS = ["study", "dataset", "model", "train_seed", "image_set", "density", "fit_seed", "sample_seed", "metric"]
"""What tells one row from another."""
COLUMNS = [
    "study",
    "dataset",
    "is_synthetic",
    "model",
    "train_seed",
    "image_set",
    "density",
    "fit_seed",
    "sample_seed",
    "n_generated",
    "n_reference",
    "n_features",
    "reference_split",
    "extractor",
    "extractor_label",
    "metric",
    "value",
    "floor",
    "floor_sd",
    "train_fingerprint",
    "fit_fingerprint",
    "evaluate_fingerprint",
    "device",
    "tf32",
    "precision",
    "package_version",
]


FLOOR_SD = {
    "frechet_distance": "frechet_distance_half_sd",
    "nearest_training_ratio": "nearest_training_ratio_sd",
}
"""What the floor calls a metric's sampling SD: by half-sampling; of the ratio by bootstrap of the fresh images."""
BETWEEN_GPUS = "; "
"""Between the GPUs, where those of a run were several."""
FLOOR_SDS = 3.0
"""A distance so many SDs below the floor is better than real images: a leak, or images paired with the reference."""


PANEL_COLUMNS = ["dataset", "model", "train_seed", "density", "fit_seed", "sample_seed", "protocol", "value"]
"""The columns of a run's `protocols.parquet`."""


class ResultError(RuntimeError):
    """Metric files that do not belong together."""


@dataclass(frozen=True)
class Floor:
    """What `floor.json` holds: every metric of real against real images, and of whose features."""

    values: dict[str, float]
    training_distance: float
    extractor: str
    label: str
    fingerprint: str


def run_frame(
    spec: EvaluationSpec,
    run: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    fits: Mapping[str, Mapping[str, Any]],
    floor: Floor,
) -> pd.DataFrame:
    """The rows of one run as a frame of `COLUMNS`; `floor` is the real-against-real value of the same metric, or NaN.

    `floor_sd` is that value's sampling SD, where it is estimated. `run`: the columns that the settings of its
    evaluation do not say (study, dataset, is_synthetic, model, train_seed, n_features, extractor, extractor_label).
    `fits`: what the density files say of themselves.
    """
    shared = {
        **run,
        **{"n_reference": spec.n_images, "reference_split": spec.reference_split},
        "train_fingerprint": fingerprint(spec.training) if spec.training else "",
        "evaluate_fingerprint": fingerprint(spec),
        **{"device": spec.compute.device, "tf32": spec.compute.tf32},
        "precision": (spec.training or spec).compute.precision,
        "package_version": __version__,
    }
    of_codes = [
        {
            **{"image_set": "codes", "density": density, "fit_seed": int(fit_seed)},
            **{"metric": f"log_likelihood_{split}", "value": value},
        }
        for density, fit in fits.items()
        for fit_seed, likelihoods in fit["log_likelihood"].items()
        for split, value in likelihoods.items()
        if value is not None
    ]
    frame = pd.DataFrame(
        {
            **{"density": "", "fit_seed": 0, "sample_seed": 0, "n_generated": spec.n_images, **row, **shared},
            "floor": floor.values.get(row["metric"], math.nan),
            "floor_sd": floor.values.get(FLOOR_SD.get(row["metric"], ""), math.nan),
            "fit_fingerprint": fits.get(row.get("density", ""), {}).get("fingerprint", ""),
        }
        for row in [*rows, *of_codes]
    )
    return frame[COLUMNS]


def with_gpus(frame: pd.DataFrame, gpus: Sequence[str]) -> pd.DataFrame:
    """The rows of one run with a column `gpu`: those it was computed on, as records say; CPU studies have no such."""
    return frame.assign(gpu=BETWEEN_GPUS.join(gpus))


def gpus(frame: pd.DataFrame) -> list[str]:
    """The GPUs, with their versions, on which the rows of `frame` were computed."""
    texts = set(frame["gpu"]) if "gpu" in frame else set()
    return sorted({gpu for text in texts for gpu in text.split(BETWEEN_GPUS)} - {""})


def collect(frames: list[pd.DataFrame]) -> pd.DataFrame:
    """All runs in one frame, sorted by what tells rows apart.

    Raises:
        ResultError: a value that stands twice, or runs of one data set measured by different rulers.
    """
    frame = _sorted(frames, KEYS, "metrics hold")
    one = ["dataset"]
    rulers = {
        "n_generated": [*one, "image_set", "metric"],
        **dict.fromkeys(("extractor", "n_reference", "n_features", "reference_split", "package_version"), one),
        **dict.fromkeys(("device", "tf32", "precision"), one),
    }
    for column, alike in rulers.items():
        # images that are given come from no training, and have no precision of one
        mine = frame[frame["train_fingerprint"] != ""] if column == "precision" else frame
        differing = mine[mine.groupby(alike)[column].transform("nunique") > 1]
        if len(differing):
            dataset, values = differing["dataset"].iloc[0], sorted(differing[column].astype(str).unique())
            raise ResultError(
                f"runs of {dataset!r} differ in {column}: {values}; they cannot share a table, run them again"
            )
    return frame


def collect_panels(frames: list[pd.DataFrame]) -> pd.DataFrame:
    """Every run's distances under every protocol, in one frame, sorted.

    Raises:
        ResultError: a value that stands twice, or runs that were scored by different protocols.
    """
    frame = _sorted(frames, PANEL_COLUMNS[:-1], "the panel holds")
    runs = frame.groupby(["dataset", "model", "train_seed"])["protocol"]
    if len(protocols := {tuple(sorted(set(run))) for _, run in runs}) > 1:
        raise ResultError(f"runs were scored by different protocols: {sorted(protocols)}; run them again")
    return frame


def _sorted(frames: list[pd.DataFrame], keys: list[str], what: str) -> pd.DataFrame:
    """The rows of all frames in the order of `keys`, which no two of them share."""
    frame = pd.concat(frames, ignore_index=True)
    if len(twice := frame[frame.duplicated(keys)]):
        raise ResultError(f"{what} a value twice: {twice.iloc[0][keys].to_dict()}")
    return frame.sort_values(keys, ignore_index=True)


def check_runs(spec: SummarySpec, metrics: Mapping[str, pd.DataFrame], panels: Mapping[str, pd.DataFrame]) -> None:
    """See that metrics and panels of protocols, by the names of their files, are those of the study's runs.

    Raises:
        ResultError: a file that is no run of the study, or was scored with other settings; a run that is missing or
            stands twice.
    """
    for name, frame in metrics.items():
        studies = sorted(map(str, frame["study"].unique())) if "study" in frame else []
        if studies != [spec.study]:
            raise ResultError(f"{name}: of the study {', '.join(studies) or '?'}, not {spec.study!r}")
    _check_runs(spec, metrics, spec.evaluations, "evaluate_fingerprint")
    _check_runs(spec, panels, spec.panels, "protocol_fingerprint")


def _check_runs(
    spec: SummarySpec, frames: Mapping[str, pd.DataFrame], expected: Mapping[str, Mapping[str, str]], column: str
) -> None:
    runs = {
        (dataset, model, seed): made_with
        for dataset, models in expected.items()
        for model, made_with in models.items()
        for seed in spec.train_seeds
    }
    names: dict[tuple[str, str, int], str] = {}
    for name, frame in frames.items():
        needed = ["dataset", "model", "train_seed", column]
        if missing := [key for key in needed if key not in frame]:
            raise ResultError(f"{name}: holds no column {missing[0]!r}; delete it and run again")
        found = frame[needed].drop_duplicates()
        if len(found) != 1:
            raise ResultError(f"{name}: holds {len(found)} runs or settings, expected one; delete it and run again")
        dataset, model, seed, made_with = found.iloc[0]
        run, label = (str(dataset), str(model), int(seed)), f"{dataset}/{model}, seed {seed}"
        if run not in runs:
            raise ResultError(f"{name}: of {label}, which is no run of the study {spec.study!r}")
        if made_with != runs[run]:
            raise ResultError(
                f"{name}: scored with other settings ({column} {made_with}) than the study's ({runs[run]});"
                " delete it and run again"
            )
        if run in names:
            raise ResultError(f"{name}: of {label}, as {names[run]} is; each run once")
        names[run] = name
    for dataset, model, seed in sorted(runs.keys() - names.keys()):
        raise ResultError(f"no file is of {dataset}/{model}, seed {seed}; the study asks for it")


def warnings(frame: pd.DataFrame) -> list[str]:
    """What a reader of these numbers must know, a line each: too few images, what lies below the floor, saturation."""
    found = []
    for dataset, mine in frame.groupby("dataset", sort=False):
        first = mine.iloc[0]
        if first["n_reference"] < IMAGES_PER_FEATURE * first["n_features"]:
            found.append(
                f"{dataset}: {first['n_reference']} images for {first['n_features']} features, fewer than"
                f" {IMAGES_PER_FEATURE} a feature: Fréchet distances are biased, alike only at equal counts"
            )
        unpaired = mine[mine["image_set"].isin(["sample", "interpolation"]) & (mine["metric"] == "frechet_distance")]
        expected = unpaired["floor"] * floor_share(unpaired)
        low = unpaired["value"] < expected - FLOOR_SDS * unpaired["floor_sd"]
        for row, floor in zip(unpaired[low].itertuples(), expected[low], strict=True):
            found.append(
                f"{dataset}: {_place(row)}: {row.metric} {row.value:.4g} is more than {FLOOR_SDS:g} SDs below the"
                f" floor, {floor:.4g} ± {row.floor_sd:.2g}: copies of the reference, or a leak"
            )
        extreme = mine["metric"].isin(["precision", "recall"]) & mine["value"].isin([0.0, 1.0])
        for row in mine[extreme].itertuples():
            found.append(f"{dataset}: {_place(row)}: {row.metric} is saturated at {row.value:g}")
    return found


def floor_share(frame: pd.DataFrame) -> pd.Series:
    """The part of the floor that a Fréchet distance of equal laws comes to, by the counts of each row of `frame`.

    The distance is biased by about 1/n of either side; the floor's sides have both as many images as the reference.
    """
    share: pd.Series = (1 / frame["n_generated"] + 1 / frame["n_reference"]) / (2 / frame["n_reference"])
    return share


def _place(row: Any) -> str:
    density = f" of {row.density}" if row.density else ""
    return f"{row.model} seed {row.train_seed}, {row.image_set}{density}"
