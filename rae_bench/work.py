"""Pieces of work that a study's jobs are made of, as data: what a forecast counts, and a calibration times.

What goes through PyTorch is counted where it runs (`counting`). Of what NumPy and scikit-learn do, `host_flops` gives
the leading terms: products of matrices at two FLOPs a multiply-add, factorisations by Golub and Van Loan (2013,
sections 8.3 and 8.6): symmetric eigenvalues 4/3 d³, with vectors 9 d³; singular values of a x b, a >= b, 4ab² - 4/3 b³;
eigenvalues of any matrix 10 d³. Not counted: elementwise work, sorting, k-means but for one pass a start, SSIM.
"""

from dataclasses import dataclass, replace
from typing import Literal, assert_never

from rae_bench import specs
from rae_bench.config import least_codes
from rae_bench.metrics.frechet import infinity_counts
from rae_bench.metrics.prd import STARTS

MetricName = Literal[
    "frechet", "fid", "half_samples", "infinity", "kernel", "pairs", "prd", "nearest", "reference", "moments"
]
EM_AT_ONCE = 4
"""Iterations of EM in one piece of work."""


@dataclass(frozen=True)
class Pass:
    """A batch through an autoencoder: an update (loss and gradients), a loss, codes of images, or images of codes."""

    what: Literal["update", "loss", "encode", "decode"]
    network: specs.Network
    objective: specs.Objective
    batch: int
    precision: specs.Precision


@dataclass(frozen=True)
class Reading:
    """A batch of images through a frozen network."""

    extractor: specs.Extractor | Literal["face_classifier"]
    channels: int
    size: int
    batch: int


@dataclass(frozen=True)
class Density:
    """A density of codes in d dimensions, fitted to `points` codes: its fit, or `codes` samples or log densities.

    Of a network the fit is an epoch, `codes` validation codes judged after it; of a mixture, its start: two iterations.
    """

    what: Literal["fit", "draw", "judge"]
    density: specs.Density
    d: int
    points: int
    codes: int


@dataclass(frozen=True)
class Iterations:
    """EM_AT_ONCE iterations of a mixture's fit to `points` codes in d dimensions."""

    kind: Literal["mixture", "dirichlet_mixture"]
    n_components: int
    d: int
    points: int


@dataclass(frozen=True)
class Metric:
    """A metric of m features of d dimensions against n; or a reference of n, with neighbours (or its moments only)."""

    what: MetricName
    n: int
    m: int
    d: int
    settings: specs.MetricSettings


@dataclass(frozen=True)
class Pca:
    """PCA of n images of `pixels` values by the randomised method, and its error on m."""

    n: int
    m: int
    pixels: int
    components: int


@dataclass(frozen=True)
class Images:
    """N images drawn by the program of faces, or compared by SSIM."""

    what: Literal["render", "ssim"]
    n: int
    channels: int
    size: int


@dataclass(frozen=True)
class Start:
    """A process started and its modules imported."""

    modules: tuple[str, ...]


Work = Pass | Reading | Density | Iterations | Metric | Pca | Images | Start


def host_flops(work: Work) -> float:
    """Leading terms of what `work` does outside PyTorch."""
    match work:
        case Density():
            return _density_flops(work)
        case Iterations(n_components=k, d=d, points=n):
            return (2 * EM_AT_ONCE + 1) * 2 * n * k * d**2  # a last expectation after the last maximisation
        case Metric():
            return _metric_flops(work)
        case Pca(n=n, m=m, pixels=pixels, components=components):
            return (2 * 7 + 2) * 2 * n * pixels * (components + 10) + 4 * m * pixels * components
        case Pass() | Reading() | Images() | Start():
            return 0.0
        case _:
            assert_never(work)


def _density_flops(work: Density) -> float:
    d, n, m = work.d, work.points, work.codes
    fitted, moved = 2.0 * n * d**2, 2.0 * m * d**2  # a covariance; m codes whitened or coloured
    match work.density:
        case specs.StandardNormal():
            return {"fit": 0.0, "draw": moved, "judge": moved}[work.what]
        case specs.SingleGaussian():
            return {"fit": fitted, "draw": moved, "judge": moved}[work.what]
        case specs.GaussianMixture(n_components=k) | specs.DirichletMixture(n_components=k):
            return {"fit": (2 + 5 * k) * fitted, "draw": 2 * moved, "judge": (1 + k) * moved}[work.what]
        case specs.KernelDensity(bandwidths=bandwidths):
            judged = moved + 4 * m * n * d
            return {"fit": fitted + len(bandwidths) * (fitted + judged), "draw": moved, "judge": judged}[work.what]
        case specs.AggregatePosterior(components=components):
            kept = components.n_components if isinstance(components, specs.ImageSubset) else n
            return {"fit": 0.0, "draw": 0.0, "judge": 4.0 * m * kept * d}[work.what]
        case specs.SplineFlow() | specs.FlowMatching():
            return {"fit": 2 * fitted + moved, "draw": moved, "judge": moved}[work.what]
        case specs.SecondStage() | specs.DaiWipfSecondStage():
            return 0.0
        case _:
            assert_never(work.density)


def _frechet_flops(n: int, m: int, d: int) -> float:
    rank = min(n, d)
    if m >= d and rank == d:
        return 2 * m * d**2 + (4 + 4 / 3) * d**3
    columns = min(m, d)
    small, large = sorted((rank, columns))
    root = 0 if m < d else 2 * m * d**2 + 11 * d**3
    return root + 2 * rank * d * columns + 4 * large * small**2 - 4 / 3 * small**3


def _reference_flops(n: int, d: int) -> float:
    return 2 * n * d**2 + (2 * n * d**2 + 11 * d**3 if n >= d else 0)


def _metric_flops(work: Metric) -> float:
    n, m, d, settings = work.n, work.m, work.d, work.settings
    match work.what:
        case "frechet":
            return _frechet_flops(n, m, d)
        case "fid":  # torch-fidelity's, beside ours
            return _frechet_flops(n, m, d) + 2 * m * d**2 + 12 * d**3
        case "half_samples":
            return settings.half_samples * _frechet_flops(n, m // 2, d)
        case "infinity":
            counts = infinity_counts(min(n, m), d, settings.infinity_sizes)
            if counts is None:
                return 0.0
            each = [
                (min(n, m) // count) * (_reference_flops(count, d) + _frechet_flops(count, count, d))
                for count in counts
            ]
            return float(sum(each))
        case "kernel":
            drawn = 3 * settings.kernel_subsets * settings.kernel_subset_size**2
            return 2 * d * (n * n + m * m + n * m if settings.has_overlapping_subsets(n, m) else drawn)
        case "pairs":
            return 2 * m * m * d + 2 * n * m * d
        case "prd":
            return settings.prd_runs * STARTS * 2 * 2 * min(n, m) * settings.prd_clusters * d
        case "nearest":
            return 2 * n * m * d
        case "reference":
            return _reference_flops(n, d) + 2 * n * n * d
        case "moments":
            return _reference_flops(n, d)
        case _:
            assert_never(work.what)


def reduced(work: Work, share: float) -> Work:
    """`work` with about `share` (0 to 1) of its FLOPs, as far as it can be made smaller; else itself."""
    if share >= 1:
        return work
    match work:
        case Pass(batch=batch) | Reading(batch=batch):
            return replace(work, batch=min(batch, max(int(batch * share), 4)))
        case Density(what="fit"):
            points = min(work.points, max(int(work.points * share), least_codes(work.density, work.d)[0]))
            return replace(work, points=points, codes=max(work.codes * points // work.points, 2))
        case Density(codes=codes):
            return replace(work, codes=min(codes, max(int(codes * share), 16)))
        case Iterations(points=points, n_components=k):
            least = max(specs.LEAST_PER_COMPONENT * k, work.d + 1)
            return replace(work, points=min(points, max(int(points * share), least)))
        case Metric():
            return _reduced_metric(work, share)
        case Pca(n=n):
            return replace(work, n=min(n, max(int(n * share), 4 * work.components)))
        case Images(n=n):
            return replace(work, n=min(n, max(int(n * share), 16)))
        case Start():
            return work
        case _:
            assert_never(work)


def _reduced_metric(work: Metric, share: float) -> Metric:
    """Fewer images of fewer dimensions, in the same proportion: FLOPs go with the cube."""
    settings = work.settings
    least = max(settings.kernel_subset_size, settings.neighbours + 1, settings.coverage_neighbours + 1, 64)
    side = share ** (1 / 3)
    n, m = (min(count, max(int(count * side), least)) for count in (work.n, work.m))
    return replace(work, n=n, m=m, d=min(work.d, max(int(work.d * side), 8)))
