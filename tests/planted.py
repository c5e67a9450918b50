"""Distributions whose density is known, to be recovered by what is fitted to draws of them."""

import dataclasses

import numpy as np
import yaml
from scipy import stats

from rae_bench.densities import catalogue
from rae_bench.densities.codes import Posteriors
from rae_bench.study import vocabulary
from rae_bench.study.config import CONFIG, load_study, resolve_study


def points(codes):
    """Codes of a deterministic encoder."""
    return Posteriors(codes, None)


def fit(spec, codes, validation=None, seed=0):
    """A density fitted to codes of a deterministic encoder; where none are held out, the first fifty choose."""
    return catalogue.fit(spec, points(codes), points(codes[:50] if validation is None else validation), seed)


def codes(n=400, seed=0):
    """Codes of three spreads, two of them correlated, off the origin, in float32 (n, 3)."""
    white = np.random.default_rng(seed).standard_normal((n, 3))
    return (white @ [[1.0, 0.5, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 0.1]] + [5, 0, -1]).astype(np.float32)


MIXING = np.array([[1, 0.8, 0], [0, 0.6, 0], [0, 0, 1]])


def scaled(n, seed=0):
    """Correlated, far from the origin, each dimension on a scale of its own, in float32 (n, 3)."""
    white = np.random.default_rng(seed).standard_normal((n, 3))
    return ((white @ MIXING) * [10, 0.1, 1] + [100, 0, -3]).astype(np.float32)


def assert_moments_are_close(drawn, codes, correlation):
    """A network's law is near that of codes, not equal: by 15 % of an SD."""
    sd = codes.std(axis=0)
    np.testing.assert_allclose((drawn.mean(axis=0) - codes.mean(axis=0)) / sd, 0, atol=0.15)
    np.testing.assert_allclose(drawn.std(axis=0) / sd, 1, atol=0.15)
    np.testing.assert_allclose(np.corrcoef(drawn.T), np.corrcoef(codes.T), atol=correlation)


def bananas(n, pairs, seed=0):
    """Pairs (a, b) with a ~ N(0, 1), b | a ~ N(a² / 2, 1/4), in float32 (n, 2 · pairs)."""
    rng = np.random.default_rng(seed)
    a = rng.standard_normal((n, pairs))
    b = a**2 / 2 + 0.5 * rng.standard_normal((n, pairs))
    return np.stack([a, b], axis=2).reshape(n, 2 * pairs).astype(np.float32)


def bananas_log_density(codes):
    a, b = codes[:, 0::2].astype(np.float64), codes[:, 1::2].astype(np.float64)
    return (stats.norm.logpdf(a) + stats.norm.logpdf(b, a**2 / 2, 0.5)).sum(axis=1)


def grid(lower, upper, size):
    """Points of a regular grid, float32 (size^d, d), and the volume each stands for."""
    axes = [np.linspace(low, high, size) for low, high in zip(lower, upper, strict=True)]
    volume = np.prod([axis[1] - axis[0] for axis in axes])
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes)).astype(np.float32), volume


def every_density():
    """Each density of the vocabulary as the study `digits` would fit it, had it the models that all are made of."""
    names = tuple(yaml.safe_load((CONFIG / "densities.yaml").read_text()))
    digits = load_study("digits").file
    models = ("vampprior", "vq_vae")
    study = resolve_study("digits", dataclasses.replace(digits, rows=(*digits.rows, *models), densities=names))
    return {
        name: study.fit("digits", next(one for one in models if name in study.densities_of(one)), name).density
        for name in names
    }


def every_training():
    """What `train` reads of each model of the vocabulary on digits, whether a study has it or not."""
    words = vocabulary.read(CONFIG)
    rows = tuple(name for name, one in words.models.items() if "digits" in one.weights or not one.weights)
    file = dataclasses.replace(load_study("digits").file, rows=rows, densities=tuple(words.densities))
    return {model: spec for (_, model), spec in resolve_study("digits", file).trainings.items()}
