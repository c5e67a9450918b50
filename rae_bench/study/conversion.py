"""Loss weights of other programs and of the paper, carried to our scale: the chain of each, as text and as data.

    paper       Σ (x − x̂)²  +  β · L_Z  +  λ · L_reg, L_Z = ½‖z‖² of a RAE: its own "sum form"; ours is half of it
    official    `rae_bench.study.official`
    Pythae      version 0.1.2: Σ (x − x̂)²  +  ..., but ½ Σ (x − x̂)²  +  β · KL of a VAE, and weight decay for L2

A weight says how much of a quantity is asked. Where the quantity is another one, there is no factor to ours: for the
official code's gradient penalty there is a rule of thumb, for Pythae's none.
"""

from dataclasses import dataclass

from rae_bench.base.plain import Plain, to_plain, unknown
from rae_bench.study import official

SOURCES = ("paper", "official", "pythae")
TERMS: dict[str, tuple[str | None, str | None]] = {
    "vae": ("KL", None),
    "cv_vae": ("KL", None),
    "wae": ("MMD", None),
    "rae_gp": ("½‖z‖²", "‖J‖²"),
    "rae_l2": ("½‖z‖²", "Σw²"),
    "rae_sn": ("½‖z‖²", None),
    "rae": ("½‖z‖²", None),
    "ae": (None, None),
    "ae_l2": (None, "Σw²"),
}
"""Each model's latent term and regulariser, J the decoder's Jacobian at the code."""
PYTHAE = {
    "vae": "BetaVAE (VAE: β = 1)",
    "wae": "WAE_MMD",
    "rae_l2": "RAE_L2",
    "rae": "RAE_L2",
    "ae": "AE",
    "ae_l2": "RAE_L2",
}
"""Pythae's name of each model it has, but for RAE_GP."""
PYTHAE_EPSILON = 1e-8
"""Adam's there: PyTorch's default."""

Line = tuple[str, str]


class ConversionError(ValueError):
    """A weight that cannot be converted; the message says why and what would do."""


@dataclass(frozen=True)
class Conversion:
    """A chain of conversion: a title, lines of a label and a text, and the same as plain data."""

    title: str
    lines: tuple[Line, ...]
    data: dict[str, Plain]

    def text(self) -> str:
        """What people read."""
        return "\n".join([self.title, *(f"  {label:10} {text}" for label, text in self.lines)])


def from_official(dataset: str, model: str, penalty: str = "", mean_square_pixel: float | None = None) -> Conversion:
    """The chain of one of the 31 configurations.

    `penalty` "gradient_penalty" asks for the weight of ‖J‖² in the place of the official penalty's: by rule,
    with the mean square pixel of the data set's images in [0, 1], or not at all.

    Raises:
        ConversionError: no such data set or model, or a penalty that cannot be converted.
    """
    if dataset not in official.SHAPES:
        raise ConversionError(unknown("--dataset", "data set", dataset, list(official.SHAPES)))
    models = [name for data, name in official.configurations() if data == dataset]
    if model not in models:
        raise ConversionError(unknown("--model", f"model of {dataset}", model, models))
    one = official.configurations()[dataset, model]
    weights = {"latent": one.latent, "regulariser": one.regulariser}
    present = [weight for weight in weights.values() if weight is not None]
    channels, size = official.SHAPES[dataset]
    sizes = f"D = {size} x {size} x {channels} = {one.values:,}, C = {channels}, Z = {one.latent_dim}"
    optimisation, stage = one.optimisation(), one.stage
    lines = [
        ("as coded", _sum(one.reconstruction, *((weight.coded, weight.coded_term) for weight in present))),
        (
            "sum form",
            f"x {one.to_sum:g}: {_sum('Σ (x − x̂)²', *((weight.sum_form, weight.term) for weight in present))}",
        ),
        ("ours", f"x ½: {_sum('½‖x − x̂‖²', *((weight.ours, weight.term) for weight in present))}"),
        ("scale", f"as coded = {one.scale:g} x ours; {sizes}"),
        ("Adam", f"epsilon {official.ADAM_EPSILON:g} / {one.scale:g} = {optimisation.adam_epsilon:g}"),
        ("plateau", f"threshold {official.THRESHOLD:g} / {one.scale:g} = {official.THRESHOLD / one.scale:g}"),
        ("training", _training(one)),
        *_official_notes(one),
        ("source", f"{official.REPOSITORY}: {one.source}"),
    ]
    data = {
        "source": "official",
        "configuration": one.number,
        "dataset": dataset,
        "model": model,
        "to_sum_form": one.to_sum,
        "scale": one.scale,
        **{name: _plain(weight) for name, weight in weights.items()},
        "second_stage_latent": _plain(stage),
        "updates": one.updates,
        "network": to_plain(one.network()),
        "objective": to_plain(one.objective()),
        "optimisation": to_plain(optimisation),
        "second_stage": to_plain(one.second_stage()),
    }
    if stage is not None:
        chain = f"{stage.coded:g} · KL as coded, x {one.latent_dim}: {stage.sum_form:g}, x ½: {stage.ours:g}"
        lines.append(("stage two", f"mean over Z of (z − ẑ)² + {chain}; scale {2 / one.latent_dim:g}"))
    if penalty:
        weight = _jacobian_weight(one, penalty, mean_square_pixel)
        rule = f"4 x {mean_square_pixel:g} x {one.regulariser.ours if one.regulariser else 0:g}"
        lines.append(("by rule", f"{weight:g} · ‖J‖² = {rule}, for x̂ uncorrelated with the columns of J"))
        data["gradient_penalty_by_rule"] = weight
    return Conversion(f"official code, configuration {one.number}: {model} on {dataset}", tuple(lines), data)


def _official_notes(one: official.Configuration) -> list[Line]:
    if one.model == "rae_gp" and one.regulariser is None:
        return [("note", "its gradient penalty has weight 0: regulariser none")]
    notes = {
        "rae_gp": "g = ∂/∂z Σ x̂²: our output_gradient, not the Jacobian penalty of the paper",
        "rae_sn": "spectral norm of every layer of encoder and decoder; no weight",
        "two_stage_vae": "the weights of vae, and a second stage in column N",
    }
    if one.model in notes:
        return [("note", notes[one.model])]
    if one.model in ("rae_l2", "ae_l2"):
        has_dense = one.dataset == "celeba"
        return [("note", f"w: of the decoder's transposed convolutions{' and dense layer' if has_dense else ' alone'}")]
    return []


def _jacobian_weight(one: official.Configuration, penalty: str, mean_square_pixel: float | None) -> float:
    if penalty != "gradient_penalty":
        raise ConversionError(unknown("--as", "regulariser", penalty, ["gradient_penalty"]))
    if one.model != "rae_gp":
        raise ConversionError(f"--as: {one.model} has no gradient penalty; only rae_gp has")
    if one.regulariser is None:
        raise ConversionError(
            f"--as: the gradient penalty of rae_gp on {one.dataset} has weight 0; regulariser none is right"
        )
    if mean_square_pixel is None:
        raise ConversionError(
            "--as: the official code's rae_gp penalises ‖∂/∂z Σ x̂²‖² = ‖2Jᵀx̂‖², not ‖J‖²: its weight belongs to another"
            " quantity. --rule M converts it as if x̂ were uncorrelated with the columns of J: E‖2Jᵀx̂‖² = 4 M ‖J‖², with"
            " M the mean square pixel of the images in [0, 1]"
        )
    if not 0 < mean_square_pixel <= 1:
        raise ConversionError(f"--rule: {mean_square_pixel:g} must lie in (0, 1]: it is a mean square pixel")
    return 4 * mean_square_pixel * one.regulariser.ours


def from_paper(model: str, latent: float | None, regulariser: float | None) -> Conversion:
    """The chain of weights as the paper prints them; of `rae_gp` that of the Jacobian.

    Raises:
        ConversionError: no such model, a weight too many or too few.
    """
    if model not in TERMS:
        raise ConversionError(unknown("--model", "model", model, list(TERMS)))
    weights = _given(model, latent, regulariser)
    lines = (
        ("sum form", f"as printed: {_sum('Σ (x − x̂)²', *((weight, term) for _, term, weight in weights))}"),
        ("ours", f"x ½: {_sum('½‖x − x̂‖²', *((weight / 2, term) for _, term, weight in weights))}"),
        ("scale", "as printed = 2 x ours"),
    )
    ours = {name: {"printed": weight, "sum_form": weight, "ours": weight / 2} for name, _, weight in weights}
    return Conversion(f"paper: {model}", lines, {"source": "paper", "model": model, "scale": 2.0, **ours})


def from_pythae(model: str, latent: float | None, regulariser: float | None) -> Conversion:
    """The chain of the weights of a configuration of Pythae 0.1.2.

    `latent`: beta, reg_weight of WAE_MMD, embedding_weight of RAE_L2, whose reg_weight is `regulariser`.

    Raises:
        ConversionError: a model Pythae has not, or whose penalty is another quantity; a weight too many or too few.
    """
    if model == "rae_gp":
        raise ConversionError(
            "--model: Pythae's RAE_GP penalises the gradient of the summed reconstruction with respect to the image,"
            " through encoder and decoder: a quantity that neither the paper nor this suite has, and no factor leads to"
        )
    if model not in PYTHAE:
        raise ConversionError(unknown("--model", "model of Pythae", model, [*PYTHAE, "rae_gp"]))
    weights = _given(model, latent, regulariser)
    scale = 1.0 if model == "vae" else 2.0
    # Weight decay λ adds λθ to the gradient: that of λ/2 Σθ²
    coded = [(name, f"½{term}" if name == "regulariser" else term, weight) for name, term, weight in weights]
    ours = [(name, term, weight / scale / (2 if name == "regulariser" else 1)) for name, term, weight in weights]
    reconstruction = "½ Σ (x − x̂)²" if model == "vae" else "Σ (x − x̂)²"
    lines = [
        ("as coded", _sum(reconstruction, *((weight, term) for _, term, weight in coded))),
        ("sum form", _sum("Σ (x − x̂)²", *((2 * weight, term) for _, term, weight in ours))),
        ("ours", _sum("½‖x − x̂‖²", *((weight, term) for _, term, weight in ours))),
        ("scale", f"as coded = {scale:g} x ours"),
        ("Adam", f"epsilon {PYTHAE_EPSILON:g} / {scale:g} = {PYTHAE_EPSILON / scale:g}"),
    ]
    if any(name == "regulariser" for name, _, _ in weights):
        lines += [
            ("note", "½Σw² as weight decay of the decoder's Adam: on biases and batch norm, too, and rescaled by Adam"),
            ("note", "version 0.1.2 never sets it: reg_weight has no effect unless given as decoder_optimizer_params"),
        ]
    if model == "wae":
        lines.append(("note", "with reconstruction_loss_scale 1 and kernel_bandwidth 1, its defaults"))
    data = {
        name: {"coded": weight, "sum_form": 2 * converted, "ours": converted}
        for (name, _, weight), (_, _, converted) in zip(weights, ours, strict=True)
    }
    epsilon = {"coded": PYTHAE_EPSILON, "ours": PYTHAE_EPSILON / scale}
    about = {"source": "pythae", "model": model, "scale": scale, "adam_epsilon": epsilon}
    return Conversion(f"Pythae 0.1.2, {PYTHAE[model]}: {model}", tuple(lines), {**about, **data})


def _given(model: str, latent: float | None, regulariser: float | None) -> list[tuple[str, str, float]]:
    """Name, term and weight of each term the model has; those and no other must be given."""
    found = []
    for name, term, weight in zip(("latent", "regulariser"), TERMS[model], (latent, regulariser), strict=True):
        if term is None and weight is not None:
            raise ConversionError(f"--{name}: {weight:g} has no term to weigh in {model}")
        if term is not None and weight is None:
            raise ConversionError(f"--{name}: missing, the weight of {term} in {model}")
        if weight is not None and not 0 <= weight < float("inf"):
            raise ConversionError(f"--{name}: {weight:g} must be a number, not negative")
        if term is not None and weight is not None:
            found.append((name, term, weight))
    return found


def table() -> str:
    """Every official configuration, its weights as coded, in the sum form and in ours, as markdown."""
    rows = [
        "| | data set | model | as coded / ours | latent: coded → sum → ours | regulariser: coded → sum → ours"
        " | Adam's ε | threshold | rate | batch | epochs |",
        "| ---: | --- | --- | ---: | --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for one in official.configurations().values():
        optimisation = one.optimisation()
        cells = [
            *(str(one.number), one.dataset, f"`{one.model}`", f"{one.scale:.4g}"),
            *(_cell(one.latent), _cell(one.regulariser) if one.model != "rae_sn" else "spectral norm"),
            *(f"{optimisation.adam_epsilon:.4g}", f"{official.THRESHOLD / one.scale:.4g}", f"{one.learning_rate:g}"),
            *(str(one.batch_size), str(one.epochs)),
        ]
        rows.append(f"| {' | '.join(cells)} |")
        if one.stage is not None:
            scale = 2 / one.latent_dim
            cells = ["", "", "its second stage", f"{scale:.4g}", _cell(one.stage), "–"]
            cells += [f"{official.ADAM_EPSILON / scale:.4g}", f"{official.THRESHOLD / scale:.4g}"]
            cells += [f"{official.STAGE_RATE:g}", str(official.STAGE_BATCH), str(official.STAGE_EPOCHS)]
            rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def _cell(weight: official.Weight | None) -> str:
    if weight is None:
        return "–"
    return f"{weight.term}: {weight.coded:g} → {weight.sum_form:g} → {weight.ours:g}"


def _training(one: official.Configuration) -> str:
    order = "shuffled" if one.optimisation().order == "shuffled" else "in file order"
    return (
        f"learning rate {one.learning_rate:g}, halved after 5 epochs without improvement; batches of {one.batch_size},"
        f" {order}; {one.epochs} epochs, {one.updates:,} updates"
    )


def _plain(weight: official.Weight | None) -> Plain:
    if weight is None:
        return None
    return {"term": weight.term, "coded": weight.coded, "sum_form": weight.sum_form, "ours": weight.ours}


def _sum(first: str, *terms: tuple[float, str]) -> str:
    return "  +  ".join([first, *(f"{weight:g} · {term}" for weight, term in terms)])
