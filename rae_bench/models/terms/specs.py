"""The settings of objectives: an encoder's posterior, a reconstruction term, a latent term, a decoder regulariser."""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from pydantic import NonNegativeFloat, PositiveFloat

from rae_bench.base.plain import ADDED, ConfigError
from rae_bench.base.specs import ByKind, Count, CountOrZero, PositiveFloats


@dataclass(frozen=True)
class Deterministic:
    """z = E(x)."""

    kind: Literal["deterministic"]

    has_density: ClassVar[bool] = False


@dataclass(frozen=True)
class Gaussian:
    """z ~ N(mean(x), sigma(x)²) with log sigma = bound · tanh(head): official code, `bound` 5."""

    kind: Literal["gaussian"]
    log_sigma_bound: PositiveFloat

    has_density: ClassVar[bool] = True


@dataclass(frozen=True)
class FixedGaussian:
    """z ~ N(mean(x), sigma²) with a constant sigma (CV-VAE; official code 0.7)."""

    kind: Literal["fixed_gaussian"]
    sigma: PositiveFloat

    has_density: ClassVar[bool] = True


@dataclass(frozen=True)
class NoisyInput:
    """z = E(x + e), e ~ N(0, sd²) clipped to ±bound: a draw; its mean is taken as E(x).

    The official WAE on CelebA, both 0.01: noise in every pass through the full model, none where codes are collected.
    """

    kind: Literal["noisy_input"]
    sd: PositiveFloat
    bound: PositiveFloat

    has_density: ClassVar[bool] = False


Posterior = Annotated[Deterministic | Gaussian | FixedGaussian | NoisyInput, ByKind]
"""Each says whether its log q(z|x) is known (`has_density`)."""


@dataclass(frozen=True)
class SquaredError:
    """½‖x − x̂‖²: a Gaussian of unit variance around x̂, without its constant."""

    kind: Literal["squared_error"]


@dataclass(frozen=True)
class OptimalVariance:
    """−log N(x; x̂, σ² I), σ² the batch's mean squared error, where that is least (σ-VAE, Rybkin et al. 2021).

    `least_sigma` is added to σ: 0 in the authors' text, e⁻⁶ in their code (its soft bound of log σ, written out).
    """

    kind: Literal["optimal_variance"]
    least_sigma: NonNegativeFloat


@dataclass(frozen=True)
class LearntVariance:
    """−log N(x; x̂, σ² I), σ a parameter of the model, log σ at first `initial_log_sigma` (authors' code: 0).

    `least_sigma` as for `OptimalVariance`.
    """

    kind: Literal["learnt_variance"]
    initial_log_sigma: float
    least_sigma: NonNegativeFloat


@dataclass(frozen=True)
class Bernoulli:
    """−Σ x log x̂ + (1 − x) log(1 − x̂), the cross-entropy of pixels in [0, 1] (Kingma and Welling 2014, app. C.1)."""

    kind: Literal["bernoulli"]


@dataclass(frozen=True)
class Laplace:
    """Σ |x − x̂|: a Laplace distribution of unit scale around x̂, without its constant."""

    kind: Literal["laplace"]


Reconstruction = Annotated[SquaredError | OptimalVariance | LearntVariance | Bernoulli | Laplace, ByKind]
SQUARED_ERROR = SquaredError("squared_error")


@dataclass(frozen=True)
class NoLatentTerm:
    """Nothing is asked of the codes."""

    kind: Literal["none"]


@dataclass(frozen=True)
class GaussianKL:
    """KL(q(z|x) ‖ N(0, I))."""

    kind: Literal["kl"]
    weight: PositiveFloat


@dataclass(frozen=True)
class SquaredNorm:
    """½‖z‖²."""

    kind: Literal["squared_norm"]
    weight: PositiveFloat


@dataclass(frozen=True)
class MMD:
    """Unbiased MMD² to N(0, I), inverse multiquadratic kernel summed over `scales`."""

    kind: Literal["mmd"]
    weight: PositiveFloat
    scales: PositiveFloats


Latent = Annotated[NoLatentTerm | GaussianKL | SquaredNorm | MMD, ByKind]


@dataclass(frozen=True)
class NoRegulariser:
    """The decoder is left alone."""

    kind: Literal["none"]


@dataclass(frozen=True)
class WeightL2:
    """Σ w² over weights of the decoder: of its dense and transposed convolutional layers, or of the latter alone.

    "all": the paper's θ, and the official CelebA code. "convolutions": the official 32x32 code, which leaves out the
    dense layer. Never a bias or a parameter of batch norm.
    """

    kind: Literal["weight_l2"]
    weight: PositiveFloat
    scope: Literal["all", "convolutions"]


@dataclass(frozen=True)
class GradientPenalty:
    """‖∂D(z)/∂z‖²_F, the squared Frobenius norm of the decoder's Jacobian at the code.

    `version` 1 trained on a wrong gradient (docs/methods.md). It stands here, so that a change of this term trains the
    models that have it again and no others; nobody writes it down.
    """

    kind: Literal["gradient_penalty"]
    weight: PositiveFloat
    version: Literal[2] = 2


@dataclass(frozen=True)
class OutputGradient:
    """‖∂/∂z Σ x̂²‖², x̂² summed over the batch and its pixels: the official code's RAE-GP, not the paper's."""

    kind: Literal["output_gradient"]
    weight: PositiveFloat


@dataclass(frozen=True)
class SpectralNorm:
    """Weight matrices divided by their largest singular value, by power iteration: a property of layers, no loss.

    Each setting but `power_iterations` has two values in use: PyTorch's, and the official code's in brackets.
    `scope`: whose dense, convolutional and transposed convolutional layers ("autoencoder").
    `matrix`: a kernel's rows are its output channels, its columns all else; or ("keras") the rows are all but the last
    axis of Keras' kernel and the columns that axis, the input channel of a transposed convolution and else the output.
    Iterations start from the vector over the columns.
    `initial_iterations`: of the power method, from N(0, I), when the model is built (0; PyTorch: 15).
    `vectors`: whether the singular vectors are constants to the gradient ("differentiated").
    `evaluation`: whether forward passes in evaluation mode iterate and so change the model ("iterates").
    """

    kind: Literal["spectral_norm"]
    power_iterations: Count
    scope: Literal["decoder", "autoencoder"]
    matrix: Literal["output_channels", "keras"]
    initial_iterations: CountOrZero
    vectors: Literal["constant", "differentiated"]
    evaluation: Literal["fixed", "iterates"]

    @property
    def is_pytorchs(self) -> bool:
        """Whether PyTorch's own parametrization does all of this."""
        settings = (self.matrix, self.initial_iterations, self.vectors, self.evaluation)
        return settings == ("output_channels", 15, "constant", "fixed")


Regulariser = Annotated[NoRegulariser | WeightL2 | GradientPenalty | OutputGradient | SpectralNorm, ByKind]


@dataclass(frozen=True)
class Objective:
    """An objective is data: a posterior, a latent term, a decoder regulariser, a reconstruction, on one loss scale."""

    posterior: Posterior
    latent: Latent
    regulariser: Regulariser
    reconstruction: Reconstruction = field(default=SQUARED_ERROR, metadata=ADDED)

    def __post_init__(self) -> None:
        if isinstance(self.latent, GaussianKL) and not self.posterior.has_density:
            raise ConfigError(f"latent: 'kl' needs a posterior with a density; posterior is {self.posterior.kind!r}")
