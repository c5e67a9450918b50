"""Ranks of rows, and how well two rankings agree."""

from collections.abc import Mapping
from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats


def ranks(values: Mapping[str, pd.Series]) -> pd.DataFrame:
    """Ranks (1 the lowest value, ties averaged), a row each and a column per training seed."""
    return pd.DataFrame(dict(values)).T.rank(axis=0)


def rank_agreement(ranked: pd.DataFrame) -> float:
    """Mean Kendall's tau-b over all pairs of seeds: 1 where every seed ranks alike, 0 for chance; NaN for one seed."""
    taus = [kendall(ranked[one], ranked[two]) for one, two in combinations(ranked.columns, 2)]
    return float(np.mean(taus)) if taus else float("nan")


def kendall(one: pd.Series, two: pd.Series) -> float:
    """Kendall's tau-b of two rankings of the same rows; NaN for fewer than two rows."""
    if len(one) < 2:
        return float("nan")
    return float(stats.kendalltau(one, two.reindex(one.index)).statistic)
