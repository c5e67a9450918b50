"""Attributes against a known law: histograms counted by hand, planted losses, and the noise of real draws."""

import numpy as np
import pytest
from scipy import stats

from rae_bench.data import faces
from rae_bench.scoring.metrics.attributes import attribute_marginal_error, mode_coverage
from rae_bench.scoring.metrics.reference import MetricError

COIN = {"coin": np.array([0.5, 0.5])}
LAW = {"colour": np.array([0.2, 0.3, 0.5]), "hat": np.array([0.75, 0.25])}
"""Six cells: 0.15, 0.05, 0.225, 0.075, 0.375, 0.125."""


def repeated(counts):
    """The joint classes of LAW's cells, each as often as `counts` says: {(colour, hat): n}."""
    cells = np.array([cell for cell, n in counts.items() for _ in range(n)])
    return {"colour": cells[:, 0], "hat": cells[:, 1]}


def exact(n=1000):
    """As many images in each cell as the law says."""
    return {(c, h): round(n * p * q) for c, p in enumerate((0.2, 0.3, 0.5)) for h, q in enumerate((0.75, 0.25))}


def real(n, seed):
    return faces.classes(faces.draw_factors(n, np.random.default_rng(seed)))


# --- marginals --------------------------------------------------------------------------------------------


def test_shares_as_the_law_says_are_no_error():
    assert attribute_marginal_error(repeated(exact()), LAW) == pytest.approx(
        {"attribute_error": 0, "attribute_error_colour": 0, "attribute_error_hat": 0}, abs=1e-12
    )


def test_an_error_counted_by_hand():
    predicted = {"colour": np.array([0, 0, 0, 0, 1, 1, 1, 2, 2, 2]), "hat": np.array([0] * 6 + [1] * 4)}
    # colour 0.4 0.3 0.3 for 0.2 0.3 0.5: ½ (0.2 + 0 + 0.2); hat 0.6 0.4 for 0.75 0.25: ½ (0.15 + 0.15)
    assert attribute_marginal_error(predicted, LAW) == pytest.approx(
        {"attribute_error": 0.175, "attribute_error_colour": 0.2, "attribute_error_hat": 0.15}
    )


@pytest.mark.parametrize(("colour", "hat", "errors"), [(0, 0, (0.8, 0.25)), (2, 1, (0.5, 0.75))])
def test_a_generator_of_one_cell_errs_by_all_other_classes(colour, hat, errors):
    found = attribute_marginal_error(repeated({(colour, hat): 7}), LAW)
    assert (found["attribute_error_colour"], found["attribute_error_hat"]) == pytest.approx(errors)
    assert found["attribute_error"] == pytest.approx(sum(errors) / 2)


def test_real_faces_err_by_the_noise_of_counting():
    """E|p̂ − p| = √(2p(1 − p)/(πn)) in the normal limit; the mean of 100 draws is within some 3 % of it."""
    n = 2000
    found = [attribute_marginal_error(real(n, seed), faces.LAW) for seed in range(100)]
    noise = {f: 0.5 * np.sqrt(2 * p * (1 - p) / (np.pi * n)).sum() for f, p in faces.LAW.items()}
    assert noise["hair"] == pytest.approx(0.01784, abs=1e-5)
    assert noise["glasses"] == pytest.approx(0.00773, abs=1e-5)
    for factor, expected in noise.items():
        errors = [one[f"attribute_error_{factor}"] for one in found]
        assert np.mean(errors) == pytest.approx(expected, rel=0.2)  # four standard errors of a half-normal's mean
        assert max(errors) < 5 * expected


# --- modes ------------------------------------------------------------------------------------------------


def test_shares_as_the_law_says_cover_all():
    assert mode_coverage(repeated(exact()), LAW) == 1


@pytest.mark.parametrize(
    ("lost", "share"),
    [([(0, 0)], 0.85), ([(0, 1), (1, 1), (2, 1)], 0.75), ([(2, 0), (2, 1)], 0.5), ([(0, 0), (1, 1), (2, 0)], 0.4)],
)
def test_lost_cells_cost_their_probability(lost, share):
    counts = {cell: n for cell, n in exact().items() if cell not in lost}
    assert mode_coverage(repeated(counts), LAW) == pytest.approx(share)


def test_joint_modes_are_seen_where_marginals_are_right():
    """A hat on every second head of either colour, or on one colour only: the same marginals."""
    law = {"colour": np.array([0.5, 0.5]), "hat": np.array([0.5, 0.5])}
    predicted = repeated({(0, 0): 500, (1, 1): 500})
    assert attribute_marginal_error(predicted, law)["attribute_error"] == 0
    assert mode_coverage(predicted, law) == 0.5


@pytest.mark.parametrize(("images", "share"), [(4, 0.95), (6, 1)])
def test_a_cell_is_reached_at_a_tenth_of_its_probability(images, share):
    """Of 1,000 images the cell of 0.05 should have 50."""
    counts = exact() | {(0, 1): images, (0, 0): 200 - images}
    assert mode_coverage(repeated(counts), LAW) == pytest.approx(share)


def test_a_thousand_real_faces_cover_all():
    """The floor: a cell of p is missed when Binomial(n, p) < np/10."""
    law = {factor: faces.LAW[factor] for factor in ("hair", "long_hair", "glasses")}
    p = np.repeat(np.outer([0.55, 0.45], [0.75, 0.25]).ravel() / 5, 5)
    missed = (p * stats.binom.cdf(np.ceil(100 * p) - 1, 1000, p)).sum()
    assert missed < 1e-8
    assert [mode_coverage(real(1000, seed), law) for seed in range(20)] == [1] * 20


# --- both -------------------------------------------------------------------------------------------------


def test_too_few_images_for_the_rarest_cell_are_an_error():
    assert mode_coverage({"coin": np.array([0, 1] * 5)}, COIN) == 1
    with pytest.raises(MetricError, match=r"9 images for 2 cells, .* probability 0.5: at least 10 images are needed"):
        mode_coverage({"coin": np.array([0] * 9)}, COIN)
