"""The settings of densities: what `fit` reads."""

from dataclasses import dataclass
from typing import Literal

from rae_bench.base.plain import ConfigError
from rae_bench.base.specs import Compute, _positive
from rae_bench.models.specs import Objective, Optimisation

FIT_VERSION = 2

CodeKind = Literal["mean", "sample"]
"""Which codes a density is fitted to and judged on: posterior means, or one seeded draw per image from its posterior.

For a deterministic encoder both are the same.
"""


@dataclass(frozen=True)
class StandardNormal:
    """N(0, I), fitted to nothing."""

    kind: Literal["standard_normal"]
    codes: CodeKind


@dataclass(frozen=True)
class SingleGaussian:
    """One Gaussian with the codes' mean and covariance, or its diagonal only."""

    kind: Literal["gaussian"]
    codes: CodeKind
    covariance: Literal["full", "diagonal"]


LEAST_PER_COMPONENT = 10
"""Codes per component below which a mixture is refused.

Below latent_dim + 1 codes per component `reg_covar` alone holds a covariance up. The mixture then overfits, which is
a result to be shown by its held-out likelihood: the official analysis goes to 200 components. Below ten, k-means
leaves components with a code or two, and what is fitted is no longer a mixture of Gaussians.
"""


@dataclass(frozen=True)
class GaussianMixture:
    """Mixture of `n_components` full-covariance Gaussians by EM on whitened codes (scikit-learn)."""

    kind: Literal["mixture"]
    codes: CodeKind
    n_components: int
    n_init: int
    max_iter: int
    tolerance: float
    reg_covar: float

    def __post_init__(self) -> None:
        _positive(self, "n_components", "n_init", "max_iter", "tolerance", "reg_covar")


@dataclass(frozen=True)
class DirichletMixture:
    """Mixture of at most `n_components` Gaussians by variational inference under a Dirichlet process (scikit-learn).

    `concentration` is the process's (small: few components carry weight), `mean_precision` that of the prior on
    means, around the codes' mean. The Wishart prior has as many degrees of freedom as codes have dimensions, its
    mean the codes' own precision.
    """

    kind: Literal["dirichlet_mixture"]
    codes: CodeKind
    n_components: int
    concentration: float
    mean_precision: float
    n_init: int
    max_iter: int
    tolerance: float
    reg_covar: float

    def __post_init__(self) -> None:
        _positive(self, "n_components", "concentration", "mean_precision")
        _positive(self, "n_init", "max_iter", "tolerance", "reg_covar")


@dataclass(frozen=True)
class KernelDensity:
    """A Gaussian of SD h at every training code, whitened; h is the one of `bandwidths` validation codes like best."""

    kind: Literal["kernel_density"]
    codes: CodeKind
    bandwidths: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.bandwidths or min(self.bandwidths) <= 0:
            raise ConfigError(f"bandwidths: {list(self.bandwidths)} must be positive numbers, at least one")
        if list(self.bandwidths) != sorted(set(self.bandwidths)):
            raise ConfigError(f"bandwidths: {list(self.bandwidths)} must rise")


@dataclass(frozen=True)
class AllImages:
    """Every training image."""

    kind: Literal["all"]


@dataclass(frozen=True)
class ImageSubset:
    """`n_components` training images, drawn without replacement."""

    kind: Literal["subset"]
    n_components: int

    def __post_init__(self) -> None:
        _positive(self, "n_components")


@dataclass(frozen=True)
class AggregatePosterior:
    """The equal mixture of the posteriors of training images: only for models with a posterior."""

    kind: Literal["aggregate_posterior"]
    codes: CodeKind
    components: AllImages | ImageSubset


@dataclass(frozen=True)
class SplineFlow:
    """Neural spline flow on whitened codes: `transforms` layers of splines, `bins` bins on [-5, 5], identity beyond.

    Each layer's splines come from a masked ReLU network, `depth` hidden layers of `width` units.
    """

    kind: Literal["flow"]
    codes: CodeKind
    layers: Literal["autoregressive", "coupling"]
    transforms: int
    bins: int
    width: int
    depth: int
    optimisation: Optimisation

    def __post_init__(self) -> None:
        _positive(self, "transforms", "bins", "width", "depth")


@dataclass(frozen=True)
class FlowMatching:
    """A velocity field on whitened codes, learnt by flow matching along straight paths.

    The field is a SiLU network of `depth` hidden layers of `width` units that sees the code, the time t in [0, 1] and
    cos πkt for k up to `frequencies`. `steps` equal Runge-Kutta steps of fourth order solve the equation, for samples
    and for likelihoods alike.
    """

    kind: Literal["flow_matching"]
    codes: CodeKind
    width: int
    depth: int
    frequencies: int
    steps: int
    optimisation: Optimisation

    def __post_init__(self) -> None:
        _positive(self, "width", "depth", "steps")
        if self.frequencies < 0:
            raise ConfigError(f"frequencies: {self.frequencies} must not be negative")


@dataclass(frozen=True)
class SecondStage:
    """A second VAE on standardised codes (Dai and Wipf 2019), in the simplified form of the official RAE code."""

    kind: Literal["second_stage"]
    codes: CodeKind
    width: int
    depth: int
    objective: Objective
    optimisation: Optimisation

    def __post_init__(self) -> None:
        _positive(self, "width", "depth")


@dataclass(frozen=True)
class DaiWipfSecondStage:
    """A second VAE on standardised codes in the form of Dai and Wipf's own code: learnt decoder SD, KL weight 1.

    Encoder and decoder have `depth` hidden ReLU layers of `width` units, and their input beside the last. Whether
    samples get the decoder's noise is `decoder_noise`.
    """

    kind: Literal["second_stage_dai_wipf"]
    codes: CodeKind
    width: int
    depth: int
    decoder_noise: bool
    optimisation: Optimisation

    def __post_init__(self) -> None:
        _positive(self, "width", "depth")


Density = (
    StandardNormal
    | SingleGaussian
    | GaussianMixture
    | DirichletMixture
    | KernelDensity
    | AggregatePosterior
    | SplineFlow
    | FlowMatching
    | SecondStage
    | DaiWipfSecondStage
)

DIRECT = (
    *(StandardNormal, SingleGaussian, GaussianMixture, DirichletMixture),
    *(KernelDensity, AggregatePosterior, SplineFlow),
)
"""Densities whose log density is a formula: cheap enough for the many codes of an importance-sampled likelihood."""


@dataclass(frozen=True)
class FitSpec:
    """Exactly what `fit` reads, beside codes and seed. The last `leave_out_last` training codes are not fitted to."""

    version: int
    density: Density
    leave_out_last: int
    compute: Compute

    def __post_init__(self) -> None:
        if self.leave_out_last < 0:
            raise ConfigError(f"leave_out_last: {self.leave_out_last} must not be negative")
