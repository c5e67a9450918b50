"""Which of two rows is better, and how sure: paired over seeds, corrected for many comparisons, with stable ranks.

Rows of equal training seed share the order of batches, and rows of equal sample seed the noise of their samples'
generator: their differences are paired. Sample seeds are averaged before a test: they are not new trainings.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats

CONFIDENCE = 0.95
LEVEL = 0.05
"""A difference counts as found if its p lies below this."""
PAIR = ["a", "b", "mean_difference", "low", "high", "n_seeds", "p_a_beats_b", "p_value"]


def interval(difference: pd.Series) -> tuple[float, float, float]:
    """Mean and the ends of the 95 % t-interval of paired differences; infinitely wide for a single seed."""
    mean, n = float(difference.mean()), len(difference)
    if n < 2:
        return mean, -np.inf, np.inf
    half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, n - 1) * difference.std(ddof=1) / np.sqrt(n))
    return mean, mean - half, mean + half


def prediction_half_width(values: pd.Series) -> float:
    """How far one new value of the same kind lies from the mean of `values` in 95 % of cases: t · s · √(1 + 1/n).

    s is the SD of the n values, t the Student quantile of n − 1 degrees of freedom; NaN for a single value.
    """
    n = len(values)
    if n < 2:
        return float("nan")
    return float(stats.t.ppf(0.5 + CONFIDENCE / 2, n - 1) * values.std(ddof=1) * np.sqrt(1 + 1 / n))


def p_value(difference: pd.Series) -> float:
    """Two-sided p of the paired t-test that the mean difference is 0; 1 for a single seed, 0 if it never varies."""
    n, mean, sd = len(difference), float(difference.mean()), float(difference.std(ddof=1))
    if n < 2 or (mean == 0 and sd == 0):
        return 1.0
    return float(2 * stats.t.sf(abs(mean) / (sd / np.sqrt(n)), n - 1)) if sd > 0 else 0.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values (1979): the chance of any false rejection among all stays below the level."""
    order = np.argsort(p_values, kind="stable")
    factors = len(p_values) - np.arange(len(p_values))
    adjusted = np.minimum(np.maximum.accumulate(np.asarray(p_values)[order] * factors), 1)
    result = np.empty(len(p_values))
    result[order] = adjusted
    return [float(p) for p in result]


def pairs(samples: Mapping[str, pd.Series]) -> pd.DataFrame:
    """Every pair of rows: mean difference a − b with its 95 % interval, P(a beats b), p and Holm's p. Lower is better.

    `samples`: for each row its values by (train_seed, sample_seed). P is the share of common seeds at which a lies
    below b, ties counting half.
    """
    records = []
    for a, b in combinations(samples, 2):
        difference = (samples[a] - samples[b]).dropna()
        seeds = difference.groupby(level="train_seed").mean()
        mean, low, high = interval(seeds)
        beats = float(((difference < 0) + 0.5 * (difference == 0)).mean())
        records.append(
            {
                "a": a,
                "b": b,
                "mean_difference": mean,
                "low": low,
                "high": high,
                "n_seeds": len(seeds),
                "p_a_beats_b": beats,
                "p_value": p_value(seeds),
            }
        )
    frame = pd.DataFrame(records, columns=PAIR)
    frame["p_holm"] = holm(list(frame["p_value"]))
    return frame


def ranks(samples: Mapping[str, pd.Series]) -> pd.DataFrame:
    """Ranks (1 the lowest value, ties averaged), a row each and a column per (train_seed, sample_seed)."""
    return pd.DataFrame(dict(samples)).T.rank(axis=0)


def rank_agreement(ranked: pd.DataFrame) -> float:
    """Mean Kendall's tau-b over all pairs of seeds: 1 where every seed ranks alike, 0 for chance; NaN for one seed."""
    taus = [kendall(ranked[one], ranked[two]) for one, two in combinations(ranked.columns, 2)]
    return float(np.mean(taus)) if taus else float("nan")


def kendall(one: pd.Series, two: pd.Series) -> float:
    """Kendall's tau-b of two rankings of the same rows; NaN for fewer than two rows."""
    if len(one) < 2:
        return float("nan")
    return float(stats.kendalltau(one, two.reindex(one.index)).statistic)
