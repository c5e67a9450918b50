"""The settings of objectives: an encoder's posterior, a reconstruction term, a latent term, a decoder regulariser."""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat

from rae_bench.base.plain import ADDED, ConfigError
from rae_bench.base.specs import ByKind, Count, CountOrZero, PositiveFloats, TwoOrMore


@dataclass(frozen=True)
class Deterministic:
    """z = E(x)."""

    kind: Literal["deterministic"]

    has_density: ClassVar[bool] = False
    fills_space: ClassVar[bool] = True
    prior: ClassVar[str] = ""


@dataclass(frozen=True)
class Gaussian:
    """z ~ N(mean(x), sigma(x)²) with log sigma = bound · tanh(head): official code, `bound` 5."""

    kind: Literal["gaussian"]
    log_sigma_bound: PositiveFloat

    has_density: ClassVar[bool] = True
    fills_space: ClassVar[bool] = True
    prior: ClassVar[str] = ""


@dataclass(frozen=True)
class FixedGaussian:
    """z ~ N(mean(x), sigma²) with a constant sigma (CV-VAE; official code 0.7)."""

    kind: Literal["fixed_gaussian"]
    sigma: PositiveFloat

    has_density: ClassVar[bool] = True
    fills_space: ClassVar[bool] = True
    prior: ClassVar[str] = ""


@dataclass(frozen=True)
class NoisyInput:
    """z = E(x + e), e ~ N(0, sd²) clipped to ±bound: a draw; its mean is taken as E(x).

    The official WAE on CelebA, both 0.01: noise in every pass through the full model, none where codes are collected.
    """

    kind: Literal["noisy_input"]
    sd: PositiveFloat
    bound: PositiveFloat

    has_density: ClassVar[bool] = False
    fills_space: ClassVar[bool] = True
    prior: ClassVar[str] = ""


@dataclass(frozen=True)
class MaskedInput:
    """z = E(x with the share `share` of it set to 0): a draw; its mean is taken as E(x).

    What is hidden are squares of `patch` x `patch` pixels in all channels, of vectors as many neighbouring values, at
    random places and the same number in every image, `share` of all to the nearest. `patch` 1 is masking noise (Vincent
    et al. 2010), larger ones are those of masked autoencoders (He et al. 2022). All pixels are reconstructed, as by the
    former; the latter's loss counts hidden ones alone, and their encoder does not see the places.
    """

    kind: Literal["masked_input"]
    share: Annotated[float, Field(gt=0, lt=1)]
    patch: Count

    has_density: ClassVar[bool] = False
    fills_space: ClassVar[bool] = True
    prior: ClassVar[str] = ""


@dataclass(frozen=True)
class Saturating:
    """z = tanh E(x), so that every code lies in (−1, 1)^d; the decoder takes any (Rifai et al. 2011 saturate likewise).

    It has no prior of its own: column N is a density fitted ex post.
    """

    kind: Literal["saturating"]

    has_density: ClassVar[bool] = False
    fills_space: ClassVar[bool] = False
    prior: ClassVar[str] = ""


@dataclass(frozen=True)
class Sphere:
    """z = E(x) / ‖E(x)‖, and the decoder reads any code's direction alone (Zhao et al. 2019; Davidson et al. 2018).

    Its own prior is uniform on the unit sphere: the direction of N(0, I), which is thus decoded to the same images.
    What other densities, or a mid-point, place off the sphere is decoded from its direction likewise. Zhao et al.
    centre codes before they divide by their norm; here nothing is centred.
    """

    kind: Literal["sphere"]

    has_density: ClassVar[bool] = False
    fills_space: ClassVar[bool] = False
    prior: ClassVar[str] = "standard_normal"


@dataclass(frozen=True)
class Quantised:
    """Each run of `length` neighbouring dimensions of z = E(x) moved to the nearest of `n_entries` learnt vectors.

    The VQ-VAE of van den Oord et al. 2017, its codebook learnt by moving averages (their app. A.1, `decay` and
    `smoothing` as in the authors' code: 0.99, 1e-5). Its own prior is uniform over entries at every position. What a
    density of vectors, or a mid-point, places between entries is decoded from the nearest. Entries start from the first
    batch's codes, the authors' from noise.
    """

    kind: Literal["quantised"]
    n_entries: TwoOrMore
    length: Count
    decay: Annotated[float, Field(gt=0, lt=1)]
    smoothing: PositiveFloat

    has_density: ClassVar[bool] = False
    fills_space: ClassVar[bool] = False
    prior: ClassVar[str] = "uniform_indices"


Posterior = Annotated[
    Deterministic | Gaussian | FixedGaussian | NoisyInput | MaskedInput | Saturating | Sphere | Quantised, ByKind
]
"""Each says whether its log q(z|x) is known (`has_density`), and whether a code can be any vector (`fills_space`).

Each also names the kind of density that is its codes' own `prior` whatever the latent term; most have none.
"""


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

    needs_density: ClassVar[bool] = False
    prior: ClassVar[str] = ""


@dataclass(frozen=True)
class GaussianKL:
    """KL(q(z|x) ‖ N(0, I))."""

    kind: Literal["kl"]
    weight: PositiveFloat

    needs_density: ClassVar[bool] = True
    prior: ClassVar[str] = "standard_normal"


@dataclass(frozen=True)
class SquaredNorm:
    """½‖z‖²."""

    kind: Literal["squared_norm"]
    weight: PositiveFloat

    needs_density: ClassVar[bool] = False
    prior: ClassVar[str] = ""


@dataclass(frozen=True)
class MMD:
    """Unbiased MMD² to N(0, I), inverse multiquadratic kernel summed over `scales`."""

    kind: Literal["mmd"]
    weight: PositiveFloat
    scales: PositiveFloats

    needs_density: ClassVar[bool] = False
    prior: ClassVar[str] = "standard_normal"


@dataclass(frozen=True)
class SIGReg:
    """∫ |φ(t) − exp(−t²/2)|² exp(−t²/2s²) dt, mean over random directions (LeJEPA, Balestriero and LeCun 2025).

    φ is the characteristic function of a batch's codes along a unit direction: Epps and Pulley's distance to N(0, 1).
    The integral is by the trapezoidal rule at `points` from −`reach` to `reach`; `slices` directions are drawn anew for
    each batch. Points a step apart cannot tell a code from one that is moved by 2π / step: 10 for 17 on ±5, as in the
    authors' text, 33 for the 17 from 0 to 3 of their code, which are 33 on ±3. `window` is s: 1 in their code, 1/√2 in
    their text. Their statistic is as many times this as a batch has codes: for them a test's, here a distance, whose
    weight does not depend on the batch. Not unbiased.
    """

    kind: Literal["sigreg"]
    weight: PositiveFloat
    slices: Count
    points: TwoOrMore
    reach: PositiveFloat
    window: PositiveFloat

    needs_density: ClassVar[bool] = False
    prior: ClassVar[str] = "standard_normal"


@dataclass(frozen=True)
class Commitment:
    """‖E(x) − z‖² of quantised codes, z the entries nearest to E(x), constants (van den Oord et al. 2017, eq. 3)."""

    kind: Literal["commitment"]
    weight: PositiveFloat

    needs_density: ClassVar[bool] = False
    prior: ClassVar[str] = ""


@dataclass(frozen=True)
class FreeBits:
    """Σ_j max(floor, KL_j), KL_j of dimension j in the mean over the batch (Kingma et al. 2016); `floor` in nats."""

    kind: Literal["free_bits"]
    weight: PositiveFloat
    floor: PositiveFloat

    needs_density: ClassVar[bool] = True
    prior: ClassVar[str] = "standard_normal"


@dataclass(frozen=True)
class Capacity:
    """|KL − C|, KL in the mean over the batch (Burgess et al. 2018, whose γ is the weight).

    C rises from 0 to `capacity` nats over the first `updates` of a training. Validation always takes the last: else a
    loss that is asked for more would never be the best one again.
    """

    kind: Literal["capacity"]
    weight: PositiveFloat
    capacity: PositiveFloat
    updates: Count

    needs_density: ClassVar[bool] = True
    prior: ClassVar[str] = "standard_normal"


@dataclass(frozen=True)
class TotalCorrelation:
    """I(x; z) + factor · KL(q(z) ‖ Π_j q(z_j)) + Σ_j KL(q(z_j) ‖ N(0, 1)) (β-TC-VAE, Chen et al. 2018).

    q(z) is the mean of q(z|x) over `images` training images, estimated from the batch: "weighted" or "stratified" as in
    the paper. "stratified_as_released": the authors' code, whose weights of an image's own posterior and of another
    stand in the first two columns of the matrix, not beside its diagonal. `images`: a data set's, unless stated.
    """

    kind: Literal["total_correlation"]
    weight: PositiveFloat
    factor: PositiveFloat
    estimator: Literal["weighted", "stratified", "stratified_as_released"]
    images: TwoOrMore

    needs_density: ClassVar[bool] = True
    prior: ClassVar[str] = "standard_normal"


@dataclass(frozen=True)
class Disentangled:
    """KL + off_diagonal · Σ_{i≠j} C_ij² + diagonal · Σ_i (C_ii − 1)² (DIP-VAE, Kumar et al. 2018).

    C is the batch's covariance of posterior `means` (DIP-VAE-I), or that of `codes`, with the posteriors' mean variance
    added (DIP-VAE-II); divided by the batch's size.
    """

    kind: Literal["dip"]
    weight: PositiveFloat
    covariance: Literal["means", "codes"]
    off_diagonal: PositiveFloat
    diagonal: NonNegativeFloat

    needs_density: ClassVar[bool] = True
    prior: ClassVar[str] = "standard_normal"


@dataclass(frozen=True)
class InverseMultiquadratic:
    """Σ_s C/(C + ‖a − b‖²), C = 2·d·s: the kernel of `MMD`."""

    kind: Literal["inverse_multiquadratic"]
    scales: PositiveFloats


@dataclass(frozen=True)
class SquaredExponential:
    """exp(−‖a − b‖²/d²): the kernel of InfoVAE's authors' code."""

    kind: Literal["squared_exponential"]


Kernel = Annotated[InverseMultiquadratic | SquaredExponential, ByKind]


@dataclass(frozen=True)
class InfoVAE:
    """(1 − alpha) KL(q(z|x) ‖ N(0, I)) + (alpha + strength − 1) MMD²(q(z), N(0, I)) (Zhao et al. 2019; strength: λ).

    `diagonal`: whether a code's kernel with itself is left out, which makes MMD² unbiased, or kept (authors' code).
    """

    kind: Literal["info"]
    weight: PositiveFloat
    alpha: float
    strength: PositiveFloat
    kernel: Kernel
    diagonal: Literal["left_out", "kept"]

    needs_density: ClassVar[bool] = True
    prior: ClassVar[str] = "standard_normal"

    def __post_init__(self) -> None:
        if not 1 - self.strength < self.alpha <= 1:
            raise ConfigError(
                f"alpha: {self.alpha} must be above 1 - strength, {1 - self.strength}, and at most 1: no term may be"
                " rewarded"
            )


@dataclass(frozen=True)
class ImportanceWeighted:
    """What −weight · log 1/K Σ_k p(x|z_k) p(z_k) / q(z_k|x) has beside the reconstruction (IWAE, Burda et al. 2016).

    K is `samples`; p(x|z) = exp(−reconstruction / weight), as for the KL. The reconstruction is in the mean over all K
    codes, so that reconstruction + weight · latent is the bound; with K = 1 this is a KL estimated from one code.
    """

    kind: Literal["importance_weighted"]
    weight: PositiveFloat
    samples: Count

    needs_density: ClassVar[bool] = True
    prior: ClassVar[str] = "standard_normal"


@dataclass(frozen=True)
class Contractive:
    """‖∂z/∂x‖²_F, the squared Frobenius norm of the Jacobian of the encoder's code at the image (Rifai et al. 2011).

    Estimated without bias along a random direction; their code computes it exactly, for one layer of sigmoids. Codes of
    a smaller scale make it smaller and lose nothing, unless the decoder is held, too: theirs has the encoder's weights,
    here it needs a regulariser, and layers after its first that see the codes' scale: batch norm does not.
    """

    kind: Literal["contractive"]
    weight: PositiveFloat

    needs_density: ClassVar[bool] = False
    prior: ClassVar[str] = ""


@dataclass(frozen=True)
class MixturePrior:
    """log q(z|x) − log p(z), z ~ q: the KL to a mixture of `n_components` Gaussians, learnt with the model.

    An estimate from the one code that is decoded, without bias. The components have equal weights and diagonal
    covariances (Tomczak and Welling 2018, who hold the VampPrior against it).
    """

    kind: Literal["mixture_prior"]
    weight: PositiveFloat
    n_components: Count

    needs_density: ClassVar[bool] = True
    prior: ClassVar[str] = "learnt_prior"


@dataclass(frozen=True)
class VampPrior:
    """The same to the mixture of the encoder's posteriors of `n_components` pseudo-inputs (Tomczak and Welling 2018).

    Pseudo-inputs start as training images (in the authors' code an option; else noise) and are clipped to [0, 1], as
    theirs are. Batch norm, which their encoders do not have, takes its running moments for them.
    """

    kind: Literal["vampprior"]
    weight: PositiveFloat
    n_components: Count

    needs_density: ClassVar[bool] = True
    prior: ClassVar[str] = "learnt_prior"


LearntPrior = MixturePrior | VampPrior
"""The latent terms whose prior is learnt; it is a density of the model's codes (`rae_bench.densities`)."""
OfEncoding = Contractive | LearntPrior
"""The latent terms that are part of the pass through the encoder."""
OfCodes = (
    NoLatentTerm
    | GaussianKL
    | SquaredNorm
    | MMD
    | SIGReg
    | Commitment
    | FreeBits
    | Capacity
    | TotalCorrelation
    | Disentangled
    | InfoVAE
    | ImportanceWeighted
)
"""The latent terms that are functions of posteriors, codes and errors of reconstructions."""
Latent = Annotated[OfCodes | OfEncoding, ByKind]
"""Each says whether it needs the density q(z|x) (`needs_density`), and the kind it draws codes to (`prior`)."""


def codes_per_image(latent: Latent) -> int:
    """How many codes of an image a loss with this term decodes."""
    return latent.samples if isinstance(latent, ImportanceWeighted) else 1


@dataclass(frozen=True)
class NoRegulariser:
    """The decoder is left alone."""

    kind: Literal["none"]


@dataclass(frozen=True)
class WeightL2:
    """Σ w² over weights of the decoder: of its dense and convolutional layers, or of the latter alone.

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


@dataclass(frozen=True)
class OrthogonalFirstLayer:
    """WᵀW = I for the weight W of the decoder's first layer, which takes codes: a property of the layer, no loss.

    W is a product of Householder reflections of its parameters, exactly orthogonal at every update (Mhammedi et al.
    2017; PyTorch's parametrisation). A penalty ‖WᵀW − I‖² (Bansal et al. 2018) would be so only in the limit, and have
    a weight to search. It starts from the orthogonal factor of the weights that other models start from.
    """

    kind: Literal["orthogonal_first_layer"]


Regulariser = Annotated[
    NoRegulariser | WeightL2 | GradientPenalty | OutputGradient | SpectralNorm | OrthogonalFirstLayer, ByKind
]


@dataclass(frozen=True)
class Objective:
    """An objective is data: a posterior, a latent term, a decoder regulariser, a reconstruction, on one loss scale."""

    posterior: Posterior
    latent: Latent
    regulariser: Regulariser
    reconstruction: Reconstruction = field(default=SQUARED_ERROR, metadata=ADDED)

    @property
    def prior(self) -> str:
        """The kind of density that codes are trained to follow, or that is learnt with them; "" if there is none."""
        return self.posterior.prior or self.latent.prior

    def __post_init__(self) -> None:
        if self.latent.needs_density and not self.posterior.has_density:
            raise ConfigError(
                f"latent: {self.latent.kind!r} needs a posterior with a density; posterior is {self.posterior.kind!r}"
            )
        if isinstance(self.latent, ImportanceWeighted) and isinstance(self.reconstruction, OptimalVariance):
            raise ConfigError(
                "reconstruction: 'optimal_variance' is best for a plain mean of errors, not for one of importance"
                " weights; 'learnt_variance' is for both"
            )
        if isinstance(self.latent, Contractive) and isinstance(self.posterior, Gaussian):
            raise ConfigError(
                "latent: 'contractive' is of codes that the image alone moves; those of a posterior 'gaussian' have a"
                " spread besides, which nothing would keep"
            )
        if isinstance(self.latent, Commitment) != isinstance(self.posterior, Quantised):
            raise ConfigError(
                "latent: 'commitment' and a posterior 'quantised' belong together: the one holds codes near the other's"
                f" entries; found {self.latent.kind!r} and {self.posterior.kind!r}"
            )
        if self.latent.prior == "standard_normal" and not self.posterior.fills_space:
            raise ConfigError(
                f"latent: {self.latent.kind!r} draws codes towards N(0, I), which those of a posterior"
                f" {self.posterior.kind!r} cannot follow"
            )
        if isinstance(self.latent, SquaredNorm) and isinstance(self.posterior, Sphere):
            raise ConfigError("latent: 'squared_norm' is the same of every code of a posterior 'sphere'")
