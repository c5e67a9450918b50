"""Distributions whose density is known, to be recovered by what is fitted to draws of them."""

import dataclasses

import numpy as np
import yaml
from scipy import stats

from rae_bench.densities.codes import Posteriors
from rae_bench.study.config import CONFIG, load_study, resolve_study


def points(codes):
    """Codes of a deterministic encoder."""
    return Posteriors(codes, None)


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
    """Each density of the vocabulary as the study `digits` would fit it."""
    names = tuple(yaml.safe_load((CONFIG / "densities.yaml").read_text()))
    study = resolve_study("digits", dataclasses.replace(load_study("digits").file, densities=names))
    return {name: study.fit("digits", "vae", name).density for name in names}
