"""Every metric against code that shares nothing with ours, on pairs of feature sets of many kinds."""

import numpy as np
import pytest
from metric_settings import settings
from prdc import compute_prdc
from scipy import linalg
from sklearn.cluster import KMeans, MiniBatchKMeans

from rae_bench.scoring.metrics.frechet import between, fid
from rae_bench.scoring.metrics.measure import measure
from rae_bench.scoring.metrics.reference import Reference

N = {"n_above_d": (400, 400, 20), "n_below_d": (60, 60, 100), "more_real": (300, 120, 30), "more_fake": (90, 250, 40)}


def features(kind):
    rng = np.random.default_rng(3)
    n, m, d = N.get(kind, (200, 160, 24))
    spread = np.linspace(0.2, 2, d)
    real, fake = rng.standard_normal((n, d)) * spread, 0.2 + rng.standard_normal((m, d)) * spread[::-1] * 0.8
    if kind == "duplicates":
        real, fake = real[np.arange(n) % 37], fake[np.arange(m) % 5]
    if kind == "collapsed":
        fake = np.repeat(real[:1] + 0.01, m, axis=0)
    if kind == "shared":  # half of the fakes are real images
        fake = np.concatenate([real[: m // 2], fake[m // 2 :]])
    return real.astype(np.float32), fake.astype(np.float32)


def measured(real, fake, chosen):
    reference = Reference.of(real, 5)
    return measure(reference, fake, chosen, is_fid=False, prd_real=reference)


KINDS = [*N, "duplicates", "collapsed", "shared"]


@pytest.fixture(scope="module", params=KINDS)
def pair(request):
    real, fake = features(request.param)
    chosen = settings(prd_clusters=20, prd_angles=1001, prd_runs=10)
    return real, fake, measured(real, fake, chosen)


def by_matrix_root(real, fake):
    """Heusel et al. 2017 as it is written, with SciPy's root of the product (Schur, complex arithmetic)."""
    one, two = np.cov(real.T.astype(np.float64)), np.cov(fake.T.astype(np.float64))
    values = linalg.eigvals(one @ two)
    shift = real.mean(axis=0, dtype=np.float64) - fake.mean(axis=0, dtype=np.float64)
    return shift @ shift + np.trace(one) + np.trace(two) - 2 * np.sqrt(values.astype(complex)).real.sum()


def test_the_frechet_distance(pair):
    real, fake, found = pair
    traces = np.trace(np.cov(real.T)) + np.trace(np.cov(fake.T))
    n, m, d = len(real), len(fake), real.shape[1]
    # eigenvalues of the general product carry √ε for each empty direction: compare to 1e-6 where there is none
    tolerance = 1e-6 if min(n, m) > d and len(np.unique(fake, axis=0)) > d else 1e-4
    assert found["frechet_distance"] == pytest.approx(by_matrix_root(real, fake), abs=tolerance * traces)


def test_the_frechet_distance_by_singular_values(pair):
    """tr (Σ₁Σ₂)^½ = ‖X_c Y_cᵀ‖_* / √((n−1)(m−1)): no root of any matrix, exact where there are empty directions."""
    real, fake, found = pair
    x, y = (part - part.mean(axis=0) for part in (real.astype(np.float64), fake.astype(np.float64)))
    cross = linalg.svdvals(x @ y.T).sum() / np.sqrt((len(x) - 1) * (len(y) - 1))
    shift = real.mean(axis=0, dtype=np.float64) - fake.mean(axis=0, dtype=np.float64)
    traces = (x**2).sum() / (len(x) - 1) + (y**2).sum() / (len(y) - 1)
    assert found["frechet_distance"] == pytest.approx(shift @ shift + traces - 2 * cross, abs=1e-6 * traces)
    assert between(real, fake) == pytest.approx(found["frechet_distance"], abs=1e-9 * traces)


def test_fid_is_torch_fidelitys_value(pair):
    real, fake, found = pair
    assert fid(Reference.of(real, 0), fake) == pytest.approx(found["frechet_distance"], rel=1e-3, abs=1e-3)


def test_the_exact_kernel_distance(pair):
    real, fake, found = pair
    x, y, d = real.astype(np.float64), fake.astype(np.float64), real.shape[1]
    total = 0.0
    for one, sign in ((x, 1), (y, 1)):
        for i in range(len(one)):
            others = np.delete(one, i, axis=0)
            total += sign * np.sum((np.einsum("nd,d->n", others, one[i]) / d + 1) ** 3) / (len(one) * (len(one) - 1))
    cross = np.mean([np.mean((np.einsum("nd,d->n", y, row) / d + 1) ** 3) for row in x])
    assert found["kernel_mmd2"] == pytest.approx(total - 2 * cross, abs=1e-6 * max(1, abs(total)))


def test_precision_recall_density_and_coverage(pair, capsys):
    real, fake, found = pair
    three, five = (compute_prdc(real.astype(np.float64), fake.astype(np.float64), nearest_k=k) for k in (3, 5))
    capsys.readouterr()  # prdc prints
    if len(np.unique(np.concatenate([real, fake]), axis=0)) < len(real) + len(fake):
        # prdc's balls are open, ours closed: of points that coincide it counts none. By brute force, closed:
        three, five = (closed_balls(real, fake, k) for k in (3, 5))
    n, m = len(real), len(fake)
    expected = {name: three[name] for name in ("precision", "recall")}
    expected |= {name: five[name] for name in ("density", "coverage")}
    for name, count in (("precision", m), ("recall", n), ("density", m), ("coverage", n)):
        assert found[name] == pytest.approx(expected[name], abs=2 / count), name


def closed_balls(real, fake, k):
    """By the definitions, with distances from differences, no matrix product."""
    real, fake = real.astype(np.float64), fake.astype(np.float64)

    def radii(x):
        return np.array([np.sort(np.sqrt(((x - row) ** 2).sum(axis=1)))[k] for row in x])

    across = np.array([np.sqrt(((fake - row) ** 2).sum(axis=1)) for row in real])
    in_real, in_fake = across <= radii(real)[:, None], across <= radii(fake)[None]
    return {
        "precision": in_real.any(axis=0).mean(),
        "recall": in_fake.any(axis=1).mean(),
        "density": in_real.sum() / (k * len(fake)),
        "coverage": in_real.any(axis=1).mean(),
    }


def test_prd(pair):
    """The official recipe, loop by loop, other seeds, every number by Python's own arithmetic."""
    real, fake, found = pair
    n = min(len(real), len(fake))
    curves = []
    for seed in range(100, 115):
        rng = np.random.default_rng(seed)
        union = np.concatenate([rng.permutation(fake)[:n], rng.permutation(real)[:n]])
        labels = MiniBatchKMeans(n_clusters=20, n_init=10, random_state=seed).fit(union).labels_
        q, p = (np.histogram(part, bins=20, range=(-0.5, 19.5), density=True)[0] for part in (labels[:n], labels[n:]))
        points = []
        for angle in np.linspace(1e-10, np.pi / 2 - 1e-10, 1001):
            alpha = sum(min(a, np.tan(angle) * b) for a, b in zip(q, p, strict=True))
            points.append((alpha, alpha / np.tan(angle)))
        curves.append(points)
    precision, recall = np.mean(curves, axis=0).T
    for name, b in (("prd_f8", 8), ("prd_f1_8", 1 / 8)):
        with np.errstate(invalid="ignore"):
            f = np.nan_to_num((1 + b**2) * precision * recall / (b**2 * precision + recall))
        # the clustering's own noise, of the mean of 10 and of 15 runs, and 0.02
        noise = 3 * found[f"{name}_sd"] * np.sqrt(1 / 10 + 1 / 15)
        assert found[name] == pytest.approx(f.max(), abs=max(0.02, noise)), name


def test_prd_hardly_depends_on_the_kind_of_k_means():
    real, fake = features("n_above_d")
    found = measured(real, fake, settings(prd_clusters=20, prd_runs=10, prd_angles=1001))
    labels = [KMeans(20, n_init=3, random_state=seed).fit(np.concatenate([fake, real])).labels_ for seed in range(8)]
    tv = [
        np.abs(np.bincount(one[:400], minlength=20) - np.bincount(one[400:], minlength=20)).sum() / 800
        for one in labels
    ]
    assert 0 < found["prd_f8"] < 1
    assert found["prd_f8"] > 1 - np.mean(tv) - 0.1  # at slope 1, precision = recall = 1 − total variation


def test_swapped_arguments_are_noticed():
    """Real first: the two orders differ wherever a metric is not symmetric, in the direction known for shrinkage."""
    real, _ = features("n_above_d")
    shrunk = (0.3 * real).astype(np.float32)
    chosen = settings(prd_clusters=20, prd_runs=4)
    right = measured(real, shrunk, chosen)
    swapped = measured(shrunk, real, chosen)
    assert right["precision"] > 0.95 > 0.3 > right["recall"]
    assert swapped["recall"] > 0.95 > 0.3 > swapped["precision"]
    assert right["density"] > 1 > swapped["density"]
    assert right["coverage"] > 0.95 > 0.3 > swapped["coverage"]
