"""EM of full covariances, `rae_bench.densities.em` against scikit-learn's: time of an iteration, of a whole fit.

50,000 codes in 128 dimensions, 200 components, planted apart or overlapping: both sides carry on from the same start,
turn by turn, and every code's log density is compared after as many iterations. Then whole fits, k-means included, of
the sizes where scikit-learn is fast enough. float64, all cores unless RAE_BENCH_THREADS says otherwise, pages kept as
every stage keeps them.
"""

import os
import time
import warnings
from collections.abc import Callable
from statistics import median

from rae_bench import process, specs

threads = int(os.environ.get("RAE_BENCH_THREADS", str(os.cpu_count())))
process.configure(specs.Compute("cpu", threads, tf32=False, precision="float32"))

import numpy as np  # noqa: E402  threads come first
import numpy.typing as npt  # noqa: E402
import records  # noqa: E402
import torch  # noqa: E402
from sklearn.cluster import KMeans  # noqa: E402
from sklearn.exceptions import ConvergenceWarning  # noqa: E402
from sklearn.mixture import GaussianMixture  # noqa: E402

from rae_bench.densities import em  # noqa: E402

N, K, D = 50_000, 200, 128
REG_COVAR = 1e-6
APART = {"components apart": 1.0, "components overlapping": 0.3}
"""SDs of the planted centres in each dimension; those of the codes around them are 1."""
ITERATIONS = 3
SMALL = ((4000, 16, 10), (4000, 16, 100), (10_000, 64, 50))
FITS = 5

Codes = npt.NDArray[np.float64]


def planted(n: int, d: int, k: int, apart: float) -> Codes:
    """Codes (n, d) of a planted mixture."""
    rng = np.random.default_rng(0)
    return apart * rng.standard_normal((k, d))[rng.integers(k, size=n)] + rng.standard_normal((n, d))


def timed(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


class Theirs:
    """scikit-learn's mixture, and the two halves of its loop."""

    def __init__(self, codes: Codes, labels: npt.NDArray[np.int32], k: int) -> None:
        self.codes, self.mixture = codes, GaussianMixture(k, reg_covar=REG_COVAR)
        self.mixture._initialize(codes, (labels[:, None] == np.arange(k)).astype(float))

    def expect(self) -> None:
        """E."""
        self.log_responsibilities = self.mixture._e_step(self.codes)[1]

    def maximise(self) -> None:
        """M."""
        self.mixture._m_step(self.codes, self.log_responsibilities)

    def log_density(self) -> Codes:
        """Of each code, (n,), in nats."""
        return self.mixture.score_samples(self.codes)


class Ours:
    """The same of `em`."""

    def __init__(self, codes: Codes, labels: npt.NDArray[np.int32], k: int) -> None:
        self.codes = torch.from_numpy(codes)
        self.components = em.start(self.codes, labels, k, REG_COVAR)

    def expect(self) -> None:
        """E."""
        self.responsibilities = em.expect(self.codes, self.components)[1]

    def maximise(self) -> None:
        """M."""
        self.components = em.maximise(self.codes, self.responsibilities, REG_COVAR)

    def log_density(self) -> Codes:
        """Of each code, (n,), in nats."""
        return em.expect(self.codes, self.components)[0].numpy()


def iterations(codes: Codes, k: int) -> tuple[dict[str, list[float]], float, float]:
    """Median seconds of E and of M by side, seconds of the k-means start, largest difference of a log density."""
    began = time.perf_counter()
    labels = KMeans(k, n_init=1, random_state=0).fit(codes).labels_
    start = time.perf_counter() - began
    sides = {"ours": Ours(codes, labels, k), "scikit-learn": Theirs(codes, labels, k)}
    seconds: dict[str, list[list[float]]] = {name: [[], []] for name in sides}
    for _ in range(ITERATIONS):
        for name, side in sides.items():
            for part, step in zip(seconds[name], (side.expect, side.maximise), strict=True):
                part.append(timed(step))
    difference = np.abs(sides["ours"].log_density() - sides["scikit-learn"].log_density()).max()
    return {name: [median(part) for part in parts] for name, parts in seconds.items()}, start, float(difference)


def fits(n: int, d: int, k: int) -> tuple[float, float, int, float]:
    """Median seconds of a whole fit, ours and scikit-learn's, iterations, largest difference of a log density."""
    codes = planted(n, d, k, apart=1.0 if d > 16 else 1.5)
    settings = {"max_iter": 2000, "n_init": 1, "reg_covar": REG_COVAR}
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(FITS):
        mixture = GaussianMixture(k, tol=1e-3, random_state=0, **settings)
        began = time.perf_counter()
        found = em.fit(codes, k, tolerance=1e-3, seed=0, **settings)
        seconds[0].append(time.perf_counter() - began)
        seconds[1].append(timed(lambda mixture=mixture: mixture.fit(codes)))
    log_density = em.expect(torch.from_numpy(codes), found.components)[0].numpy()
    difference = float(np.abs(log_density - mixture.score_samples(codes)).max())
    return median(seconds[0]), median(seconds[1]), mixture.n_iter_, difference


def main() -> None:
    torch.set_num_threads(threads)
    warnings.simplefilter("error", ConvergenceWarning)
    square = torch.randn(2048, 2048, dtype=torch.float64)
    peak = 2 * 2048**3 / min(timed(lambda: square @ square) for _ in range(5)) / 1e9
    ratios, halves, whole = [], [], []
    step = 2 * N * K * D**2 / 1e9  # GFLOP of E as whole triangles, and of M over all codes
    for name, apart in APART.items():
        found, start, difference = iterations(planted(N, D, K, apart), K)
        ours, other = sum(found["ours"]), sum(found["scikit-learn"])
        what = f"an iteration, {N:,} x {D}, K = {K}, {name}"
        ratios.append(records.Ratio(what, ours, other, "s", other / ours, bar=1.5))
        ratios.append(
            records.Ratio(f"log density of a code, largest difference, {name}", difference, 0.0, "nats", difference,
                          bar=1e-6, at_most=True)
        )  # fmt: skip
        for side, (e, m) in found.items():
            halves.append((name, side, e, step / e, m, step / m, start))
    for n, d, k in SMALL:
        ours, other, count, difference = fits(n, d, k)
        whole.append((f"{n:,} x {d}, K = {k}", count, ours, other, other / ours, f"{difference:.1e}"))
    records.write(
        "mixtures",
        "EM of mixtures with full covariances",
        ratios,
        tables=[
            records.Table(
                f"Seconds of E and of M, and GFLOP/s as if all {step:.0f} GFLOP were done each; ours leaves out some"
                f". A float64 product of 2048 x 2048 reaches {peak:.0f}. k-means: the start of both. {threads} threads",
                ("codes", "side", "E, s", "GFLOP/s", "M, s", "GFLOP/s", "k-means, s"),
                halves,
            ),
            records.Table(
                "Whole fits to convergence, k-means included",
                ("codes", "iterations", "ours, s", "scikit-learn, s", "ratio", "largest difference, nats"),
                whole,
            ),
        ],
        packages=("torch", "scikit-learn", "numpy"),
    )


if __name__ == "__main__":
    main()
