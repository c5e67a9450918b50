"""Every loss the suite can train on: autograd against central differences, float64, through the real networks.

What is walked is read from the vocabulary: the objectives of every study's trainings, those that a setting of
`settings.yaml` makes when it is switched on alone, those inside densities, and the losses that densities' networks are
trained on. A term, setting or density that is added later is walked because it is there.
"""

import contextlib
import dataclasses
import functools
import itertools
import typing

import numpy as np
import pytest
import small
import torch
import yaml
from planted import every_density
from pydantic import NonNegativeFloat

from rae_bench.base import rng
from rae_bench.base.plain import kinds, to_json
from rae_bench.base.specs import Compute
from rae_bench.densities import catalogue as densities
from rae_bench.densities import learning, second_stage
from rae_bench.densities.codes import Posteriors
from rae_bench.densities.specs import Density
from rae_bench.models import autoencoder, networks, objectives, training
from rae_bench.models.layouts import catalogue as layouts
from rae_bench.models.layouts.specs import ConvolutionalNetwork, DenseNetwork, ResidualNetwork
from rae_bench.models.terms import regularisers
from rae_bench.models.terms.latent import kl_by_dimension
from rae_bench.models.terms.specs import Bernoulli, FreeBits, GradientPenalty, OfEncoding, SpectralNorm
from rae_bench.run import process
from rae_bench.study import config, vocabulary

STEP, WORST, ENTRIES = 3e-7, 1e-5, 2
"""The step of a central difference; a gradient's largest relative error; how many entries of a parameter are moved."""
FLOOR = 1e-2
"""The share of a loss's value against which smaller gradients are held. The gradient of a bias before batch norm is
zero, and its difference nothing but the rounding of the loss, divided by the step: seen up to 2e-14 of a loss (a KL of
655 nats, and fourth powers of codes), which is 3e-8 of it in the difference."""
BATCH, CODES = 4, 3
SEEDS = {"sphere": 4, "orthogonal_first_layer": 4}
"""The images' where it is not 1: there a ReLU of these decoders is some 1e-8 from its kink, and no step clears it."""

IMAGES = {
    **{
        f"{size}x{size}, kernel {kernel}": small.images(channels, size, kernel, latent_dim=CODES, start_width=4)
        for size, kernel, channels in ((32, 4, 1), (64, 5, 3))
    },
    "residual": small.residual(channels=3, size=16, groups=2, latent_dim=CODES),
    "dense images": small.dense_images(size=16, latent_dim=CODES),
    "transformer": small.transformer(channels=3, size=16, patch=4, width=4, depth=1, latent_dim=CODES),
}
VECTORS = small.vectors(latent_dim=CODES)
NORMS = (torch.nn.BatchNorm2d, torch.nn.GroupNorm, torch.nn.LayerNorm)


def unweighted(objective):
    """The objective with weights of 1, in which no term hides behind another.

    A prior has three components: of a hundred pseudo-inputs some ReLU always has its kink within a step. A codebook has
    three entries of one dimension, which divides that of codes.
    """
    changed = {"weight": 1.0, "n_components": 3, "n_entries": 3, "length": 1}
    terms = {
        name: dataclasses.replace(term, **{key: value for key, value in changed.items() if hasattr(term, key)})
        for name, term in vars(objective).items()
    }
    return dataclasses.replace(objective, **terms)


def choices(hint):
    """The words that a field may have; of a number that may be 0, that and another."""
    if hint == NonNegativeFloat:
        return 0.0, 0.1
    return typing.get_args(hint) if typing.get_origin(hint) is typing.Literal else ()


def switched(found):
    """For each choice of a latent or reconstruction term's field that no objective found has, one that has it."""
    terms = [(one, part, getattr(one, part)) for one in found for part in ("latent", "reconstruction")]
    there = {(type(term), field, getattr(term, field)) for _, _, term in terms for field in vars(term)}
    for objective, part, term in terms:
        for field, hint in typing.get_type_hints(type(term), include_extras=True).items():
            for word in choices(hint):
                if (type(term), field, word) not in there:
                    there.add((type(term), field, word))
                    yield dataclasses.replace(objective, **{part: dataclasses.replace(term, **{field: word})})


@functools.cache
def walked():
    """Every objective there is, by a name: of the models, of the studies, of each setting alone, of densities."""
    words = vocabulary.read(config.CONFIG)
    found = [
        words.objective(name, like, words.datasets["digits"])
        for name, one in words.models.items()
        for like in one.weights or [""]
    ]
    found += [words.objective("vae", one.weights, one) for one in words.datasets.values()]
    found += list(switched(found))
    found += [spec.objective for name in config.study_names() for spec in config.load_study(name).trainings.values()]
    embedded = config.load_study("embedded")
    settings = yaml.safe_load((config.CONFIG / "settings.yaml").read_text())
    for name, setting in settings.items():
        if any("objective" in patch["set"] for patch in setting["patches"]):
            file = dataclasses.replace(embedded.file, protocol="clean", switches={name: True})
            found += [spec.objective for spec in config.resolve_study("embedded", file).trainings.values()]
    found += [fit.density.objective for fit in embedded.fits.values() if hasattr(fit.density, "objective")]
    different = {to_json(objective): objective for objective in map(unweighted, found)}
    return {
        "-".join([str(number), *(getattr(objective, part).kind for part in small.UNIONS)]): objective
        for number, objective in enumerate(different.values())
    }


def is_walkable(objective, network):
    """Only what a model can be: L2 of convolutions alone is of networks with some, cross-entropy of images."""
    if getattr(objective.regulariser, "scope", "") == "convolutions":
        return isinstance(network, ConvolutionalNetwork | ResidualNetwork)
    return not (isinstance(objective.reconstruction, Bernoulli) and isinstance(network, DenseNetwork))


@contextlib.contextmanager
def float64():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


class Point:
    """A model, a batch and its noise: `terms()` is a plain function of the codes' shift and of every parameter."""

    def __init__(self, network, objective, is_training=True):
        self.objective = objective
        self.model = autoencoder.build(network, objective, seed=0).double()
        named = (objective.posterior.kind, objective.regulariser.kind)
        generator = torch.Generator().manual_seed(max(SEEDS.get(kind, 1) for kind in named))
        is_vector = isinstance(network, DenseNetwork)
        shape = (BATCH, 7) if is_vector else (BATCH, network.channels, network.size, network.size)
        self.x = torch.rand(shape, generator=generator)
        for norm in self.model.modules():
            if isinstance(norm, NORMS):  # anything but 1 and 0, which hide factors
                torch.nn.init.uniform_(norm.weight, 0.5, 1.5, generator=generator)
                torch.nn.init.normal_(norm.bias, 0, 0.2, generator=generator)
            if isinstance(norm, torch.nn.BatchNorm2d):
                torch.nn.init.normal_(norm.running_mean, 0, 0.1, generator=generator)
                torch.nn.init.uniform_(norm.running_var, 0.5, 1.5, generator=generator)
        self.model.train(is_training)
        if self.model.updates is not None:  # halfway up to the capacity
            self.model.updates.fill_(objective.latent.updates // 2)
        if isinstance(objective.latent, FreeBits):  # dimensions on both sides of the floor
            with torch.no_grad():
                least, middle, _ = kl_by_dimension(self.model.encode(self.x)).mean(dim=0).sort().values.tolist()
            term = dataclasses.replace(objective.latent, floor=(least + middle) / 2)
            self.objective = dataclasses.replace(objective, latent=term)
        self.shift = torch.zeros(BATCH, CODES, requires_grad=True)
        # of images; the codes of pseudo-inputs are as they are
        self.model.mean.register_forward_hook(lambda _, __, mean: mean + self.shift if len(mean) == BATCH else mean)
        self.state = {name: value.clone() for name, value in self.model.named_buffers()}

    def terms(self):
        """The four terms, from the buffers as they were: a pass in training mode moves some."""
        with torch.no_grad():
            for name, buffer in self.model.named_buffers():
                buffer.copy_(self.state[name])
        return torch.stack(objectives.loss(self.model, self.x, self.objective, torch.Generator().manual_seed(2)))

    def hold_singular_vectors(self):
        """From now on the vectors of spectral norms are those that this pass ends with, and do not move."""
        self.terms()
        self.state = {name: value.clone() for name, value in self.model.named_buffers()}
        for module in self.model.modules():
            if type(module).__name__ == "_SpectralNorm":  # PyTorch's and ours
                module.eval()
                if hasattr(module, "spec"):
                    module.spec = dataclasses.replace(module.spec, evaluation="fixed")

    def hold_entries(self):
        """From now on codes keep their distance to E(x), as their gradient says, and commit to entries of this pass."""
        seen = []
        hook = self.model.codebook.register_forward_hook(lambda _, given, found: seen.append((given[0], found[0])))
        self.terms()
        hook.remove()
        ((continuous, code),) = ([one.detach() for one in pair] for pair in seen)
        self.model.codebook.forward = lambda z: (z + (code - continuous), (z - code).square().sum(dim=1))

    def hold_constants(self):
        """From now on what gradients take for constant on purpose is so; expected are then the gradients of the rest.

        The singular vectors of PyTorch's spectral norm (Miyato et al. 2018): that of W / (uᵀ W v). The entries of a
        codebook, and what a code is moved by to come there (van den Oord et al. 2017).
        """
        if getattr(self.objective.regulariser, "vectors", "") == "constant":
            self.hold_singular_vectors()
        if self.model.codebook is not None:
            self.hold_entries()

    def tensors(self):
        return {"z": self.shift, **dict(self.model.named_parameters())}


def central_difference(values, tensor, along, step):
    """(f(w + step · along) − f(w − step · along)) / (2 step), w the entries of `tensor`; (k,)."""
    kept, sides = tensor.data.clone(), []
    for sign in (1, -1):
        tensor.data.copy_(kept + sign * step * along)
        sides.append(values().detach())
    tensor.data.copy_(kept)
    return (sides[0] - sides[1]) / (2 * step)


def error(values, tensor, gradients, floors, index):
    """The relative error of the gradients (k,) at one entry of `tensor`; None where the loss has none there.

    Where it is large two steps of the difference must agree: else a ReLU has its kink between them.
    """
    along = torch.zeros(tensor.numel())
    along[index] = 1
    along = along.reshape(tensor.shape)

    def relative(to, of):
        return ((to - of).abs() / torch.maximum(of.abs(), floors)).max().item()

    expected = central_difference(values, tensor, along, STEP)
    found = relative(torch.stack([(gradient * along).sum() for gradient in gradients]), expected)
    if found > WORST and relative(central_difference(values, tensor, along, STEP / 2), expected) > WORST:
        return None
    return found


def errors(terms, tensors, before_differences=lambda: None):
    """The largest relative error of the gradients of all terms, by tensor."""
    values = terms()
    floors = FLOOR * values.detach().abs().clamp_min(1)
    gradients = [
        torch.autograd.grad(value, list(tensors.values()), retain_graph=True, allow_unused=True, materialize_grads=True)
        if value.requires_grad
        else [torch.zeros_like(tensor) for tensor in tensors.values()]
        for value in values
    ]
    before_differences()
    generator, worst = np.random.default_rng(0), {}
    for name, tensor, *ours in zip(tensors, tensors.values(), *gradients, strict=True):
        entries = generator.permutation(tensor.numel())
        found = (error(terms, tensor, ours, floors, index) for index in entries)
        worst[name] = max(itertools.islice((one for one in found if one is not None), ENTRIES))
    return worst


def check(worst):
    wrong = {place: f"{error:.1e}" for place, error in worst.items() if not error < WORST}
    assert not wrong, wrong


# --- autoencoders -----------------------------------------------------------------------------------------


def test_every_term_that_a_spec_knows_is_walked():
    for part, union in small.UNIONS.items():
        known = set(kinds(union).values())
        assert {type(getattr(objective, part)) for objective in walked().values()} == known
    norms = [one.regulariser for one in walked().values() if isinstance(one.regulariser, SpectralNorm)]
    assert {norm.is_pytorchs for norm in norms} == {True, False}
    assert {norm.vectors for norm in norms} == {"constant", "differentiated"}


def walks():
    """Every objective on the paper's network and on vectors; on all networks each that asks them something else.

    A regulariser differentiates or changes a decoder, some latent terms an encoder. All others see codes alone.
    """
    seen = set()
    for name, objective in walked().items():
        latent = objective.latent if isinstance(objective.latent, OfEncoding) else None
        is_new = (objective.regulariser, latent) not in seen
        seen.add((objective.regulariser, latent))
        for network in [*IMAGES, "vectors"] if is_new else [next(iter(IMAGES)), "vectors"]:
            if is_walkable(objective, IMAGES.get(network, VECTORS)):
                yield name, network


@pytest.mark.parametrize(("name", "network"), list(walks()))
def test_the_gradient_of_a_loss_in_training_mode_is_that_of_differences(name, network):
    with float64():
        point = Point(IMAGES.get(network, VECTORS), walked()[name])
        check(errors(point.terms, point.tensors(), point.hold_constants))


PENALISED = [name for name, one in walked().items() if one.regulariser.kind in ("gradient_penalty", "output_gradient")]


@pytest.mark.parametrize("name", PENALISED)
@pytest.mark.parametrize("network", IMAGES)
def test_the_gradient_of_a_penalty_in_evaluation_mode_is_that_of_differences(name, network):
    with float64():
        point = Point(IMAGES[network], walked()[name], is_training=False)
        check(errors(point.terms, point.tensors()))


# --- RAE-GP at the widths of digits -----------------------------------------------------------------------


def digits(kernel):
    spec = config.load_study("digits").training("digits", "rae_gp")
    return dataclasses.replace(spec.network, kernel=kernel), unweighted(spec.objective)


@pytest.mark.parametrize("kernel", [4, 5])
def test_the_penalty_follows_its_own_gradient_at_the_widths_of_digits(kernel):
    """Every entry at once: the gradient along one random direction of all tensors, against a difference along it."""
    network, objective = digits(kernel)
    with float64():
        decoder = layouts.decoder(network).double().train()
        torch.manual_seed(0)
        networks.initialise(decoder)
        z, u = torch.randn(20, 16, requires_grad=True), torch.randn(20, 16)
        tensors = [z, *decoder.parameters()]

        def penalty():
            return regularisers.decode(decoder, z, objective.regulariser, {"direction": u})[1]

        gradients = torch.autograd.grad(penalty(), tensors, allow_unused=True, materialize_grads=True)
        floor = 1e-5 * max(1, penalty().item())
        for tensor, gradient in zip(tensors, gradients, strict=True):
            along = torch.randn_like(tensor)
            along /= along.norm()
            expected = central_difference(penalty, tensor, along, STEP).item()
            assert (gradient * along).sum().item() == pytest.approx(expected, rel=WORST, abs=floor)


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 5e-3), ("bfloat16", 0.15)])
@pytest.mark.parametrize("kernel", [4, 5])
def test_the_gradient_of_rae_gp_in_a_lower_precision_is_that_of_float64(precision, tolerance, kernel):
    """All parameters' gradients are one vector. Seen: 7e-4 and 0.066, mostly of ReLUs that rounding turns over."""
    assert relative_error_of_gradient(*digits(kernel), precision, "cpu") < tolerance


@pytest.mark.gpu
@pytest.mark.parametrize("kernel", [4, 5])
def test_the_gradient_of_rae_gp_in_tf32_is_that_of_float64(kernel):
    process.configure_torch(Compute("cuda", 1, tf32=True, precision="float32"))
    assert relative_error_of_gradient(*digits(kernel), "float32", "cuda") < 2e-2


def relative_error_of_gradient(network, objective, precision, device):
    x = torch.rand((50, 1, 32, 32), generator=torch.Generator().manual_seed(0))
    normal, found = rng.normal, []
    for dtype, name, where in ((torch.float64, "float32", "cpu"), (torch.float32, precision, device)):
        model = autoencoder.build(network, objective, seed=0).to(where, dtype).train()
        with pytest.MonkeyPatch.context() as patch, training.computing_in(name, model, where):
            patch.setattr(
                rng, "normal", lambda *drawn, dtype=dtype: normal(*drawn).to(dtype)
            )  # the same noise for both
            loss = objectives.loss(model, x.to(where, dtype), objective, torch.Generator().manual_seed(1))
        loss.total.backward()
        found.append(torch.cat([parameter.grad.double().cpu().flatten() for parameter in model.parameters()]))
    return ((found[1] - found[0]).norm() / found[0].norm()).item()


@pytest.mark.slow
def test_rae_gp_lowers_its_penalty_below_that_of_rae_and_of_the_wrong_gradient(digits, monkeypatch):
    """Real digits, at weights of the study before; the wrong gradient is that of torch's own rule for batch norm."""
    spec = config.load_study("digits").training("digits", "rae_gp")
    images = {split: torch.from_numpy(digits.images[digits.splits[split]]) for split in ("train", "validation")}

    def penalty_after_training(regulariser):
        objective = dataclasses.replace(spec.objective, regulariser=regulariser)
        optimisation = dataclasses.replace(spec.optimisation, epochs=3)
        made = dataclasses.replace(spec, objective=objective, optimisation=optimisation)
        trained = training.train(made, *images.values(), seed=0).model
        z = torch.from_numpy(training.encode(trained, images["validation"])["mean"])
        axes = torch.eye(z.shape[1])
        derivatives = (torch.func.jvp(trained.decoder, (z,), (axis.expand_as(z),))[1] for axis in axes)
        with torch.no_grad():
            return sum(derivative.square().sum().item() for derivative in derivatives) / len(z)

    penalty = GradientPenalty(kind="gradient_penalty", weight=1e-2)
    without, right = penalty_after_training(small.NO_REGULARISER), penalty_after_training(penalty)
    monkeypatch.setattr(networks.BatchNorm, "forward", lambda norm, x: torch.nn.BatchNorm2d.forward(norm, x))
    wrong = penalty_after_training(penalty)
    assert right < 0.8 * wrong
    assert wrong < without


# --- batch norm while a forward derivative is taken ---------------------------------------------------------


@pytest.mark.parametrize("is_training", [True, False], ids=["training", "evaluation"])
def test_batch_norm_gives_and_learns_the_same_with_a_forward_derivative(is_training):
    """Images, running moments and the count of batches are torch's, and move once a pass."""
    network = IMAGES["32x32, kernel 4"]
    with float64():
        decoders = [layouts.decoder(network).double() for _ in range(2)]
        decoders[1].load_state_dict(decoders[0].state_dict())
        z = torch.randn(5, CODES)
        for decoder in decoders:
            decoder.train()(torch.randn(8, CODES, generator=torch.Generator().manual_seed(0)))
            decoder.train(is_training)
        plain = decoders[0](z)
        x_hat, _ = regularisers.decode(
            decoders[1], z, GradientPenalty(kind="gradient_penalty", weight=1.0), {"direction": z}
        )
        torch.testing.assert_close(x_hat, plain, rtol=1e-12, atol=0)
        for (name, with_it), without in zip(decoders[1].named_buffers(), decoders[0].buffers(), strict=True):
            torch.testing.assert_close(with_it, without, rtol=1e-12, atol=1e-15, msg=name)
            assert not with_it.requires_grad


# --- densities --------------------------------------------------------------------------------------------


class CapturedError(Exception):
    """What a density's network learns, caught as training begins."""

    def __init__(self, task, _, data, *__):
        self.task, self.batch = task, data[:BATCH].double().requires_grad_()


NETWORKS = {name: spec for name, spec in every_density().items() if hasattr(spec, "optimisation")}


def captured(*arguments):
    raise CapturedError(*arguments)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_gradient_of_a_densitys_loss_is_that_of_differences(name, monkeypatch):
    """Of flows and second stages, whose terms all add to what is minimised, their last; and of indices of entries."""
    spec = dataclasses.replace(NETWORKS[name], width=6)
    for module in (learning, second_stage):
        monkeypatch.setattr(module, "optimise", captured)
    codes = np.random.default_rng(0).standard_normal((spec.optimisation.batch_size, CODES)).astype(np.float32)
    posteriors = Posteriors(codes, np.full_like(codes, -1))
    with pytest.raises(CapturedError) as caught:
        densities.fit(spec, posteriors, posteriors, 0, codebook=codes[:5, :1])
    task, batch = caught.value.task, caught.value.batch
    with float64():
        task.model.double().train()
        for parameter in task.model.parameters():  # a network that starts as the identity has gradients of zero
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3))

        def terms():
            return torch.stack(task.loss(batch, torch.Generator().manual_seed(1)))

        check(errors(terms, {"z": batch, **dict(task.model.named_parameters())}))


def test_every_density_whose_network_is_trained_is_walked():
    trained = {kind for kind in kinds(Density).values() if "optimisation" in typing.get_type_hints(kind)}
    assert {type(spec) for spec in NETWORKS.values()} == trained
