"""Fréchet distances that are made up, so that what is said of them can be worked out by hand."""

from dataclasses import replace

import pandas as pd

from rae_bench.study.config import load_study

SEEDS = 5
DENSITIES = {"n": "gaussian", "gmm": "gmm10"}
MODELS = ("cv_vae", "rae_gp", "rae_l2", "ae", "linear")


def planted_study():
    """A variational model, two regularized ones, a plain one; and a baseline."""
    return replace(load_study("digits").summary(), order=MODELS)


def planted(distances, spread=0.001, seeds=SEEDS, dataset="digits"):
    """A frame of Fréchet distances; `distances`: by model and column of one value, or of (value, spread)."""
    return pd.DataFrame(
        {
            **{"dataset": dataset, "model": model, "image_set": "sample", "density": DENSITIES.get(column, column)},
            **{"metric": "frechet_distance", "train_seed": seed, "fit_seed": 0, "sample_seed": 0},
            # seeds go different ways in different cells, the same in the mean
            "value": value * (1 + own * ((seed + 2 * i) % seeds - (seeds - 1) / 2)),
        }
        for i, ((model, column), found) in enumerate(distances.items())
        for value, own in [found if isinstance(found, tuple) else (found, spread)]
        for seed in range(seeds)
    )


def gmm(*distances, linear=90.0):
    """The distances of every model under its mixture, in the order of MODELS."""
    return {(model, "gmm"): value for model, value in zip(MODELS, (*distances, linear), strict=True)}
