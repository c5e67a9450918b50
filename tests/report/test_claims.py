"""The paper's claims on planted distances: which cells each compares, what is said of it, and that all are counted."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from rae_bench.report.comparisons import Column, Compared, Difference, FromLeast
from rae_bench.report.tables import claims
from rae_bench.report.tables.claims import CLAIMS, COLUMN_NAMES, judged, verdict_table

FAMILIES = {"vae": "variational", "two": "variational", "gp": "regularized", "sn": "regularized", "ae": "plain"}
LABELS = {"vae": "VAE", "two": "2sVAE", "gp": "RAE-GP", "sn": "RAE-SN", "ae": "AE"}
MEANS = {
    ("vae", "n"): 10.0,
    ("vae", "standard_normal"): 10.0,
    ("vae", "gmm"): 8.0,
    ("vae", "interpolation"): 6.0,
    ("two", "n"): 9.0,
    ("two", "standard_normal"): 10.0,
    ("two", "interpolation"): 7.0,
    ("gp", "n"): 7.0,
    ("gp", "standard_normal"): 30.0,
    ("gp", "gmm"): 3.0,
    ("gp", "interpolation"): 4.0,
    ("sn", "n"): 12.0,
    ("sn", "standard_normal"): 30.0,
    ("sn", "gmm"): 8.0,
    ("sn", "interpolation"): 8.0,
    ("ae", "n"): 2.0,
    ("ae", "standard_normal"): 40.0,
    ("ae", "gmm"): 3.6,
    ("ae", "interpolation"): 6.1,
}
UNSURE = {("sn", "interpolation"), ("gp", "n")}
"""Cells whose SD from seed to seed is 100 %, not 1 %."""


def _cells(means=MEANS, unsure=UNSURE):
    own = {cell: 1.0 if cell in unsure else 1e-4 for cell in means}
    alone = {name: Column(np.zeros(5), (), 0.0, (), {}) for name in COLUMN_NAMES}
    logs = {cell: float(np.log(mean)) for cell, mean in means.items()}
    return Compared(logs, own, frozenset(means), {cell: cell[1] for cell in means}, alone, 5)


def test_planted_distances_give_the_verdicts_worked_out_by_hand():
    found = [(row.claim, row.comparison, row.verdict) for row in judged(_cells(), FAMILIES, LABELS, 1.25).itertuples()]
    assert found == [
        ("rae_gmm_best", "RAE-GP GMM / VAE GMM", "supported"),  # 3 / 8, the best of the variational
        ("rae_gmm_best", "RAE-SN GMM / VAE GMM", "equal"),  # 8 / 8
        ("rae_n_leads", "RAE-GP N / 2sVAE N", "undecided"),  # 7 / 9, unsure
        ("rae_n_leads", "RAE-SN N / 2sVAE N", "contradicted"),  # 12 / 9
        ("no_winner", "RAE-SN GMM / RAE-GP GMM", "contradicted"),  # nobody beats RAE-GP
        ("no_winner", "RAE-GP GMM / RAE-SN GMM", "supported"),
        ("ae_close", "AE GMM / RAE-GP GMM", "undecided"),  # 3.6 / 3, below 1.25; but RAE-GP's N may truly be less
        ("gmm_helps", "VAE GMM / VAE N", "supported"),  # 8 / 10
        ("gmm_helps", "RAE-GP GMM / RAE-GP N", "undecided"),
        ("gmm_helps", "RAE-SN GMM / RAE-SN N", "supported"),  # 8 / 12
        ("gmm_helps", "AE GMM / AE N", "contradicted"),  # 3.6 / 2
        ("gmm_beats_prior", "VAE GMM / VAE N(0,I)", "supported"),
        ("gmm_beats_prior", "RAE-GP GMM / RAE-GP N(0,I)", "supported"),
        ("gmm_beats_prior", "RAE-SN GMM / RAE-SN N(0,I)", "supported"),
        ("gmm_beats_prior", "AE GMM / AE N(0,I)", "supported"),
        ("interpolation", "RAE-GP interp. / VAE interp.", "supported"),  # 4 / 6
        ("interpolation", "RAE-SN interp. / VAE interp.", "undecided"),
        ("interpolation", "AE interp. / VAE interp.", "equal"),  # 6.1 / 6
    ]


@pytest.mark.parametrize(("gmm", "expected"), [(3.6, "supported"), (3.74, "undecided"), (3.9, "contradicted")])
def test_close_is_held_against_the_margin_not_against_equality(gmm, expected):
    """1.25 times the best, 3, is 3.75; 3.74 lies too near to it to be told from it, and is better than nothing."""
    data = judged(_cells({**MEANS, ("ae", "gmm"): gmm}, unsure=()), FAMILIES, LABELS, 1.25).set_index("claim")
    assert data.loc["ae_close", "verdict"] == expected
    assert data.loc["ae_close", "ratio"] == pytest.approx(gmm / 3)


def test_claims_against_the_best_of_many_are_seldom_wrongly_called():
    """Of equal cells none is better or worse. Against the least of the observed means one table in six was wrong."""
    rng, wrong, n = np.random.default_rng(11), 0, 400
    families = {f"row{i}": "variational" if i < 12 else "regularized" for i in range(18)}
    for _ in range(n):
        values = {(row, column): pd.Series(0.07 * rng.normal(size=3)) for column in ("n", "gmm") for row in families}
        cells = Compared.of(values, {cell: cell[1] for cell in values})
        found = judged(cells, families, {row: row for row in families}, 1.0)
        wrong += found["verdict"].isin(["supported", "contradicted"]).any()
    assert wrong / n <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / n)


def test_the_best_of_several_is_not_taken_for_one_named_beforehand():
    """Above the least of four cells: the smallest p counts four times; below it: the largest p counts."""
    differences = tuple(Difference(mean, 1.0, 10.0) for mean in (3.0, 2.0, 1.0, -1.0))
    p = stats.t(10).sf
    found = FromLeast(differences)
    assert found.p_above(0) == pytest.approx(4 * p(3.0))
    assert found.p_below(4.0) == pytest.approx(p(1.0))
    assert found.p_difference == pytest.approx(8 * p(3.0))
    assert found.less(1.0).p_above(0) == pytest.approx(4 * p(2.0))
    assert FromLeast(differences[:1]).p_difference == pytest.approx(differences[0].p_difference)


def test_a_claim_that_cannot_be_tested_is_left_out():
    families = {row: family for row, family in FAMILIES.items() if row != "ae"}
    assert set(judged(_cells(), families, LABELS, 1.25)["claim"]) == set(CLAIMS) - {"ae_close"}


def test_every_comparison_of_every_data_set_is_counted_and_none_averaged(smoke_spec, monkeypatch):
    """Photos are worse by a factor of 3 in all that is no VAE: data sets are counted apart, and adjusted apart."""
    worse = {cell: 3 * mean if cell[0] in ("gp", "sn", "ae") else mean for cell, mean in MEANS.items()}
    cells = {"digits": _cells(), "photos": _cells(worse)}
    monkeypatch.setattr(claims, "compared", lambda spec, frame, dataset, *columns: cells[dataset])  # noqa: ARG005
    rows = {
        name: replace(smoke_spec.rows["vae"], label=LABELS[name], family=family) for name, family in FAMILIES.items()
    }
    spec = replace(smoke_spec, rows=rows, order=tuple(rows), datasets=dict.fromkeys(cells))
    table = verdict_table(spec, pd.DataFrame())
    alone = verdict_table(replace(spec, datasets={"digits": None}), pd.DataFrame())
    assert [row for row in table.rows if row[1] == "digits"] == alone.rows
    for text, dataset, *counts in table.rows:
        claim = next(name for name, sentence in CLAIMS.items() if sentence == text)
        mine = table.data[(table.data["claim"] == claim) & (table.data["dataset"] == dataset)]
        said = Counter(mine["verdict"])
        assert [int(count) for count in counts] == [
            said[v] for v in ("supported", "equal", "undecided", "contradicted")
        ]
    first = {row[1]: row[2:] for row in table.rows if row[0] == CLAIMS["rae_gmm_best"]}
    assert first == {"digits": ["1", "1", "0", "0"], "photos": ["0", "1", "0", "1"]}  # 9 / 8 and 24 / 8
