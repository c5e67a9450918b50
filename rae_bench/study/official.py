"""The official code's 31 configurations as settings of this suite: one path from each coded loss to our scale.

Source: `ParthaEth/Regularized_autoencoders-RAE-` at 9478b8f; `official_configs.csv` is its config.py. The weights there
belong to losses that differ by family and data set (its models/). With D values and C channels an image and Z
dimensions a code they are, averaged over the batch,

    as coded    RAE, AE        mean over H, W, C of (x − x̂)²  +  β · mean over Z of z²  +  λ · Σw²
                RAE-GP         the same with λ · mean over Z of g², g = ∂/∂z Σ x̂², in the place of λ · Σw²
                WAE            mean over H, W, C of (x − x̂)²  +  λ · MMD;   on CelebA 0.05 · Σ (x − x̂)²  +  λ · MMD
                VAE, CV-VAE    Σ over H, W of the mean over C of (x − x̂)²  +  β · KL
                second stage   mean over Z of (z − ẑ)²  +  β₂ · KL
    sum form    multiplied by `to_sum` (D, 20, C, Z), so that each begins with Σ (x − x̂)²
    ours        half of the sum form: each begins with ½‖x − x̂‖²

A loss as coded is thus `scale` = 2 / `to_sum` times ours, and what depends on a loss's scale, Adam's epsilon and the
plateau's threshold, is divided by it.
"""

import csv
import functools
from dataclasses import dataclass
from pathlib import Path

from rae_bench.base.plain import Plain, to_plain, unknown
from rae_bench.study.config import load_study

REPOSITORY = "ParthaEth/Regularized_autoencoders-RAE- at 9478b8f"
FILE = Path(__file__).parent / "official_configs.csv"
SHAPES = {"mnist": (1, 32), "cifar10": (3, 32), "celeba": (3, 64)}
"""Channels and side of a data set's images."""
ADAM_EPSILON = 1e-7
"""Keras' own. Keras adds it before Adam's bias correction, we after: there it acts as
ε / √(1 − 0.999^t) at update t."""
THRESHOLD = 1e-4
"""The plateau's: Keras' default, absolute."""
STAGE_BATCH, STAGE_EPOCHS, STAGE_RATE = 64, 100, 1e-4
"""The second stage's (estimate_density_and_sample.py)."""
FAMILIES = {"wae": "wae", **dict.fromkeys(("vae", "cv_vae", "two_stage_vae", "vae_2d"), "vae")}
"""The coded loss that each of these models has; all others have "rae"."""
FOLDERS = {"vae": "std_vae", "wae": "wae_mmd", "rae": "rae"}
LATENT_TERMS = {"vae": ("KL", "KL"), "wae": ("MMD", "MMD"), "rae": ("mean over Z of z²", "½‖z‖²")}
"""Each family's latent term as coded, and ours."""
NOTES = {
    "rae_gp": "g = ∂/∂z Σ x̂²: our output_gradient, not the Jacobian penalty of the paper; of weight 0 on CIFAR-10",
    "rae_sn": "spectral norm of every layer of encoder and decoder; no weight",
    "two_stage_vae": "the weights of vae, and a second stage in column N",
    **dict.fromkeys(
        ("rae_l2", "ae_l2"), "w: of the decoder's transposed convolutions; on CelebA of its dense layer, too"
    ),
}

_DATASETS = {"MNIST": "mnist", "CIFAR-10": "cifar10", "CelebA": "celeba"}
_MODELS = {"2sVAE": "two_stage_vae", "VAE (2-d latent, visualisation)": "vae_2d"}
"""The models whose names are not ours but for case and hyphens."""


class ConversionError(ValueError):
    """A configuration or a rule that does not exist; the message says what there is."""


@dataclass(frozen=True)
class Weight:
    """A term's weight as coded and in the sum form. `coded_term` is what is coded, `term` ours."""

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
        """The coded loss that it has: "vae", "wae" or "rae"."""
        return FAMILIES.get(self.model, "rae")

    @property
    def reconstruction(self) -> tuple[str, float]:
        """The reconstruction term as coded, and `to_sum`: by what it is multiplied to be Σ (x − x̂)²."""
        channels, size = SHAPES[self.dataset]
        if self.family == "vae":
            return "Σ over H, W of the mean over C of (x − x̂)²", channels
        if self.family == "wae" and self.dataset == "celeba":
            return "0.05 · Σ (x − x̂)²", 20
        return "mean over H, W, C of (x − x̂)²", channels * size * size

    @property
    def to_sum(self) -> float:
        """What the loss as coded is multiplied by to begin with Σ (x − x̂)²."""
        return self.reconstruction[1]

    @property
    def scale(self) -> float:
        """The loss as coded over ours."""
        return 2 / self.to_sum

    @property
    def latent(self) -> Weight | None:
        """The weight of the latent term; None without one."""
        factor = self.to_sum * (2 / self.latent_dim if self.family == "rae" else 1)
        return _weight(*LATENT_TERMS[self.family], self.latent_weight, factor)

    @property
    def regulariser(self) -> Weight | None:
        """The weight of the decoder's regulariser; None without one, or without one to weigh."""
        if self.model == "rae_gp":
            return _weight("mean over Z of g²", "‖g‖²", self.regulariser_weight, self.to_sum / self.latent_dim)
        return _weight("Σw²", "Σw²", self.regulariser_weight, self.to_sum)

    @property
    def stage(self) -> Weight | None:
        """The weight in the second stage, whose loss has Z in the place of D; None without a second stage."""
        return _weight("KL", "KL", self.stage_weight or 0, self.latent_dim)

    def jacobian_weight(self, mean_square_pixel: float) -> float:
        """The weight of ‖J‖² that asks for as much as its gradient penalty, by rule.

        g = 2Jᵀx̂, J the decoder's Jacobian at the code: the weight belongs to another quantity than ‖J‖². If x̂ were
        uncorrelated with the columns of J, E‖g‖² = 4 M ‖J‖² with M the mean square pixel of the images in [0, 1].

        Raises:
            ConversionError: it has no gradient penalty, or M does not lie in (0, 1].
        """
        if self.model != "rae_gp":
            raise ConversionError(f"--rule: {self.model} has no gradient penalty; only rae_gp has")
        if self.regulariser is None:
            raise ConversionError(
                f"--rule: the gradient penalty of rae_gp on {self.dataset} has weight 0; regulariser none is right"
            )
        if not 0 < mean_square_pixel <= 1:
            raise ConversionError(f"--rule: {mean_square_pixel:g} must lie in (0, 1]: it is a mean square pixel")
        return 4 * mean_square_pixel * self.regulariser.ours

    def text(self, mean_square_pixel: float | None = None) -> str:
        """Its chain to our scale, a step a line; with a mean square pixel the weight of ‖J‖² by rule, too."""
        reconstruction, to_sum = self.reconstruction
        weights = [weight for weight in (self.latent, self.regulariser) if weight is not None]
        coded, summed, ours = (
            "  +  ".join([first, *(f"{getattr(weight, form):g} · {getattr(weight, term)}" for weight in weights)])
            for first, form, term in (
                (reconstruction, "coded", "coded_term"),
                ("Σ (x − x̂)²", "sum_form", "term"),
                ("½‖x − x̂‖²", "ours", "term"),
            )
        )
        channels, size = SHAPES[self.dataset]
        sizes = f"D = {size} x {size} x {channels} = {channels * size**2:,}, C = {channels}, Z = {self.latent_dim}"
        lines = {
            "as coded": coded,
            "sum form": f"x {to_sum:g}: {summed}",
            "ours": f"x ½: {ours}",
            "scale": f"as coded = {self.scale:g} x ours; {sizes}",
            "Adam": f"epsilon {ADAM_EPSILON:g} / {self.scale:g} = {ADAM_EPSILON / self.scale:g}",
            "plateau": f"threshold {THRESHOLD:g} / {self.scale:g} = {THRESHOLD / self.scale:g}",
            "training": f"learning rate {self.learning_rate:g}, halved after 5 epochs without improvement; batches of"
            f" {self.batch_size}, {'shuffled' if self.dataset == 'celeba' else 'in file order'};"
            f" {self.epochs} epochs, {self.updates:,} updates",
            "note": NOTES.get(self.model, ""),
            "source": f"{REPOSITORY}: models/{FOLDERS[self.family]}/loss_functions.py, configurations/config.py,"
            f" train_raes_vaes.py{', my_utility/estimate_density_and_sample.py' if self.stage else ''}",
        }
        if self.stage is not None:
            lines["stage two"] = (
                f"mean over Z of (z − ẑ)² + {self.stage.coded:g} · KL as coded, x {self.latent_dim}:"
                f" {self.stage.sum_form:g}, x ½: {self.stage.ours:g}; scale {2 / self.latent_dim:g}"
            )
        if mean_square_pixel is not None:
            weight, rule = self.jacobian_weight(mean_square_pixel), f"4 x {mean_square_pixel:g} times that of ‖g‖²"
            lines["by rule"] = f"{weight:g} · ‖J‖², {rule}, for x̂ uncorrelated with the columns of J"
        title = f"official code, configuration {self.number}: {self.model} on {self.dataset}"
        return "\n".join([title, *(f"  {label:10} {line}" for label, line in lines.items() if line)])

    def plain(self, mean_square_pixel: float | None = None) -> dict[str, Plain]:
        """The same as plain data, with the settings that it amounts to, those of the study `paper_as_released`.

        That study has no `vae_2d`: of this one there are no settings.
        """
        weights = {"latent": self.latent, "regulariser": self.regulariser, "second_stage_latent": self.stage}
        found = {
            "configuration": self.number,
            "dataset": self.dataset,
            "model": self.model,
            "to_sum_form": self.to_sum,
            "scale": self.scale,
            **{name: weight and {**to_plain(weight), "ours": weight.ours} for name, weight in weights.items()},
            "updates": self.updates,
            **dict.fromkeys(("network", "objective", "optimisation", "second_stage")),
        }
        released, model = load_study("paper_as_released"), "vae" if self.stage else self.model
        if model in released.models:
            training = to_plain(released.training(self.dataset, model))
            found |= {name: training[name] for name in ("network", "objective", "optimisation")}
        if self.stage:
            found["second_stage"] = to_plain(released.fit(self.dataset, model, "second_stage").density)
        if mean_square_pixel is not None:
            found["gradient_penalty_by_rule"] = self.jacobian_weight(mean_square_pixel)
        return found


def _weight(coded_term: str, term: str, coded: float, to_sum: float) -> Weight | None:
    return Weight(coded_term, term, coded, coded * to_sum) if coded else None


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
        model=_MODELS.get(row["model"], row["model"].lower().replace("-", "_")),
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


def configuration(dataset: str, model: str) -> Configuration:
    """The configuration of a model on a data set.

    Raises:
        ConversionError: there is none.
    """
    if dataset not in SHAPES:
        raise ConversionError(unknown("--dataset", "data set", dataset, list(SHAPES)))
    models = [name for data, name in configurations() if data == dataset]
    if model not in models:
        raise ConversionError(unknown("--model", f"model of {dataset}", model, models))
    return configurations()[dataset, model]


def table() -> str:
    """Every configuration, its weights as coded, in the sum form and in ours, as markdown."""
    rows = [
        "| | data set | model | as coded / ours | latent: coded → sum → ours | regulariser: coded → sum → ours"
        " | Adam's ε | threshold | rate | batch | epochs |",
        "| ---: | --- | --- | ---: | --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for one in configurations().values():
        names, weights = [str(one.number), one.dataset, f"`{one.model}`"], [_cell(one.latent), _cell(one.regulariser)]
        if one.model == "rae_sn":
            weights[1] = "spectral norm"
        rows.append(_row(names, weights, one.scale, one.learning_rate, one.batch_size, one.epochs))
        if one.stage is not None:
            names, weights = ["", "", "its second stage"], [_cell(one.stage), _cell(None)]
            rows.append(_row(names, weights, 2 / one.latent_dim, STAGE_RATE, STAGE_BATCH, STAGE_EPOCHS))
    return "\n".join(rows)


def _row(names: list[str], weights: list[str], scale: float, rate: float, batch: int, epochs: int) -> str:
    training = [f"{ADAM_EPSILON / scale:.4g}", f"{THRESHOLD / scale:.4g}", f"{rate:g}", str(batch), str(epochs)]
    return f"| {' | '.join([*names, f'{scale:.4g}', *weights, *training])} |"


def _cell(weight: Weight | None) -> str:
    return f"{weight.term}: {weight.coded:g} → {weight.sum_form:g} → {weight.ours:g}" if weight else "–"
