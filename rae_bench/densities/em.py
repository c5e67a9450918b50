"""EM for many full covariances in torch: scikit-learn's algorithm and its result up to rounding, in less time.

    E:  log p(z_i) = logsumexp_k l_ik,  r_ik = exp(l_ik − log p(z_i)),
        l_ik = log weight_k + log det U_k − ½ (‖(z_i − mean_k)ᵀ U_k‖² + d log 2π),  U_k U_kᵀ = covariance_k⁻¹
    M:  n_k = Σ_i r_ik,  mean_k = Σ_i r_ik z_i / n_k,  covariance_k = Σ_i r_ik (z_i − mean_k)(z_i − mean_k)ᵀ / n_k + ε I

Both cost 2 n K d² operations an iteration, so with K d² in the millions nothing else matters. Where the time goes:

- E: U_k is upper triangular: a strip of its columns needs but as many coordinates of z as it reaches down. Strips of
  STRIP columns leave out nearly half of the product. Blocks of codes times the strips of several components are one
  product each, whose result is squared and summed while it is in the cache.
- M: in many dimensions few r_ik are not tiny. A covariance is summed over the codes that matter to it, and of those
  left out (`_least_share`) all together change no element by more than a rounding error of ε. Weights and means are
  summed over all.

To leave out exact zeros alone would leave out nothing: of 50,000 planted codes in 128 dimensions each matters to one of
200 components, but one r_ik in 5,000 underflows. E leaves out no component of a code: one that has lost its codes lives
on the tiny r_ik.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rae_bench.densities.codes import Float64
from rae_bench.densities.errors import DensityError

BLOCK = 1024
"""Codes in one product of E."""
AT_ONCE = 16
"""Components in one product of E."""
STRIP = 16
"""Columns of U_k in one product of E."""
ROWS = 4096
"""Codes in one product of M."""
ROUNDING = torch.finfo(torch.float64).eps


@dataclass(frozen=True)
class Components:
    """`weights` (K,), `means` (K, d), lower Cholesky `factors` (K, d, d) of covariances; float64, on one device."""

    weights: Tensor
    means: Tensor
    factors: Tensor


@dataclass(frozen=True)
class Fit:
    """A run of EM: what it ended with, the mean log density before the last M, in nats, and whether it converged."""

    components: Components
    log_density: float
    n_iter: int
    converged: bool


def fit(
    points: Float64,
    n_components: int,
    *,
    n_init: int,
    max_iter: int,
    tolerance: float,
    reg_covar: float,
    seed: int,
    device: str = "cpu",
) -> Fit:
    """EM on points (n, d) from scikit-learn's k-means, as its GaussianMixture with `random_state` `seed` does it.

    It ends when an iteration changes the mean log density by less than `tolerance`, in nats; the best of `n_init` runs
    is kept.

    Raises:
        DensityError: a covariance that is not positive definite.
    """
    from sklearn.cluster import KMeans

    random = np.random.RandomState(seed)  # scikit-learn's own, whose k-means do not take a Generator
    on_device = torch.from_numpy(np.ascontiguousarray(points)).to(device)
    best: Fit | None = None
    for _ in range(n_init):
        labels = KMeans(n_components, n_init=1, random_state=random).fit(points).labels_
        run = iterate(on_device, start(on_device, labels, n_components, reg_covar), max_iter, tolerance, reg_covar)
        if best is None or run.log_density > best.log_density:
            best = run
    assert best is not None
    return best


def start(points: Tensor, labels: npt.NDArray[np.integer], n_components: int, reg_covar: float) -> Components:
    """Components of which each has the points (n, d) of one of `labels` (n,)."""
    mine = torch.from_numpy(labels.astype(np.int64)).to(points.device)
    each = torch.arange(n_components, device=points.device)
    return maximise(points, (mine[:, None] == each).to(points.dtype), reg_covar)


def iterate(points: Tensor, components: Components, max_iter: int, tolerance: float, reg_covar: float) -> Fit:
    """At most `max_iter` of E and M, from `components`."""
    before, converged, n_iter = -math.inf, False, 0
    while n_iter < max_iter and not converged:
        log_density, responsibilities = expect(points, components)
        components = maximise(points, responsibilities, reg_covar)
        now = float(log_density.mean())
        converged = abs(now - before) < tolerance
        before, n_iter = now, n_iter + 1
    return Fit(components, before, n_iter, converged)


def expect(points: Tensor, components: Components) -> tuple[Tensor, Tensor]:
    """Log density of each of points (n, d), (n,), in nats, and the responsibility of each component for it, (n, K)."""
    k, d = components.means.shape
    identity = torch.eye(d, dtype=points.dtype, device=points.device)
    roots = torch.linalg.solve_triangular(components.factors, identity, upper=False).mT  # U_k
    offsets = (components.means[:, None] @ roots)[:, 0]
    strips = [(at, min(at + STRIP, d)) for at in range(0, d, STRIP)]
    # of each strip, the rows that are not zero, and next to each other the columns of all components
    sides = [roots[:, :end, at:end].permute(1, 0, 2).reshape(end, -1) for at, end in strips]
    shifts = [offsets[:, at:end].reshape(-1) for at, end in strips]
    log_det = roots.diagonal(dim1=1, dim2=2).log().sum(dim=1)
    constant = components.weights.log() + log_det - 0.5 * d * math.log(2 * math.pi)
    logs = torch.empty(len(points), k, dtype=points.dtype, device=points.device)
    log_density = torch.empty_like(logs[:, 0])
    for first in range(0, len(points), BLOCK):
        block, found = points[first : first + BLOCK], logs[first : first + BLOCK]
        for some in range(0, k, AT_ONCE):
            squares = found[:, some : some + AT_ONCE].zero_()
            for (at, end), side, shift in zip(strips, sides, shifts, strict=True):
                columns = slice(some * (end - at), (some + AT_ONCE) * (end - at))
                scaled = torch.addmm(shift[columns], block[:, :end], side[:, columns], beta=-1)
                squares += scaled.square_().view(len(block), -1, end - at).sum(dim=2)
        found.mul_(-0.5).add_(constant)
        log_density[first : first + BLOCK] = found.logsumexp(dim=1)
        found.sub_(log_density[first : first + BLOCK, None]).exp_()
    return log_density, logs


def maximise(points: Tensor, responsibilities: Tensor, reg_covar: float) -> Components:
    """The components of points (n, d) with responsibilities (n, K).

    Raises:
        DensityError: a covariance that is not positive definite.
    """
    shares = responsibilities.T.contiguous()
    counts = shares.sum(dim=1) + 10 * ROUNDING  # scikit-learn's: a component may have lost all its points
    means = shares @ points / counts[:, None]
    least = _least_share(points, reg_covar) * counts
    covariances = points.new_zeros(len(means), points.shape[1], points.shape[1])
    for k, share in enumerate(shares):
        matter = torch.nonzero(share > least[k])[:, 0]
        for first in range(0, len(matter), ROWS):
            rows = matter[first : first + ROWS]
            apart = (points[rows] - means[k]).mul_(share[rows, None].sqrt())
            covariances[k].addmm_(apart.T, apart)
    covariances /= counts[:, None, None]
    covariances.diagonal(dim1=1, dim2=2).add_(reg_covar)
    factors, failed = torch.linalg.cholesky_ex(covariances)
    if failed.any():
        k = int(torch.nonzero(failed)[0])
        raise DensityError(
            f"the covariance of component {k}, of {float(counts[k]):.3g} codes, is not positive definite;"
            f" raise reg_covar, {reg_covar:g}, or fit fewer components"
        )
    return Components(counts / counts.sum(), means, factors)


def _least_share(points: Tensor, reg_covar: float) -> float:
    """Of n_k, the share below which a point is left out of a covariance.

    n of them, each at most the points' diameter from the mean, change an element by less than ROUNDING · reg_covar,
    the smallest eigenvalue there is.
    """
    n, radius = len(points), float(torch.linalg.vector_norm(points, dim=1).max())
    return ROUNDING * reg_covar / (n * max(2 * radius, 1.0) ** 2)
