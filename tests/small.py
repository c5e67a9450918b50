"""Small settings that tests of models and of densities share."""

from rae_bench.base.plain import kinds
from rae_bench.base.specs import Compute
from rae_bench.models.layouts.specs import (
    ConvolutionalNetwork,
    DenseImageNetwork,
    DenseNetwork,
    PatchTransformer,
    ResidualNetwork,
)
from rae_bench.models.specs import TRAIN_VERSION, Cosine, Optimisation, TrainingSpec
from rae_bench.models.terms.specs import (
    Deterministic,
    FixedGaussian,
    Gaussian,
    Latent,
    NoLatentTerm,
    NoRegulariser,
    Objective,
    Posterior,
    Reconstruction,
    Regulariser,
    SpectralNorm,
)

POINT = Deterministic(kind="deterministic")
GAUSSIAN = Gaussian(kind="gaussian", log_sigma_bound=5.0)
FIXED = FixedGaussian(kind="fixed_gaussian", sigma=0.7)
NO_LATENT, NO_REGULARISER = NoLatentTerm(kind="none"), NoRegulariser(kind="none")
COSINE = Cosine(kind="cosine")
UNIONS = {"posterior": Posterior, "latent": Latent, "regulariser": Regulariser, "reconstruction": Reconstruction}
PYTORCHS_NORM = SpectralNorm(
    kind="spectral_norm",
    power_iterations=1,
    scope="decoder",
    matrix="output_channels",
    initial_iterations=15,
    vectors="constant",
    evaluation="fixed",
)
OFFICIAL_NORM = SpectralNorm(
    kind="spectral_norm",
    power_iterations=1,
    scope="autoencoder",
    matrix="keras",
    initial_iterations=0,
    vectors="differentiated",
    evaluation="iterates",
)


def images(channels=1, size=32, kernel=4, width=2, latent_dim=5, norm_momentum=0.1, start_width=None):
    """The paper's network, narrow."""
    return ConvolutionalNetwork(
        kind="convolutional",
        channels=channels,
        size=size,
        kernel=kernel,
        width=width,
        start_width=start_width or 8 * width,
        latent_dim=latent_dim,
        norm_momentum=norm_momentum,
    )


def residual(channels=1, size=32, width=2, groups=1, latent_dim=5):
    """Residual convolutions, narrow."""
    return ResidualNetwork("residual", channels, size, width, groups, latent_dim)


def dense_images(channels=1, size=32, width=9, depth=2, latent_dim=5):
    """A dense network on images, narrow."""
    return DenseImageNetwork("dense_images", channels, size, width, depth, latent_dim)


def transformer(channels=1, size=32, patch=8, width=8, depth=2, heads=2, expansion=2, latent_dim=5):
    """A transformer on patches, narrow."""
    return PatchTransformer("transformer", channels, size, patch, width, depth, heads, expansion, latent_dim)


FAMILIES = {"convolutional": images, "residual": residual, "dense_images": dense_images, "transformer": transformer}
"""A narrow network of each family that a budget can name, by its kind; all take channels, size and latent_dim."""


def vectors(input_dim=7, width=9, depth=2, latent_dim=3):
    """A dense network."""
    return DenseNetwork(kind="dense", input_dim=input_dim, width=width, depth=depth, latent_dim=latent_dim)


def objective(*parts):
    """The objective of these parts, in any order; a point, no latent term and no regulariser where none is named."""
    terms = {"posterior": POINT, "latent": NO_LATENT, "regulariser": NO_REGULARISER}
    roles = {type_: role for role, union in UNIONS.items() for type_ in kinds(union).values()}
    return Objective(**(terms | {roles[type(part)]: part for part in parts}))


def optimisation(epochs=5, batch_size=50, learning_rate=5e-3, schedule=COSINE, order="shuffled", adam_epsilon=1e-7):
    """Adam for a few epochs."""
    return Optimisation(
        epochs=epochs,
        batch_size=batch_size,
        order=order,
        learning_rate=learning_rate,
        adam_epsilon=adam_epsilon,
        schedule=schedule,
    )


def training_spec(network, objective, optimisation, precision="float32"):
    """A training on the CPU."""
    return TrainingSpec(
        version=TRAIN_VERSION,
        network=network,
        objective=objective,
        optimisation=optimisation,
        validation_split="validation",
        compute=Compute(device="cpu", threads=1, tf32=False, precision=precision),
    )
