"""Every metric wherever features lie and however they are stored, against brute force that shares no code with ours.

Two hundred drawn pairs: offsets, scales from 1e-100 to 1e100, float16 to longdouble, memory orders, duplicates,
constant columns, fewer images than features, too few images. The truth comes from differences, in numpy's longdouble.
"""

import hashlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, strategies
from hypothesis import settings as budget
from metric_settings import measured, settings
from scipy import linalg

from rae_bench.scoring.metrics.memorisation import Training
from rae_bench.scoring.metrics.reference import MetricError, usable

CHOSEN = settings(kernel_subset_size=8, infinity_sizes=4, prd_runs=4, prd_angles=201)
LEAST = 8
SPREAD = {
    np.float16: (0, 0, 100),
    np.float32: (-12, 12, 1e5),
    np.float64: (-100, 100, 1e9),
    np.longdouble: (-100, 100, 1e9),
}
"""The powers of ten of each type's scales, and the largest offset, in SDs, of which it keeps a few digits."""


@strategies.composite
def triples(draw):
    """Real, fake and training features."""
    rng = np.random.default_rng(draw(strategies.integers(0, 2**32)))
    kind = draw(strategies.sampled_from(list(SPREAD)))
    low, high, far = SPREAD[kind]
    counts = draw(strategies.tuples(*[strategies.sampled_from([2, 7, 8, 9, 20, 35, 60])] * 2))
    d = draw(strategies.sampled_from([1, 2, 3, 9, 30]))
    real, fake, train = (rng.standard_normal((n, d)) for n in (*counts, 30))
    fake = fake * draw(strategies.sampled_from([0.3, 1.0, 2.0])) + draw(strategies.sampled_from([0.0, 0.5, 20.0]))
    if draw(strategies.booleans()):  # within each set, and across
        real[len(real) // 2 :] = real[: len(real) - len(real) // 2]
        fake[: min(counts) // 3] = real[: min(counts) // 3]
    if draw(strategies.booleans()):
        for part in (real, fake, train):
            part[:, 0] = 3.0
    offset = draw(strategies.sampled_from([0.0, 1.0, far / 100, far])) * (
        1 if draw(strategies.booleans()) else rng.random(d)
    )
    scale = kind(10.0) ** draw(strategies.integers(low, high))
    stored = draw(strategies.sampled_from([np.ascontiguousarray, np.asfortranarray, strided]))
    return tuple(stored(((part + offset) * scale).astype(kind)) for part in (real, fake, train))


def strided(array):
    wide = np.zeros((len(array), 2 * array.shape[1]), array.dtype)
    wide[:, ::2] = array
    return wide[:, ::2]


# --- by brute force ---------------------------------------------------------------------------------------


def squares(one, two):
    return ((one[:, None] - two[None]) ** 2).sum(axis=2)


def balls(real, fake, k):
    real_radii, fake_radii = (np.sort(squares(x, x), axis=1)[:, k] for x in (real, fake))
    across = squares(real, fake)
    in_real, in_fake = across <= real_radii[:, None], across <= fake_radii
    return (
        in_real.any(axis=0).mean(),
        in_fake.any(axis=1).mean(),
        in_real.sum() / (k * len(fake)),
        in_real.any(axis=1).mean(),
    )


def frechet(real, fake):
    """‖μ₁ − μ₂‖² + tr Σ₁ + tr Σ₂ − 2 ‖X Yᵀ‖_*, X and Y centred, and the size of its terms."""
    x, y = (((part - part.mean(axis=0)) / np.sqrt(len(part) - 1)).astype(np.float64) for part in (real, fake))
    shift = float(((real.mean(axis=0) - fake.mean(axis=0)) ** 2).sum())
    terms = shift + (x**2).sum() + (y**2).sum()
    return terms - 2 * linalg.svdvals(x @ y.T).sum(), terms


def generator(purpose):
    digest = hashlib.sha256(f"0/{purpose}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big") >> 1)


def half_sd(real, fake):
    rng = generator("half samples")
    halves = [rng.permutation(len(fake))[: len(fake) // 2] for _ in range(3)]
    return np.std([frechet(real, fake[half])[0] for half in halves], ddof=1)


def infinity(real, fake):
    n, d = min(len(real), len(fake)), real.shape[1]
    least = max(2 * d, n // 10)
    if n < 2 * least:
        return None
    rng, counts, values = generator("infinity"), np.rint(1 / np.linspace(1 / least, 1 / n, 4)).astype(int), []
    for count in counts:
        one, two = rng.permutation(len(real)), rng.permutation(len(fake))
        cuts = [slice(i * count, (i + 1) * count) for i in range(n // count)]
        values.append(np.mean([frechet(real[one[cut]], fake[two[cut]])[0] for cut in cuts]))
    x = 1 / counts - np.mean(1 / counts)
    return np.mean(values) - (x @ values) / (x @ x) * np.mean(1 / counts)


def kernel_mmd2(real, fake):
    """The unbiased MMD², and the size of its terms."""
    d = real.shape[1]

    def mean(one, two):
        kernel = (np.einsum("id,jd->ij", one, two) / d + 1) ** 3
        if one is two:
            np.fill_diagonal(kernel, 0)
            return kernel.sum() / (len(one) * (len(one) - 1))
        return kernel.mean()

    terms = mean(real, real), mean(fake, fake), mean(real, fake)
    return terms[0] + terms[1] - 2 * terms[2], max(1, *(abs(term) for term in terms))


def kernel_distance(real, fake):
    rng, found = np.random.RandomState(0), []
    for _ in range(2):
        some = fake[rng.choice(len(fake), 8, replace=False)]
        found.append(kernel_mmd2(real[rng.choice(len(real), 8, replace=False)], some)[0])
    return np.mean(found)


@budget(max_examples=200, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(triples())
def test_every_metric_is_what_brute_force_says_or_refused_in_one_line(sets):
    real, fake, train = sets
    if min(len(real), len(fake)) < LEAST:
        with pytest.raises(MetricError, match=r"^(real|fake): features have shape .* expected n at least [^\n]*$"):
            measured(real, fake, CHOSEN)
        return
    found = measured(real, fake, CHOSEN)
    wide = [part.astype(np.float64).astype(np.longdouble) for part in sets]
    size = max(np.abs(part - wide[0][0]).max() for part in wide) or np.longdouble(1)
    unit = np.ldexp(np.longdouble(1), int(np.frexp(size)[1]))
    near = [(part - wide[0][0]) / unit for part in wide]
    square = float(unit) ** 2

    expected, terms = frechet(*near[:2])
    assert found["frechet_distance"] / square == pytest.approx(expected, abs=1e-6 * terms)
    assert found["frechet_distance_half_sd"] / square == pytest.approx(half_sd(*near[:2]), abs=1e-5 * terms)
    limit = infinity(*near[:2])
    assert ("frechet_infinity" in found) == (limit is not None)
    if limit is not None:
        assert found["frechet_infinity"] / square == pytest.approx(limit, abs=1e-4 * terms)

    three, five = balls(*near[:2], 3), balls(*near[:2], 5)
    expected = dict(zip(("precision", "recall", "density", "coverage"), (*three[:2], *five[2:]), strict=True))
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-12)

    mmd2, size = kernel_mmd2(*wide[:2])
    for name, value in (("kernel_mmd2", mmd2), ("kernel_distance", kernel_distance(*wide[:2]))):
        assert name in found or size > 1e295, name  # sums of many, above what float64 holds
        if name in found:
            assert found[name] == pytest.approx(float(value), abs=float(1e-10 * size)), name

    if min(len(real), len(fake)) >= 20:  # of fewer, five clusters say nothing; near the origin `test_agreement` checks
        plain = measured(*(part.astype(np.float64) for part in near[:2]), CHOSEN)
        for name in ("prd_f8", "prd_f1_8"):
            assert found[name] == pytest.approx(plain[name], abs=0.02 + 3 * found[f"{name}_sd"]), name

    typical, nearest = (np.median(np.sqrt(squares(part, near[2]).min(axis=1))) for part in near[:2])
    if typical > 0:
        real, fake, train = (usable("", part, {}) for part in sets)  # as stored features are
        assert Training.of(train, real).ratio(fake) == pytest.approx(float(nearest / typical), rel=1e-6, abs=1e-6)
