"""The settings of densities: what `fit` reads."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

from pydantic import Field, PositiveFloat

from rae_bench.base.own import OwnCode
from rae_bench.base.plain import ConfigError
from rae_bench.base.specs import ByKind, Compute, Count, CountOrZero, PositiveFloats
from rae_bench.models.specs import Optimisation
from rae_bench.models.terms.specs import Bernoulli, LearntPrior, Objective, Quantised, WeightL2

FIT_VERSION = 3

CodeKind = Literal["mean", "sample"]
"""The codes that a density is fitted to and judged on: posterior means, or a seeded draw from each image's posterior.

For a deterministic encoder both are the same.
"""


Need = Literal["a posterior", "a learnt prior", "a codebook"]
"""What some models have and others have not."""

ITERATIONS, MOST_ITERATIONS = 30, 500
"""Iterations of EM that are counted (in the study `smoke` a fit took 20, 24, 34, 35), and that time is asked for."""


@dataclass(frozen=True)
class Work:
    """What a fit takes: double-precision operations, bytes held beside the codes, bytes on disk.

    `slack`: by how much longer it may take than counted.
    """

    operations: float
    held: float = 0.0
    disk: float = 0.0
    slack: float = 1.0


@dataclass(frozen=True)
class DensitySpec(ABC):
    """What every density says of itself, to those who do not load its code."""

    kind: str
    codes: CodeKind

    is_network: ClassVar[bool] = False
    """Whether a neural network is trained: then its fit takes turns, resumes and learns as training does."""
    has_formula: ClassVar[bool] = True
    """Whether its log density is a formula: cheap enough for an importance-sampled likelihood's many codes."""
    reconstructs: ClassVar[bool] = False
    """Whether it has a reconstruction of codes, which a row can decode (`through`); a study need not list it then."""
    needs: ClassVar[frozenset[Need]] = frozenset()
    """What it is made of beside codes: no density for a model that has none of it."""
    modules: ClassVar[tuple[str, ...]] = ("rae_bench.densities.catalogue",)
    """What its fit imports, beside what all training does."""
    is_whitened: ClassVar[bool] = True
    """Whether it needs the codes' covariance: then more codes than they have dimensions."""

    @property
    def is_random(self) -> bool:
        """Whether two fits differ: by their starts, their batches, or the draws from posteriors they are made of."""
        return True

    @property
    def least(self) -> tuple[int, str]:
        """How many training codes it needs whatever their dimension, and what for."""
        return 1, "one"

    def least_codes(self, latent_dim: int) -> tuple[int, str]:
        """How many training codes it needs, and what for."""
        return max(self.least, (latent_dim + 1, "latent_dim + 1")) if self.is_whitened else self.least

    def work(self, n: int, validated: int, dim: int) -> Work:  # noqa: ARG002  that of one Gaussian, whatever validates
        """The work of a fit to n training codes of `dim` dimensions, judged on `validated` others."""
        return Work(4 * n * dim**2, disk=8 * dim**2)


@dataclass(frozen=True)
class NetworkSpec(DensitySpec):
    """What every density that is a neural network says: `depth` hidden layers of `width` units, and its training."""

    width: Count
    depth: Count
    optimisation: Optimisation

    is_network: ClassVar[bool] = True
    has_formula: ClassVar[bool] = False

    @property
    def least(self) -> tuple[int, str]:
        """It needs one batch."""
        return self.optimisation.batch_size, "optimisation.batch_size"

    @abstractmethod
    def parameters(self, dim: int) -> float:
        """How many parameters its network has, about, for codes of `dim` dimensions."""


class ClosedForm(DensitySpec):
    """What every density says whose fit is a formula of its codes."""

    @property
    def is_random(self) -> bool:
        """Whether it is fitted to draws from posteriors: nothing else of it is left to chance."""
        return self.codes == "sample"


@dataclass(frozen=True)
class StandardNormal(ClosedForm):
    """N(0, I), fitted to nothing."""

    kind: Literal["standard_normal"]

    is_whitened: ClassVar[bool] = False

    @property
    def is_random(self) -> bool:
        """Whether two fits differ: they never do."""
        return False


@dataclass(frozen=True)
class SingleGaussian(ClosedForm):
    """One Gaussian with the codes' mean and covariance, or its diagonal only."""

    kind: Literal["gaussian"]
    covariance: Literal["full", "diagonal"]


LEAST_PER_COMPONENT = 10
"""Codes per component below which a mixture is refused.

Below latent_dim + 1 codes per component `reg_covar` alone holds a covariance up. The mixture then overfits, which is
a result to be shown by its held-out likelihood: the official analysis goes to 200 components. Below ten, k-means
leaves components with a code or two, and what is fitted is no longer a mixture of Gaussians.
"""


@dataclass(frozen=True)
class FittedByStarts(DensitySpec):
    """What every mixture says that is fitted in iterations from k-means."""

    n_init: Count
    max_iter: Count
    tolerance: PositiveFloat
    reg_covar: PositiveFloat

    modules: ClassVar[tuple[str, ...]] = ("rae_bench.densities.catalogue", "sklearn.mixture")

    def work_of(self, fitted: int, largest: int, n: int, dim: int) -> Work:
        """The work of fits with `fitted` components in all, at most `largest` of them at a time.

        A product of codes and of outer products for each component, in each iteration. Measured: 100 components of
        3,000 codes in 16 dimensions, 0.7 s, by a Dirichlet process 3.1 s, in 8 dimensions 5.8 s.
        """
        return Work(
            operations=ITERATIONS * self.n_init * n * fitted * 4 * dim**2,
            held=8 * 4 * n * largest + 8 * 6 * largest * dim**2,
            disk=8 * largest * (dim**2 + dim + 1),
            slack=MOST_ITERATIONS / ITERATIONS,
        )


@dataclass(frozen=True)
class MixtureSpec(FittedByStarts):
    """What both mixtures of a stated number of components say."""

    n_components: Count

    @property
    def least(self) -> tuple[int, str]:
        """See `LEAST_PER_COMPONENT`."""
        return LEAST_PER_COMPONENT * self.n_components, f"n_components x {LEAST_PER_COMPONENT}"

    def work(self, n: int, validated: int, dim: int) -> Work:  # noqa: ARG002
        """The work of its one fit."""
        return self.work_of(self.n_components, self.n_components, n, dim)


@dataclass(frozen=True)
class GaussianMixture(MixtureSpec):
    """Mixture of `n_components` full-covariance Gaussians by EM on whitened codes (scikit-learn)."""

    kind: Literal["mixture"]


@dataclass(frozen=True)
class SelectedMixture(FittedByStarts):
    """`GaussianMixture` with as many components as validation codes like best, among the numbers in `grid`."""

    kind: Literal["selected_mixture"]
    grid: Annotated[tuple[Count, ...], Field(min_length=2)]

    def __post_init__(self) -> None:
        if list(self.grid) != sorted(set(self.grid)):
            raise ConfigError(f"grid: {list(self.grid)} must rise")

    @property
    def candidates(self) -> list[GaussianMixture]:
        """The mixtures it is selected from, in the order of `grid`."""
        shared = {name: getattr(self, name) for name in ("codes", "n_init", "max_iter", "tolerance", "reg_covar")}
        return [GaussianMixture(kind="mixture", n_components=n_components, **shared) for n_components in self.grid]

    @property
    def least(self) -> tuple[int, str]:
        """See `LEAST_PER_COMPONENT`: none of the grid is left out."""
        return LEAST_PER_COMPONENT * self.grid[-1], f"the largest of grid x {LEAST_PER_COMPONENT}"

    def work(self, n: int, validated: int, dim: int) -> Work:
        """The work of all fits in the grid, and of validation codes under each."""
        fits = self.work_of(sum(self.grid), self.grid[-1], n, dim)
        return replace(fits, operations=fits.operations + 4.0 * validated * sum(self.grid) * dim**2)


@dataclass(frozen=True)
class DirichletMixture(MixtureSpec):
    """Mixture of at most `n_components` Gaussians by variational inference under a Dirichlet process (scikit-learn).

    `concentration` is the process's (small: few components carry weight), `mean_precision` that of the prior on
    means, around the codes' mean. The Wishart prior has as many degrees of freedom as codes have dimensions, its
    mean the codes' own precision.
    """

    kind: Literal["dirichlet_mixture"]
    concentration: PositiveFloat
    mean_precision: PositiveFloat


@dataclass(frozen=True)
class KernelDensity(ClosedForm):
    """A Gaussian of SD h at every training code, whitened; h is the one of `bandwidths` validation codes like best."""

    kind: Literal["kernel_density"]
    bandwidths: PositiveFloats

    def __post_init__(self) -> None:
        if list(self.bandwidths) != sorted(set(self.bandwidths)):
            raise ConfigError(f"bandwidths: {list(self.bandwidths)} must rise")

    def work(self, n: int, validated: int, dim: int) -> Work:
        """Every validation code against every training code, once a bandwidth."""
        operations = 4.0 * (n + validated) * n * dim + 4 * n * validated * len(self.bandwidths) * dim
        return Work(operations, held=8 * 3 * 256 * n, disk=8 * n * dim)


@dataclass(frozen=True)
class AllImages:
    """Every training image."""

    kind: Literal["all"]


@dataclass(frozen=True)
class ImageSubset:
    """`n_components` training images, drawn without replacement."""

    kind: Literal["subset"]
    n_components: Count


@dataclass(frozen=True)
class AggregatePosterior(DensitySpec):
    """The equal mixture of the posteriors of training images: only for models with a posterior."""

    kind: Literal["aggregate_posterior"]
    components: Annotated[AllImages | ImageSubset, ByKind]

    needs: ClassVar[frozenset[Need]] = frozenset({"a posterior"})
    is_whitened: ClassVar[bool] = False

    @property
    def is_random(self) -> bool:
        """Whether its images are drawn; of all images it is a formula."""
        return isinstance(self.components, ImageSubset)

    @property
    def least(self) -> tuple[int, str]:
        """One image a component."""
        if isinstance(self.components, ImageSubset):
            return self.components.n_components, "components.n_components"
        return super().least

    def work(self, n: int, validated: int, dim: int) -> Work:
        """Every code against every component."""
        return Work(4.0 * (n + validated) * n * dim, disk=16 * n * dim)


@dataclass(frozen=True)
class LearntPriorDensity(DensitySpec):
    """The prior that a model learnt with its KL term, as it stands after training: fitted to nothing."""

    kind: Literal["learnt_prior"]

    needs: ClassVar[frozenset[Need]] = frozenset({"a posterior", "a learnt prior"})
    is_whitened: ClassVar[bool] = False

    @property
    def is_random(self) -> bool:
        """Whether two fits differ: they never do."""
        return False

    def work(self, n: int, validated: int, dim: int) -> Work:
        """Every code against every component, counted as if there were one for each training code."""
        return Work(4.0 * (n + validated) * n * dim, disk=16 * n * dim)


class CountedIndices(ClosedForm):
    """What both densities say that are counted from the entries of quantised codes."""

    needs: ClassVar[frozenset[Need]] = frozenset({"a codebook"})
    is_whitened: ClassVar[bool] = False

    @property
    def is_random(self) -> bool:
        """Whether two fits differ: quantised codes are points, and leave nothing to draw."""
        return False


@dataclass(frozen=True)
class UniformIndices(CountedIndices):
    """Every entry of a codebook as likely as any other at every position: what a VQ-VAE is trained under."""

    kind: Literal["uniform_indices"]


@dataclass(frozen=True)
class CategoricalIndices(CountedIndices):
    """The frequencies of a codebook's entries at each position of a code, the positions independent of each other.

    `pseudo_count` is added to the count of each entry at each position: none is impossible.
    """

    kind: Literal["categorical_indices"]
    pseudo_count: PositiveFloat


@dataclass(frozen=True)
class AutoregressiveIndices(NetworkSpec):
    """A masked ReLU network that gives, of the entries at earlier positions, the probabilities of those at the next.

    Its layers need as many units as a code has earlier positions: each unit sees the entries before one of them.
    """

    kind: Literal["autoregressive_indices"]

    needs: ClassVar[frozenset[Need]] = frozenset({"a codebook"})
    modules: ClassVar[tuple[str, ...]] = ("rae_bench.densities.autoregressive", "zuko")
    is_whitened: ClassVar[bool] = False

    def misfit(self, positions: int) -> str:
        """Why it is no density of codes of so many entries; empty if it is one."""
        if positions < 2:
            return "codes of one entry have no earlier one to depend on; take 'categorical_indices'"
        if self.width < positions - 1:
            return f"width: {self.width} must be at least {positions - 1}, the earlier entries of a code"
        return ""

    def parameters(self, dim: int) -> float:
        """The network's, with 64 entries of a codebook for each dimension of a code, into it and out of it."""
        return (self.depth - 1) * self.width**2 + 2 * 64 * dim * self.width


@dataclass(frozen=True)
class SplineFlow(NetworkSpec):
    """Neural spline flow on whitened codes: `transforms` layers of splines, `bins` bins on [-5, 5], identity beyond.

    Each layer's splines come from a masked ReLU network, `depth` hidden layers of `width` units.
    """

    kind: Literal["flow"]
    layers: Literal["autoregressive", "coupling"]
    transforms: Count
    bins: Count

    has_formula: ClassVar[bool] = True
    modules: ClassVar[tuple[str, ...]] = ("rae_bench.densities.flow", "zuko")

    def parameters(self, dim: int) -> float:
        """The networks' parameters, and those of the layers that give the splines' knots."""
        return self.transforms * (self.depth * self.width**2 + 40 * dim * self.width)


@dataclass(frozen=True)
class FlowMatching(NetworkSpec):
    """A velocity field on whitened codes, learnt by flow matching along straight paths.

    The field is a SiLU network of `depth` hidden layers of `width` units that sees the code, the time t in [0, 1] and
    cos πkt for k up to `frequencies`. `steps` equal Runge-Kutta steps of fourth order solve the equation, for samples
    and for likelihoods alike.
    """

    kind: Literal["flow_matching"]
    frequencies: CountOrZero
    steps: Count

    modules: ClassVar[tuple[str, ...]] = ("rae_bench.densities.flow_matching",)

    def parameters(self, dim: int) -> float:
        """About the parameters of the velocity field, counted twice for room."""
        return 2 * (self.depth * self.width**2 + 4 * dim * self.width)


class SecondVAE(NetworkSpec):
    """What both VAEs on codes say."""

    is_whitened: ClassVar[bool] = False

    def parameters(self, dim: int) -> float:
        """Encoder and decoder."""
        return 2 * (self.depth - 1) * self.width**2 + 5 * dim * self.width


@dataclass(frozen=True)
class SecondStage(SecondVAE):
    """A second VAE on standardised codes (Dai and Wipf 2019), in the simplified form of the official RAE code."""

    kind: Literal["second_stage"]
    objective: Objective

    reconstructs: ClassVar[bool] = True
    modules: ClassVar[tuple[str, ...]] = ("rae_bench.densities.second_stage",)

    def __post_init__(self) -> None:
        if isinstance(self.objective.reconstruction, Bernoulli):
            raise ConfigError("objective.reconstruction: 'bernoulli' is of images in [0, 1]; codes are any numbers")
        if isinstance(self.objective.posterior, Quantised):
            raise ConfigError("objective.posterior: 'quantised' is of the codes of images, not of codes of codes")
        if isinstance(self.objective.latent, LearntPrior):
            raise ConfigError(
                f"objective.latent: {self.objective.latent.kind!r} learns a prior; a second stage has N(0, I)"
            )
        if isinstance(self.objective.regulariser, WeightL2) and self.objective.regulariser.scope == "convolutions":
            raise ConfigError(
                "objective.regulariser.scope: 'convolutions', of which a second stage has none; write all"
            )


@dataclass(frozen=True)
class DaiWipfSecondStage(SecondVAE):
    """A second VAE on standardised codes in the form of Dai and Wipf's own code: learnt decoder SD, KL weight 1.

    Encoder and decoder have `depth` hidden ReLU layers of `width` units, and their input beside the last. Whether
    samples get the decoder's noise is `decoder_noise`.
    """

    kind: Literal["second_stage_dai_wipf"]
    decoder_noise: bool

    modules: ClassVar[tuple[str, ...]] = ("rae_bench.densities.dai_wipf",)


@dataclass(frozen=True)
class OwnDensity(DensitySpec):
    """A density of a user's own: what `rae_bench.base.contracts.Density` says it is."""

    kind: Literal["own"]
    code: OwnCode

    has_formula: ClassVar[bool] = False
    modules: ClassVar[tuple[str, ...]] = ("rae_bench.densities.own",)
    is_whitened: ClassVar[bool] = False

    def work(self, n: int, validated: int, dim: int) -> Work:
        """The work of a mixture of a hundred Gaussians, which stands in for what nobody can count."""
        return Work(100.0 * MOST_ITERATIONS * 2 * n * dim**2 + 4.0 * validated * dim, held=800 * n, disk=8 * n * dim)


Density = Annotated[
    StandardNormal
    | SingleGaussian
    | GaussianMixture
    | SelectedMixture
    | DirichletMixture
    | KernelDensity
    | AggregatePosterior
    | LearntPriorDensity
    | UniformIndices
    | CategoricalIndices
    | AutoregressiveIndices
    | SplineFlow
    | FlowMatching
    | SecondStage
    | DaiWipfSecondStage
    | OwnDensity,
    ByKind,
]


@dataclass(frozen=True)
class FitSpec:
    """Exactly what `fit` reads, beside codes and seed: a fit for each of `fit_seeds`.

    The last `leave_out_last` training codes are not fitted to.
    """

    version: int
    density: Density
    fit_seeds: tuple[int, ...]
    leave_out_last: CountOrZero
    compute: Compute
