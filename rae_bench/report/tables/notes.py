"""What stands under a table: how its numbers were measured, and what to beware of."""

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from rae_bench.densities.specs import Density, DirichletMixture, GaussianMixture, SelectedMixture, SingleGaussian
from rae_bench.report.tables.cells import narrowed
from rae_bench.report.tables.wording import SCALE, density_label
from rae_bench.scoring.specs import INCEPTION_LABEL
from rae_bench.study.results import floor_share, gpus, warnings
from rae_bench.study.specs import Row, SummarySpec

MOST_WARNINGS = 5
BOLD = (
    "Bold: no other of the column is called better, which is surely so (p < 0.05 after Holm's correction over its"
    " pairs) and, of distances, not surely equal; baselines are left out."
)


def synthetic_notes(spec: SummarySpec, dataset: str) -> list[str]:
    """That the images are drawn by a program, if they are."""
    drawn = spec.datasets[dataset].source.is_synthetic
    return ["SYNTHETIC images, drawn by a program: no evidence about photographs."] if drawn else []


def protocol_notes(spec: SummarySpec, dataset: str) -> list[str]:
    """Which protocol the numbers belong to, and what its settings mean for the rows of this data set."""
    is_paired = spec.image_sets[dataset].reconstructed == spec.reference_split
    paired = ["Rec. is paired with its own reference images and may lie below real against real."]
    return [f"Protocol: {spec.protocol}.", *spec.notes[dataset], *(paired if is_paired else [])]


def measured_notes(spec: SummarySpec, frame: pd.DataFrame, dataset: str, metric: str) -> list[str]:
    """Seeds, counts of images, features, and the distance between real images."""
    mine = frame[(frame["dataset"] == dataset) & (frame["metric"] == metric)]
    samples = mine[mine["image_set"] == "sample"]
    first = (samples if len(samples) else mine).iloc[0]
    floor = float(first["floor"]) * SCALE.get(metric, 1.0)
    way = "half-sampling SD" if metric == "frechet_distance" else "SD by bootstrap"
    floor_sd = "" if np.isnan(first["floor_sd"]) else f" ± {first['floor_sd']:.2g} ({way})"
    share = float(floor_share(samples.head(1)).sum())
    biased = f" Of equal laws about {floor * share:.2g} is expected of samples, at their counts." if share else ""
    counts = f"{first['n_reference']:,} {spec.floor_split} images against the reference"
    real = f"Real against real ({counts}): {floor:.4g}{floor_sd}."
    return [
        *synthetic_notes(spec, dataset),
        f"Mean ± SD over {len(spec.train_seeds)} training seeds{_draws(samples)}. {first['n_generated']:,} samples, or"
        f" {first['n_reference']:,} reconstructions or mid-points, against {first['n_reference']:,}"
        f" {spec.reference_split} images. Features: {first['extractor']}."
        + (
            " Not comparable with FID."
            if metric == "frechet_distance" and first["extractor_label"] != INCEPTION_LABEL
            else ""
        ),
        *([] if np.isnan(floor) else [real + (biased if metric == "frechet_distance" else "")]),
    ]


def fresh_ratios(frame: pd.DataFrame, dataset: str) -> tuple[float, float]:
    """The ends of the 95 % interval (normal, by the bootstrap's SD) of fresh real images' nearest-training ratio."""
    ratios = narrowed(frame, dataset, "nearest_training_ratio")
    first = ratios[ratios["image_set"] == "sample"].iloc[0]
    half = 1.96 * first["floor_sd"]
    return first["floor"] - half, first["floor"] + half


def copy_note(fresh: tuple[float, float], nearer: Collection[str]) -> str:
    """What samples lie nearer to training images than fresh real ones do (`fresh_ratios`), by their names."""
    low, high = fresh
    return (
        f"Fresh real images lie within {low:.3f} to {high:.3f} (95 %). Samples nearer to training images than that:"
        f" {', '.join(nearer) or 'none'}."
    )


def _draws(samples: pd.DataFrame) -> str:
    """The counts of fits and draws that a training seed's value is the mean of, where any density has several."""
    if not len(samples):
        return ""
    densities = samples.groupby(["model", "train_seed", "density"])
    fits, values = densities["fit_seed"].nunique().max(), densities.size().max()
    return (
        f", each the mean of {fits} x {values // fits} values (fits of a random density x draws)" if values > 1 else ""
    )


def warning_notes(frame: pd.DataFrame, dataset: str, metric: str) -> list[str]:
    """Warnings about the metric on the data set, the first few in full."""
    if metric not in ("frechet_distance", "precision", "recall"):
        return []
    found = [text for text in warnings(frame[frame["dataset"] == dataset]) if metric in text or "images for" in text]
    notes = [f"Warning: {text.removeprefix(f'{dataset}: ')}." for text in found[:MOST_WARNINGS]]
    if len(found) > MOST_WARNINGS:
        notes.append(f"And {len(found) - MOST_WARNINGS} more warnings: the log of `collect`.")
    return notes


def gpu_notes(frame: pd.DataFrame, datasets: Collection[str]) -> list[str]:
    """A note that the runs on these data sets were computed on several GPUs or versions; none where they were not."""
    found = gpus(frame[frame["dataset"].isin(datasets)])
    return [f"Mixed GPUs or versions, which may change last digits: {'; '.join(found)}."] if len(found) > 1 else []


def row_notes(spec: SummarySpec, dataset: str, shown: Mapping[str, Row]) -> list[str]:
    """The densities in columns N and GMM of the rows shown, and the rows that pass through a second stage."""
    every = shown.values()
    rows, copies = [row for row in every if not row.has_no_model], [row for row in every if row.given]
    columns = []
    for column in ("n", "gmm"):
        labels: dict[str, list[str]] = {}
        for row, name in ((row, getattr(row, column)) for row in rows if getattr(row, column)):
            labels.setdefault(_described(name, spec.density(dataset, row.model, name)), []).append(row.label)
        texts = [f"{text}: {', '.join(mine)}" if len(labels) > 1 else text for text, mine in labels.items()]
        columns += [f"Column {column.upper()} is {'; '.join(texts)}."] if texts else []
    notes = [" ".join([*columns, "All fitted on training codes."])]
    for row in rows:
        if row.through:
            others = [other.label for other in rows if other.model == row.model and other != row]
            same = f" Same weights as {', '.join(others)}, hence the same N(0,I) and Gaussian." if others else ""
            notes.append(f"{row.label}: Rec. and Interp. pass through its second stage.{same}")
    notes += [
        f"{row.label}: {split} images as they are, in column {column.upper()}."
        for row in copies
        for column, split in row.given.items()
    ]
    notes += [
        f"{row.label}: images of {Path(images.file).name} as they are, in column {column.upper()}."
        for row in every
        for column, images in row.generated.items()
    ]
    return notes


def _described(name: str, density: Density) -> str:
    match density:
        case SingleGaussian(covariance="full", codes="mean"):
            return "one fitted Gaussian"
        case GaussianMixture(codes="mean"):
            return f"a mixture of {density.n_components} Gaussians with full covariances"
        case SelectedMixture(codes="mean"):
            grid = ", ".join(map(str, density.grid))
            return f"a mixture of Gaussians with full covariances, of {grid} as many as validation codes like best"
        case DirichletMixture(codes="mean"):
            return f"a Dirichlet-process mixture of at most {density.n_components} Gaussians"
        case _:
            return density_label(name)
