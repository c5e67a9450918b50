"""The 31 configurations of the official code, as this suite's settings and on its loss scale.

Source: `ParthaEth/Regularized_autoencoders-RAE-` at 9478b8f; `published/official_configs.csv` is its config.py. The
weights there belong to losses that differ by family and data set (its models/). As coded, averaged over the batch, with
D values and C channels an image and Z dimensions a code, these are

    RAE, AE          mean over H, W, C of (x − x̂)²  +  β · mean over Z of z²  +  λ · Σw², or λ · mean over Z of g²
    WAE              mean over H, W, C of (x − x̂)²  +  λ · MMD;   on CelebA 0.05 · Σ (x − x̂)²  +  λ · MMD
    VAE, CV-VAE      Σ over H, W of the mean over C of (x − x̂)²  +  β · KL
    second stage     mean over Z of (z − ẑ)²  +  β₂ · KL

with g = ∂/∂z Σ x̂² (`OutputGradient`). Multiplied by `to_sum` (D, 20, C, Z) each begins with
Σ (x − x̂)², the "sum form"; half of that is our scale. A loss as coded is thus `scale` = 2 / `to_sum` times ours, and
what is not free of scale, Adam's epsilon and the plateau's threshold, is divided by it.
"""

import csv
import functools
from dataclasses import dataclass
from pathlib import Path

from rae_bench.densities.specs import SecondStage
from rae_bench.models.specs import (
    MMD,
    ConvolutionalNetwork,
    Deterministic,
    FixedGaussian,
    Gaussian,
    GaussianKL,
    Latent,
    NoisyInput,
    NoLatentTerm,
    NoRegulariser,
    Objective,
    Optimisation,
    OutputGradient,
    Plateau,
    Posterior,
    Regulariser,
    SpectralNorm,
    SquaredNorm,
    WeightL2,
)

REPOSITORY = "ParthaEth/Regularized_autoencoders-RAE- at 9478b8f"
FILE = Path(__file__).parent / "official_configs.csv"
SHAPES = {"mnist": (1, 32), "cifar10": (3, 32), "celeba": (3, 64)}
"""Channels and side of a data set's images."""
ADAM_EPSILON = 1e-7
"""Keras'. It is added before Adam's bias correction, ours behind it: Keras' acts as ε / √(1 − 0.999^t) at update t."""
THRESHOLD = 1e-4
"""Of the plateau: Keras' default, absolute."""
STAGE_BATCH, STAGE_EPOCHS, STAGE_RATE, STAGE_PATIENCE = 64, 100, 1e-4, 3
"""Of the second stage (estimate_density_and_sample.py)."""

_DATASETS = {"MNIST": "mnist", "CIFAR-10": "cifar10", "CelebA": "celeba"}
_MODELS = {
    "VAE": "vae",
    "CV-VAE": "cv_vae",
    "WAE": "wae",
    "2sVAE": "two_stage_vae",
    "RAE-GP": "rae_gp",
    "RAE-L2": "rae_l2",
    "RAE-SN": "rae_sn",
    "RAE": "rae",
    "AE": "ae",
    "AE-L2": "ae_l2",
    "VAE (2-d latent, visualisation)": "vae_2d",
}


@dataclass(frozen=True)
class Weight:
    """A term's weight as coded, in the sum form and in ours. `coded_term` is what is coded, `term` ours."""

    coded_term: str
    term: str
    coded: float
    sum_form: float

    @property
    def ours(self) -> float:
        """The weight where the loss begins with ½‖x − x̂‖²."""
        return self.sum_form / 2


@dataclass(frozen=True)
class Configuration:
    """One entry of the official config.py; `latent_weight`, `regulariser_weight` and `stage_weight` as coded."""

    number: int
    dataset: str
    model: str
    latent_dim: int
    width: int
    batch_size: int
    epochs: int
    learning_rate: float
    updates: int
    latent_weight: float
    regulariser_weight: float
    sigma: float | None
    stage_weight: float | None

    @property
    def family(self) -> str:
        """Which of the losses: "vae", "wae" or "rae"."""
        if self.model in ("vae", "cv_vae", "two_stage_vae", "vae_2d"):
            return "vae"
        return "wae" if self.model == "wae" else "rae"

    @property
    def source(self) -> str:
        """The files the loss, the weights and the training stand in."""
        folder = {"vae": "std_vae", "wae": "wae_mmd", "rae": "rae"}[self.family]
        stage = ", my_utility/estimate_density_and_sample.py" if self.stage_weight is not None else ""
        return f"models/{folder}/loss_functions.py, configurations/config.py, train_raes_vaes.py{stage}"

    @property
    def values(self) -> int:
        """D."""
        channels, size = SHAPES[self.dataset]
        return channels * size * size

    @property
    def reconstruction(self) -> str:
        """The reconstruction term as coded."""
        if self.family == "vae":
            return "Σ over H, W of the mean over C of (x − x̂)²"
        if self.family == "wae" and self.dataset == "celeba":
            return "0.05 · Σ (x − x̂)²"
        return "mean over H, W, C of (x − x̂)²"

    @property
    def to_sum(self) -> float:
        """By what the loss as coded is multiplied to begin with Σ (x − x̂)²."""
        if self.family == "vae":
            return SHAPES[self.dataset][0]
        return 20 if self.family == "wae" and self.dataset == "celeba" else self.values

    @property
    def scale(self) -> float:
        """The loss as coded over ours."""
        return 2 / self.to_sum

    @property
    def latent(self) -> Weight | None:
        """The weight of the latent term."""
        weight = self.latent_weight
        if not weight:
            return None
        if self.family == "rae":
            return Weight("mean over Z of z²", "½‖z‖²", weight, weight * self.to_sum * 2 / self.latent_dim)
        term = "KL" if self.family == "vae" else "MMD"
        return Weight(term, term, weight, weight * self.to_sum)

    @property
    def regulariser(self) -> Weight | None:
        """The weight of the decoder's regulariser; None where there is none, or none to weigh."""
        weight = self.regulariser_weight
        if not weight:
            return None
        if self.model == "rae_gp":
            return Weight("mean over Z of g²", "‖g‖²", weight, weight * self.to_sum / self.latent_dim)
        return Weight("Σw²", "Σw²", weight, weight * self.to_sum)

    @property
    def stage(self) -> Weight | None:
        """The weight in the second stage, whose loss has Z in the place of D."""
        if self.stage_weight is None:
            return None
        return Weight("KL", "KL", self.stage_weight, self.stage_weight * self.latent_dim)

    def network(self) -> ConvolutionalNetwork:
        """Its network (models/rae): the decoder starts from 1024 channels whatever the width."""
        channels, size = SHAPES[self.dataset]
        kernel = 4 if size == 32 else 5
        return ConvolutionalNetwork(
            "convolutional", channels, size, kernel, self.width, 1024, self.latent_dim, norm_momentum=0.01
        )

    def objective(self) -> Objective:
        """Its loss, divided by `scale`."""
        return Objective(self._posterior(), self._latent(), self._regulariser())

    def optimisation(self) -> Optimisation:
        """Its training, epsilon and threshold on our scale."""
        return Optimisation(
            epochs=self.epochs,
            batch_size=self.batch_size,
            order="shuffled" if self.dataset == "celeba" else "file",
            learning_rate=self.learning_rate,
            adam_epsilon=ADAM_EPSILON / self.scale,
            schedule=Plateau("plateau", factor=0.5, patience=5, threshold=THRESHOLD / self.scale),
        )

    def second_stage(self) -> SecondStage | None:
        """The density in column N of 2sVAE; None for other models. Its scale is 2/Z."""
        if self.stage is None:
            return None
        scale = 2 / self.latent_dim
        gaussian, latent = Gaussian("gaussian", 5.0), GaussianKL("kl", self.stage.ours)
        return SecondStage(
            kind="second_stage",
            codes="mean",
            width=1024,
            depth=2,
            objective=Objective(gaussian, latent, NoRegulariser("none")),
            optimisation=Optimisation(
                epochs=STAGE_EPOCHS,
                batch_size=STAGE_BATCH,
                order="shuffled",
                learning_rate=STAGE_RATE,
                adam_epsilon=ADAM_EPSILON / scale,
                schedule=Plateau("plateau", 0.5, STAGE_PATIENCE, THRESHOLD / scale),
            ),
        )

    def _posterior(self) -> Posterior:
        if self.family == "vae":
            if self.sigma is not None:
                return FixedGaussian("fixed_gaussian", self.sigma)
            return Gaussian("gaussian", log_sigma_bound=5.0)
        if self.family == "wae" and self.dataset == "celeba":
            return NoisyInput("noisy_input", sd=0.01, bound=0.01)
        return Deterministic("deterministic")

    def _latent(self) -> Latent:
        if self.latent is None:
            return NoLatentTerm("none")
        if self.family == "vae":
            return GaussianKL("kl", self.latent.ours)
        if self.family == "wae":
            return MMD("mmd", self.latent.ours, (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0))
        return SquaredNorm("squared_norm", self.latent.ours)

    def _regulariser(self) -> Regulariser:
        if self.model == "rae_sn":
            return SpectralNorm("spectral_norm", 1, "autoencoder", "keras", 0, "differentiated", "iterates")
        if self.regulariser is None:
            return NoRegulariser("none")
        if self.model == "rae_gp":
            return OutputGradient("output_gradient", self.regulariser.ours)
        return WeightL2("weight_l2", self.regulariser.ours, "all" if self.dataset == "celeba" else "convolutions")


@functools.cache
def configurations() -> dict[tuple[str, str], Configuration]:
    """Every configuration by data set and model, in the order of their numbers."""
    with FILE.open(encoding="utf-8", newline="") as file:
        read = [_configuration(row) for row in csv.DictReader(file)]
    return {(one.dataset, one.model): one for one in read}


def _configuration(row: dict[str, str]) -> Configuration:
    return Configuration(
        number=int(row["config_id"]),
        dataset=_DATASETS[row["dataset"]],
        model=_MODELS[row["model"]],
        latent_dim=int(row["latent_dim"]),
        width=int(row["base_filters"]),
        batch_size=int(row["batch_size"]),
        epochs=int(row["epochs"]),
        learning_rate=float(row["adam_lr"]),
        updates=int(row["updates"]),
        latent_weight=float(row["latent_weight_code"]),
        regulariser_weight=float(row["reg_weight_code"] or 0),
        sigma=float(row["cv_sigma"]) if row["cv_sigma"] else None,
        stage_weight=float(row["second_stage_beta"]) if row["second_stage_beta"] else None,
    )
