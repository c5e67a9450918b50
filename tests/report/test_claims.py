"""The paper's claims on planted distances: intervals, verdicts, and every comparison counted."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from rae_bench.report.tables.claims import CLAIMS, claims_table, verdict

STEADY = np.array([0.0, 0.0, 0.0])
SMALL = np.array([-0.1, 0.1, 0.0])
LARGE = np.array([-1.0, 0.0, 1.0])
FAMILIES = {"vae": "variational", "two": "variational", "gp": "regularized", "sn": "regularized", "ae": "plain"}
LABELS = {"vae": "VAE", "two": "2sVAE", "gp": "RAE-GP", "sn": "RAE-SN", "ae": "AE"}


def _values(mean, noise):
    return pd.Series(mean + noise, index=[0, 1, 2])


NOTHING = pd.Series(dtype=float)
CELLS = {
    ("vae", "n"): _values(10.0, STEADY),
    ("vae", "standard_normal"): _values(10.0, STEADY),
    ("vae", "gmm"): _values(8.0, SMALL),
    ("vae", "interpolation"): _values(6.0, STEADY),
    ("two", "n"): _values(9.0, STEADY),
    ("two", "standard_normal"): _values(10.0, STEADY),
    ("two", "gmm"): NOTHING,
    ("two", "interpolation"): _values(7.0, STEADY),
    ("gp", "n"): _values(7.0, SMALL),
    ("gp", "standard_normal"): _values(30.0, STEADY),
    ("gp", "gmm"): _values(3.0, STEADY),
    ("gp", "interpolation"): _values(4.0, SMALL),
    ("sn", "n"): _values(12.0, SMALL),
    ("sn", "standard_normal"): _values(30.0, STEADY),
    ("sn", "gmm"): _values(8.0, LARGE),
    ("sn", "interpolation"): _values(6.5, SMALL),
    ("ae", "n"): _values(3.0, STEADY),
    ("ae", "standard_normal"): _values(40.0, STEADY),
    ("ae", "gmm"): _values(3.6, SMALL),
    ("ae", "interpolation"): _values(6.0, LARGE),
}


def _table(cells=CELLS):
    return claims_table({"digits": cells}, FAMILIES, LABELS)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (-2.0, -0.1, "supported"),
        (0.1, 2.0, "contradicted"),
        (-1.0, 1.0, "undecided"),
        (-1.0, 0.0, "undecided"),
        (0.0, 1.0, "undecided"),
    ],
)
def test_an_interval_that_holds_zero_is_undecided(low, high, expected):
    assert verdict(low, high) == expected


def test_planted_distances_give_the_verdicts_worked_out_by_hand():
    """t(0.975, 2) = 4.303: SD 0.1 is a half-width of 0.25 over three seeds, SD 1 one of 2.48."""
    data, _ = _table()
    found = [(row.claim, round(row.mean_difference, 9), row.verdict) for row in data.itertuples()]
    expected = [
        ("rae_gmm_best", 3 - 8, "supported"),  # RAE-GP against the best of the variational, VAE's GMM
        ("rae_gmm_best", 8 - 8, "undecided"),  # RAE-SN
        ("rae_n_leads", 7 - 9, "supported"),  # RAE-GP against the best of the variational N, 2sVAE's
        ("rae_n_leads", 12 - 9, "contradicted"),  # RAE-SN
        ("no_winner", 8 - 3, "contradicted"),  # nobody beats RAE-GP
        ("no_winner", 3 - 8, "supported"),  # RAE-GP beats RAE-SN
        ("ae_close", -0.15, "undecided"),  # AE, 3.6, against 1.25 times the best of all others, RAE-GP's 3
        ("gmm_helps", 8 - 10, "supported"),  # VAE
        ("gmm_helps", 3 - 7, "supported"),  # RAE-GP
        ("gmm_helps", 8 - 12, "supported"),  # RAE-SN
        ("gmm_helps", 0.6, "contradicted"),  # AE, 3.6 - 3
        ("gmm_beats_prior", 8 - 10, "supported"),  # VAE
        ("gmm_beats_prior", 3 - 30, "supported"),  # RAE-GP
        ("gmm_beats_prior", 8 - 30, "supported"),  # RAE-SN
        ("gmm_beats_prior", 3.6 - 40, "supported"),  # AE
        ("interpolation", 4 - 6, "supported"),  # RAE-GP against the best of the variational, VAE
        ("interpolation", 0.5, "contradicted"),  # RAE-SN, 6.5 - 6
        ("interpolation", 6 - 6, "undecided"),  # AE
    ]
    assert found == expected


def test_every_comparison_is_counted_and_none_averaged():
    data, summary = _table()
    numbers = (2, 2, 2, 1, 4, 4, 3)  # RAEs, RAEs, RAEs, AEs, rows with a GMM, the same, all but the variational
    assert [(row[0], sum(row[2:5])) for row in summary] == list(zip(CLAIMS.values(), numbers, strict=True))
    counted = Counter(data["verdict"])
    columns = np.array([row[2:5] for row in summary]).sum(axis=0)
    assert list(columns) == [counted["supported"], counted["undecided"], counted["contradicted"]]


DIFFERENCES = [
    # each comparison of CELLS by hand, in the order of the verdicts above: claim, mean, what varies over seeds
    *(("rae_gmm_best", -5, -SMALL), ("rae_gmm_best", 0, LARGE - SMALL)),
    *(("rae_n_leads", -2, SMALL), ("rae_n_leads", 3, SMALL)),
    *(("no_winner", 5, LARGE), ("no_winner", -5, -LARGE)),
    ("ae_close", -0.15, SMALL),
    *(("gmm_helps", -2, SMALL), ("gmm_helps", -4, -SMALL), ("gmm_helps", -4, LARGE - SMALL), ("gmm_helps", 0.6, SMALL)),
    *(("gmm_beats_prior", -2, SMALL), ("gmm_beats_prior", -27, STEADY)),
    *(("gmm_beats_prior", -22, LARGE), ("gmm_beats_prior", -36.4, SMALL)),
    *(("interpolation", -2, SMALL), ("interpolation", 0.5, SMALL), ("interpolation", 0, LARGE)),
]


def test_the_last_count_is_of_what_survives_holm_over_all_comparisons_of_the_data_set():
    """Holm as he states it: from the smallest p on, called until one is not below 0.05 / (comparisons left)."""
    p_values = [stats.ttest_1samp(mean + noise, 0).pvalue if noise.any() else 0.0 for _, mean, noise in DIFFERENCES]
    called = set()
    for rank, i in enumerate(np.argsort(p_values)):
        if p_values[i] * (len(p_values) - rank) >= 0.05:
            break
        called.add(i)
    sure = Counter(claim for i, (claim, mean, _) in enumerate(DIFFERENCES) if mean < 0 and i in called)
    data, summary = _table()
    np.testing.assert_allclose(data["p_value"], p_values, rtol=1e-6)
    assert [row[5] for row in summary] == [sure[claim] for claim in CLAIMS]
    supported = sum(row[2] for row in summary)
    assert 0 < sum(sure.values()) < supported  # the planted frame holds both kinds


def test_other_data_sets_do_not_weaken_a_claim():
    alone, among = _table()[1], claims_table(dict.fromkeys(("digits", "photos"), CELLS), FAMILIES, LABELS)[1]
    assert [row for row in among if row[1] == "digits"] == alone


def test_data_sets_are_counted_apart():
    worse = {key: series + 20.0 if key[0] in ("gp", "sn", "ae") else series for key, series in CELLS.items()}
    data, summary = claims_table({"digits": CELLS, "photos": worse}, FAMILIES, LABELS)
    by_dataset = {row[1]: row[2:5] for row in summary if row[0] == CLAIMS["rae_gmm_best"]}
    assert by_dataset == {"digits": (1, 1, 0), "photos": (0, 0, 2)}
    assert list(data["dataset"].drop_duplicates()) == ["digits", "photos"]


def test_differences_are_paired_by_seed_whatever_the_order():
    shuffled = {key: series.iloc[::-1] for key, series in CELLS.items() if key[0] == "gp"}
    data, _ = _table()
    again, _ = _table({**CELLS, **shuffled})
    pd.testing.assert_frame_equal(data, again)


def test_a_claim_that_cannot_be_tested_is_left_out():
    families = {row: family for row, family in FAMILIES.items() if row != "ae"}
    labels = {row: LABELS[row] for row in families}
    data, summary = claims_table({"digits": CELLS}, families, labels)
    assert "ae_close" not in set(data["claim"])
    assert CLAIMS["ae_close"] not in {row[0] for row in summary}
