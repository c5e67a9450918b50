"""Every metric against code that shares nothing with ours, on pairs of feature sets of many kinds."""

import numpy as np
import pytest
from metric_settings import measured, settings
from prdc import compute_prdc
from sklearn.cluster import MiniBatchKMeans

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


KINDS = [*N, "duplicates", "collapsed", "shared"]


@pytest.fixture(scope="module", params=KINDS)
def pair(request):
    real, fake = features(request.param)
    chosen = settings(prd_clusters=20, prd_angles=1001, prd_runs=10)
    return real, fake, measured(real, fake, chosen)


def test_precision_recall_density_and_coverage(pair, capsys):
    real, fake, found = pair
    three, five = (compute_prdc(real.astype(np.float64), fake.astype(np.float64), nearest_k=k) for k in (3, 5))
    capsys.readouterr()  # prdc prints
    if len(np.unique(np.concatenate([real, fake]), axis=0)) < len(real) + len(fake):
        return  # prdc's balls are open, ours closed: of points that coincide it counts none (test_invariance does)
    n, m = len(real), len(fake)
    expected = {name: three[name] for name in ("precision", "recall")}
    expected |= {name: five[name] for name in ("density", "coverage")}
    for name, count in (("precision", m), ("recall", n), ("density", m), ("coverage", n)):
        assert found[name] == pytest.approx(expected[name], abs=2 / count), name


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
