"""One trained model to numbers: every image set decoded once, its features taken once, every metric from them.

Image sets: `reconstruction` of the reference images, `interpolation` between them, `sample` of every density. What a
table calls a row is put together later from these.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rae_bench import generation, specs
from rae_bench.autoencoder import Autoencoder
from rae_bench.densities import FittedDensity
from rae_bench.densities.second_stage import FittedSecondStage
from rae_bench.features import FrozenExtractor, load_digit_classifier
from rae_bench.metrics import Reference, measure
from rae_bench.rng import numpy_generator
from rae_bench.training import encode, to_device

SHOWN = 36
"""Images kept of each set, for people to look at."""
STRIPS, STEPS = 6, 8
PLOTTED = 500
"""Codes kept of each density, for the two-dimensional view."""

Row = dict[str, Any]
Images = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Evaluated:
    """One row per value (image_set, density, sample_seed, metric, value), and arrays to look at."""

    rows: list[Row]
    sheets: dict[str, npt.NDArray[Any]]


def evaluate(
    spec: specs.EvaluationSpec,
    model: Autoencoder,
    densities: dict[str, FittedDensity],
    reference: Reference,
    images: Images,
    labels: npt.NDArray[np.int64] | None,
    extractor: FrozenExtractor,
    seed: int,
) -> Evaluated:
    """Score `model` and its `densities` against the reference images (n, C, H, W), whose features `reference` holds.

    `labels` (n,) are the digits' classes, where there are any; `seed` is the training seed, from which samples derive.
    """
    codes = encode(model, to_device(images, spec.compute.device))["mean"]
    pairs = generation.interpolation_pairs(len(images), seed=0)
    rows: list[Row] = []
    sheets: dict[str, npt.NDArray[Any]] = {"original": images[:SHOWN], "codes": codes[:PLOTTED]}

    def score(image_set: str, density: str, sample_seed: int, set_codes: npt.NDArray[np.float32]) -> Images:
        made = generation.decode(model, set_codes)
        for metric, value in measure(reference, extractor(made), spec.metrics).items():
            rows.append(_row(image_set, density, sample_seed, metric, value))
        return made

    for name in ("", *spec.through):
        stage = densities[name] if name else None
        assert stage is None or isinstance(stage, FittedSecondStage)
        rebuilt = score("reconstruction", name, 0, codes if stage is None else stage.through(codes))
        sheets[_key("reconstruction", name)] = rebuilt[:SHOWN]
        for metric, value in reconstruction_metrics(images, rebuilt, labels).items():
            rows.append(_row("reconstruction", name, 0, metric, value))
        inner = codes if stage is None else stage.to_inner(codes)
        middle, path = generation.midpoints(inner, pairs), generation.strip(inner, pairs[:STRIPS], STEPS)
        if stage is not None:
            middle, path = stage.from_inner(middle), stage.from_inner(path)
        score("interpolation", name, 0, middle)
        sheets[_key("interpolation", name)] = generation.decode(model, path)

    for name in spec.densities:
        for sample_seed in spec.sample_seeds:
            drawn = densities[name].sample(spec.n_images, numpy_generator(seed, "sample", name, sample_seed))
            made = score("sample", name, sample_seed, drawn)
            if sample_seed == spec.sample_seeds[0]:
                sheets[_key("sample", name)] = made[:SHOWN]
                sheets[_key("codes", name)] = drawn[:PLOTTED]
    return Evaluated(rows, sheets)


def reconstruction_metrics(images: Images, rebuilt: Images, labels: npt.NDArray[np.int64] | None) -> dict[str, float]:
    """`squared_error`: ‖x − x̂‖² summed over pixels, mean over images, x in [0, 1]; for digits `label_agreement` too."""
    metrics = {"squared_error": squared_error(images, rebuilt)}
    if labels is not None:
        from rae_bench.digit_classifier import accuracy

        metrics["label_agreement"] = accuracy(load_digit_classifier(), rebuilt, labels)
    return metrics


def squared_error(images: Images, rebuilt: Images | npt.NDArray[np.float64]) -> float:
    """‖x − x̂‖² summed over pixels, averaged over images, both (n, ...) on the scale 0 to 255, as if in [0, 1]."""
    difference = (images.astype(np.float64) - rebuilt) / 255
    return float((difference.reshape(len(images), -1) ** 2).sum(axis=1).mean())


def pca_squared_error(train: Images, images: Images, components: int, seed: int) -> float:
    """The squared error of `images` after PCA fitted on `train` with as many components as a code has dimensions."""
    from sklearn.decomposition import PCA

    pca = PCA(components, svd_solver="randomized", iterated_power=7, random_state=seed)
    pca.fit(train.reshape(len(train), -1).astype(np.float32))
    flat = images.reshape(len(images), -1).astype(np.float32)
    rebuilt = pca.inverse_transform(pca.transform(flat)).astype(np.float64)
    return squared_error(images, rebuilt.reshape(images.shape))


def _row(image_set: str, density: str, sample_seed: int, metric: str, value: float) -> Row:
    return {
        "image_set": image_set,
        "density": density,
        "sample_seed": sample_seed,
        "metric": metric,
        "value": float(value),
    }


def _key(image_set: str, density: str) -> str:
    return f"{image_set}.{density}" if density else image_set
