"""Kernel distance: unbiased MMD² with the kernel (x·y/d + 1)³, mean over random subsets (Bińkowski et al. 2018)."""

import numpy as np
import torch

from rae_bench.scoring.metrics.pairs import Float64
from rae_bench.scoring.metrics.reference import Features, Reference
from rae_bench.scoring.specs import MetricSettings

BLOCK = 250


@np.errstate(over="ignore", invalid="ignore")
def kernel_distance(real: Reference, fake: Features, settings: MetricSettings) -> dict[str, float]:
    """`kernel_distance` and `kernel_distance_subset_sd`, the SD over subsets (not a standard error). May be negative.

    By torch-fidelity; where subsets overlap, as it would but for float64's rounding, in half to a third of the time.
    """
    features = real.raw
    if settings.has_overlapping_subsets(len(features), len(fake)):
        values = subset_distances(features, fake, settings)
        return {"kernel_distance": float(values.mean()), "kernel_distance_subset_sd": float(values.std())}
    from torch_fidelity.metric_kid import kid_features_to_metric  # brings torchvision and the compiler along

    result = kid_features_to_metric(
        *(torch.from_numpy(np.ascontiguousarray(part, dtype=np.float64)) for part in (fake, features)),
        kid_subsets=settings.kernel_subsets,
        kid_subset_size=settings.kernel_subset_size,
        rng_seed=settings.seed,
        verbose=False,
    )
    return {
        "kernel_distance": float(result["kernel_inception_distance_mean"]),
        "kernel_distance_subset_sd": float(result["kernel_inception_distance_std"]),
    }


def subset_distances(real: Features, fake: Features, settings: MetricSettings) -> Float64:
    """MMD² of the subsets that torch-fidelity draws (kernel_subsets,), each kernel value computed once for all.

    A subset's sum of the kernel K is sᵀ K t, where s and t say which images it holds.
    """
    subsets, size = settings.kernel_subsets, settings.kernel_subset_size
    rng = np.random.RandomState(settings.seed)  # its generator and its order of drawing
    of_fake, of_real = np.zeros((subsets, len(fake))), np.zeros((subsets, len(real)))
    for subset in range(subsets):
        of_fake[subset, rng.choice(len(fake), size, replace=False)] = 1
        of_real[subset, rng.choice(len(real), size, replace=False)] = 1
    own = _sums(fake, of_fake, fake, of_fake) - of_fake @ _diagonal(fake)
    own += _sums(real, of_real, real, of_real) - of_real @ _diagonal(real)
    return own / (size * (size - 1)) - 2 * _sums(real, of_real, fake, of_fake) / size**2


def _sums(one: Features, of_one: Float64, two: Features, of_two: Float64) -> Float64:
    """The kernel summed over the pairs of each subset (S,); `of_one` (S, n) and `of_two` (S, m) are 1 or 0."""
    exact, total = two.astype(np.float64), np.zeros(len(of_one))
    for start in range(0, len(one), BLOCK):
        rows = slice(start, start + BLOCK)
        base = one[rows].astype(np.float64) @ exact.T
        base /= exact.shape[1]
        base += 1
        total += ((of_one[:, rows] @ (base * base * base)) * of_two).sum(axis=1)
    return total


def _diagonal(features: Features) -> Float64:
    """The kernel of each image with itself, (n,)."""
    diagonal: Float64 = ((features.astype(np.float64) ** 2).mean(axis=1) + 1) ** 3
    return diagonal
