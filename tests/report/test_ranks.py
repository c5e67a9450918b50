"""Ranks, and the agreement of two rankings."""

import numpy as np
import pandas as pd
import pytest
from planted_cells import rows

from rae_bench.report.ranks import kendall, rank_agreement, ranks


def test_ranks_and_their_agreement():
    same = ranks(rows([[1, 1], [2, 2], [3, 3]]))
    assert same.loc["row2"].tolist() == [3, 3]
    assert rank_agreement(same) == 1
    turned = ranks(rows([[1, 3], [2, 2], [3, 1]]))
    assert rank_agreement(turned) == -1
    assert np.isnan(rank_agreement(ranks(rows([[1], [2]]))))


def test_kendall_compares_by_name():
    one = pd.Series({"a": 1.0, "b": 2.0, "c": 3.0})
    assert kendall(one, one[::-1]) == 1
    # two of three pairs agree: (2 − 1) / 3
    assert kendall(one, pd.Series({"a": 1.0, "b": 3.0, "c": 2.0})) == pytest.approx(1 / 3)
