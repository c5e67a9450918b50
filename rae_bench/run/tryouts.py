"""Code of a user's own, tried on two batches before anything is trained.

Each function raises OwnCodeError, one line that names the code, what was expected and what came. What `ForeignModel`
and `FittedOwn` check at every call (shapes, types, devices) is not said here again.
"""

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from rae_bench.base.own import OwnCode, OwnCodeError, explained
from rae_bench.base.rng import derive, numpy_generator, torch_generator
from rae_bench.densities import catalogue as densities
from rae_bench.densities.codes import Posteriors
from rae_bench.densities.specs import OwnDensity
from rae_bench.models.autoencoder import Model
from rae_bench.models.catalogue import build
from rae_bench.models.layouts.specs import OwnModel, OwnNetworks, TrainedElsewhere
from rae_bench.models.networks import placed
from rae_bench.models.specs import TrainingSpec
from rae_bench.models.terms.specs import GradientPenalty
from rae_bench.models.training import as_input, learning
from rae_bench.scoring.generation import Images
from rae_bench.scoring.own import measured
from rae_bench.scoring.specs import OwnMeasure

RANGE = 1e-3
"""How far a decoded image may leave [0, 1]."""
CLOSE = 1e-4
"""How much an answer may differ, relative to the largest, that should not: rounding of another batch."""
STEP, SLOPES = 1e-9, 1e-3
"""The step of a central difference in double precision, so short that no unit of a ReLU changes its side (a derivative
of the decoder jumps there); and how far from it a gradient may be, a share of it."""
MOST_IMAGES = 64
"""Images of each of the two batches at most."""
FEATURES = 16
"""Features of each image for a metric."""
CODES = 2000
"""Codes that a density is tried on."""


def try_training(spec: TrainingSpec, images: Tensor) -> None:
    """Try a user's model or networks on two batches of `images` (n, C, H, W), uint8, on the device that computes."""
    network = spec.network
    assert isinstance(network, OwnModel | OwnNetworks | TrainedElsewhere)
    with explained(network.code, "a try on two batches"):
        _try_training(spec, network.code, as_input(images))


def _try_training(spec: TrainingSpec, code: OwnCode, x: Tensor) -> None:
    network, place = spec.network, code.place
    model, again, other = (placed(build(network, spec.objective, seed), x.device.type) for seed in (0, 0, 1))
    _same_state(code, model, again)
    if network.is_optimised:
        _try_loss(code, spec, model, x)
    codes = try_coding(code, model, x)
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        if not _close(codes, other.eval().encode(x).mean):
            raise OwnCodeError(
                f"{place}: a model made anew with the saved state gives other codes; keep all in the state"
            )


def try_coding(code: OwnCode, model: Model, x: Tensor) -> Tensor:
    """Try a model that codes and decodes images x (B, C, H, W) in [0, 1]; the codes (B, d) that it gives them."""
    model.eval()
    with torch.no_grad(), _left_alone(code, "encode or decode", x):
        codes, alone = model.encode(x).mean, model.encode(x[:1]).mean
        if not _close(codes[:1], alone):
            raise OwnCodeError(
                f"{code.place}: the code of an image depends on the others of its batch in evaluation mode"
            )
    if not torch.isfinite(codes).all():
        raise OwnCodeError(f"{code.place}: encode gives numbers that are not finite")
    try_decoding(code, model, codes)
    return codes


def try_decoding(code: OwnCode, model: Model, codes: Tensor) -> None:
    """Try a model that decodes codes (B, d)."""
    with torch.no_grad(), _left_alone(code, "encode or decode"):
        x_hat = model.eval().decode(codes)
    if not torch.isfinite(x_hat).all():
        raise OwnCodeError(f"{code.place}: decode gives numbers that are not finite")
    low, high = float(x_hat.min()), float(x_hat.max())
    if low < -RANGE or high > 1 + RANGE:
        raise OwnCodeError(f"{code.place}: decode gives values from {low:.3g} to {high:.3g}; expected images in [0, 1]")


def _same_state(code: OwnCode, model: Model, again: Model) -> None:
    one, two = model.state_dict(), again.state_dict()
    differ = [name for name, value in one.items() if name not in two or not torch.equal(value, two[name])]
    if differ or len(one) != len(two):
        raise OwnCodeError(f"{code.place}: two models of one seed differ in {[*differ, *(set(two) - set(one))][0]!r}")


def _try_loss(code: OwnCode, spec: TrainingSpec, model: Model, x: Tensor) -> None:
    """Loss and gradients of two batches in training mode."""
    task = learning(spec, model.train())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    half = len(x) // 2
    for batch in (x[:half], x[half:]):
        with _left_alone(code, "loss", batch):
            terms = task.loss(batch, torch_generator(0, "tryout"))
        _finite(code, dict(zip(task.terms, terms, strict=True)))
    model.load_state_dict(before)
    again = task.loss(x[:half], torch_generator(0, "tryout"))
    model.load_state_dict(before)
    once_more = task.loss(x[:half], torch_generator(0, "tryout"))
    for name, one, two in zip(task.terms, again, once_more, strict=True):
        if not torch.equal(one, two):
            raise OwnCodeError(f"{code.place}: loss: {name!r} differs between two calls with the same generator")
    if not once_more[-1].requires_grad:
        raise OwnCodeError(f"{code.place}: loss: 'total' has no gradient; it must be made of the model's parameters")
    model.zero_grad(set_to_none=True)
    once_more[-1].backward()  # type: ignore[no-untyped-call]
    for name, parameter in model.named_parameters():
        name = name.removeprefix("inner.")
        if parameter.requires_grad and parameter.grad is None:
            raise OwnCodeError(f"{code.place}: no gradient reaches {name!r}; use it in the loss, or freeze it")
        if parameter.grad is not None and not torch.isfinite(parameter.grad).all():
            raise OwnCodeError(f"{code.place}: the gradient of {name!r} is not finite")
    model.zero_grad(set_to_none=True)
    if spec.objective is not None and isinstance(spec.regulariser, GradientPenalty):
        _check_slopes(code, spec, x[:half])
    model.load_state_dict(before)


def _check_slopes(code: OwnCode, spec: TrainingSpec, x: Tensor) -> None:
    """Hold the gradient of the whole loss against central differences, in double precision."""
    model = placed(build(spec.network, spec.objective, 0), x.device.type).double().train()
    task, x = learning(spec, model), x.double()
    state = {name: value.clone() for name, value in model.state_dict().items()}

    def total() -> Tensor:
        model.load_state_dict(state)  # running moments move
        return task.loss(x, torch_generator(0, "tryout"))[-1]

    parameters = {name: value for name, value in model.decoder.named_parameters() if value.requires_grad}  # type: ignore[union-attr]
    total().backward()  # type: ignore[no-untyped-call]
    for name, parameter in parameters.items():
        assert parameter.grad is not None
        direction = parameter.grad / parameter.grad.norm().clamp_min(1e-12)
        expected = float((parameter.grad * direction).sum())
        key, values = f"decoder.{name}", []
        kept = state[key].clone()
        for sign in (1, -1):
            state[key] = kept + sign * STEP * direction
            values.append(float(total().detach()))
        state[key] = kept
        slope = (values[0] - values[1]) / (2 * STEP)
        if abs(slope - expected) > SLOPES * max(abs(slope), abs(expected), 0.1):
            raise OwnCodeError(
                f"{code.place}: torch's gradient of the loss by {name!r} of the decoder is {expected:.6g}, and"
                f" {slope:.6g} by differences: under 'gradient_penalty' a layer's derivative is wrong"
            )


def _finite(code: OwnCode, terms: dict[str, Tensor]) -> None:
    for name, value in terms.items():
        if not torch.isfinite(value):
            raise OwnCodeError(f"{code.place}: loss: {name!r} is {float(value.detach())}; expected a finite number")


def _close(one: Tensor, two: Tensor) -> bool:
    return one.shape == two.shape and float((one - two).abs().max()) <= CLOSE * float(one.abs().max().clamp_min(1.0))


def try_density(spec: OwnDensity, latent_dim: int, seed: int) -> None:
    """Try a user's density on codes of `latent_dim` dimensions: fitted, saved, restored, sampled."""
    place = spec.code.place
    rng = numpy_generator(seed, "tryout", "codes")
    codes = rng.standard_normal((CODES, latent_dim)).astype(np.float32)
    train, validation = (Posteriors(part, None) for part in (codes[CODES // 4 :], codes[: CODES // 4]))
    with _left_alone(spec.code, "fit, sample or log_density"):
        one, two = (densities.fit(spec, train, validation, derive(seed, "tryout")) for _ in range(2))
        for name, array in one.state().items():
            if not np.array_equal(array, two.state()[name]):
                raise OwnCodeError(f"{place}: two fits of one seed differ in {name!r}; draw from the rng that is given")
        samples = one.sample(CODES, numpy_generator(seed, "tryout", "samples"))
        restored = densities.restore(spec, one.state())
        again = restored.sample(CODES, numpy_generator(seed, "tryout", "samples"))
        if not np.array_equal(samples, again):
            raise OwnCodeError(
                f"{place}: saved and read back it samples otherwise: what fit learns must be arrays in attributes that"
                " end in _, and sample must draw from the rng that is given"
            )
        one.log_likelihood(codes)
        restored.log_likelihood(codes)


def try_measure(measure: OwnMeasure, images: Images, seed: int) -> None:
    """Try a user's metric on two halves of `images` (2 n, C, H, W), with features drawn for them."""
    half = len(images) // 2
    real, fake = numpy_generator(seed, "tryout", "features").standard_normal((2, half, FEATURES))
    with _left_alone(measure.code, measure.code.name):
        found = [measured({"": measure}, real, fake, images[:half], images[half:])[""] for _ in range(2)]
    if found[0] != found[1]:
        raise OwnCodeError(f"{measure.code.place}: gives {found[0]!r}, then {found[1]!r} of the same images")


@contextlib.contextmanager
def _left_alone(code: OwnCode, doing: str, x: Tensor | None = None) -> Iterator[None]:
    """A scope that changes neither `x` nor a global generator of torch, NumPy or Python."""
    before = None if x is None else x.clone()
    states = torch.get_rng_state(), _numpy_state(), random.getstate()
    yield
    if x is not None and before is not None and not torch.equal(x, before):
        raise OwnCodeError(f"{code.place}: {doing} changes the images that it is given")
    moved = {
        "torch": not torch.equal(states[0], torch.get_rng_state()),
        "NumPy": states[1] != _numpy_state(),
        "Python": states[2] != random.getstate(),
    }
    for whose, has_moved in moved.items():
        if has_moved:
            raise OwnCodeError(f"{code.place}: {doing} draws from {whose}'s global generator, not from the one given")


def _numpy_state() -> str:
    return repr(np.random.get_state(legacy=False)["state"])
