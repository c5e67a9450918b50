"""Cells of planted values, and of many simulated tables, for what compares them."""

import numpy as np
import pandas as pd

from rae_bench.report.comparisons import Compared

TABLES = 250


def rows(table):
    """A table's lines as cells `row0`, `row1` ..., by training seed."""
    return {f"row{i}": pd.Series(values) for i, values in enumerate(np.asarray(table, dtype=float))}


def normal(n, seeds, seed=0):
    """Standard normal values of n rows."""
    return np.random.default_rng(seed).normal(size=(n, seeds))


def simulated(logs, spreads, seeds=3):
    """TABLES comparisons of rows with these true logarithms and relative spreads, and effects of seeds."""
    rng = np.random.default_rng(5)
    for _ in range(TABLES):
        noise = rng.normal(size=(len(logs), seeds)) * np.array(spreads)[:, None]
        yield Compared.of(rows(np.array(logs)[:, None] + rng.normal(size=seeds) + 0.07 * noise))


def residual_mean_square(table):
    """That of rows and seeds in a two-way analysis of variance, by least squares on dummy variables."""
    n, seeds = table.shape
    row, seed = np.divmod(np.arange(table.size), seeds)
    design = np.hstack([np.eye(n)[row], np.eye(seeds)[seed]])
    residual = table.ravel() - design @ np.linalg.lstsq(design, table.ravel())[0]
    return (residual**2).sum() / ((n - 1) * (seeds - 1))
