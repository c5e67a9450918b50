"""The code of the suite behind each piece of work, with random data of its size: to be counted, and to be timed."""

import contextlib
import functools
import io
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, assert_never

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from rae_bench import densities, evaluation, faces, features, objectives, specs, work
from rae_bench.autoencoder import build
from rae_bench.config import least_codes
from rae_bench.counting import Counted, counted
from rae_bench.densities.codes import Posteriors
from rae_bench.face_classifier import read_classes
from rae_bench.metrics import Reference, frechet, kernel, pairs
from rae_bench.metrics.prd import prd
from rae_bench.rng import numpy_generator, torch_generator
from rae_bench.training import computing_in


@dataclass(frozen=True)
class Prepared:
    """A piece of work ready to be done: `run` does it once; `held` are the tensors it needs beforehand."""

    run: Callable[[], object]
    held: tuple[Tensor, ...] = ()


@functools.cache
def count(piece: work.Work) -> Counted:
    """What `piece` costs; counted on less of it where cost goes in proportion."""
    match piece:
        case work.Pass():
            return _counted(piece, "meta")
        case work.Reading(batch=batch):
            few, more = 8, 16  # of one or two images the peak would be views of weights
            one, two = (_counted(replace(piece, batch=some), "cpu") for some in (few, more))
            growth = (two.peak_bytes - one.peak_bytes) / (more - few)
            return Counted(batch / few * one.flops, int(one.peak_bytes + (batch - few) * growth))
        case work.Density(density=specs.SplineFlow() | specs.FlowMatching() as network):
            return _network_density(piece, network.optimisation.batch_size)
        case work.Density(density=specs.SecondStage() | specs.DaiWipfSecondStage() as network):
            return _network_density(piece, network.optimisation.batch_size)
        case _:
            return Counted(work.host_flops(piece), 0)


def _network_density(piece: work.Density, batch: int) -> Counted:
    """Of an epoch, from epochs of few updates; of samples and log densities, from few of them."""
    few, more, least = 16, 32, _least(piece)
    one, two = (_counted(replace(piece, points=least, codes=codes), "cpu") for codes in (few, more))
    each = (two.flops - one.flops) / (more - few)
    update = (one.flops - few * each) / (least // batch)
    updates = piece.points // batch if piece.what == "fit" else 0
    return Counted(updates * update + piece.codes * each + work.host_flops(piece), one.peak_bytes)


def _counted(piece: work.Work, device: str) -> Counted:
    ready = prepare(piece, device)
    return counted(ready.run, ready.held)


@functools.cache
def n_features(piece: work.Reading) -> int:
    """How many features `piece` gives of an image."""
    features: npt.NDArray[np.float32] = prepare(replace(piece, batch=1), "cpu").run()  # type: ignore[assignment]
    return int(features.shape[1])


def prepare(piece: work.Work, device: str) -> Prepared:
    """The code of the suite that does `piece`, with random data of its size: on `device`, if it runs there at all.

    Raises:
        FeatureError: the weights of a frozen network are missing.
    """
    match piece:
        case work.Pass():
            return _pass(piece, device)
        case work.Reading():
            return _reading(piece, device)
        case work.Density():
            return Prepared(_density(piece))
        case work.Iterations():
            return Prepared(_iterations(piece))
        case work.Metric():
            return Prepared(_metric(piece))
        case work.Pca(n=n, m=m, pixels=pixels, components=components):
            train, images = (_bytes(count, pixels) for count in (n, m))
            return Prepared(lambda: evaluation.pca_squared_error(train, images, components, seed=0))
        case work.Images(what="render", n=n, size=size):
            factors = faces.draw_factors(n, _random())
            return Prepared(lambda: faces.render(factors, size))
        case work.Images(n=n, channels=channels, size=size):
            one, two = _bytes(2, n, channels, size, size)
            return Prepared(lambda: evaluation.ssim(one, two))
        case work.Start(modules=modules):
            # as a stage does, and as `rae_bench.__main__` ends
            said = f"import os; from rae_bench import loads; loads.load({modules!r}); os._exit(0)"
            command = [sys.executable, "-c", said]
            return Prepared(lambda: subprocess.run(command, check=True, capture_output=True))
        case _:
            assert_never(piece)


def _random() -> np.random.Generator:
    return numpy_generator(0, "forecast")


def _bytes(*shape: int) -> npt.NDArray[np.uint8]:
    return _random().integers(256, size=shape, dtype=np.uint8)


def _normal(*shape: int) -> npt.NDArray[np.float32]:
    return _random().standard_normal(shape, dtype=np.float32)


def _pass(piece: work.Pass, device: str) -> Prepared:
    network, objective = piece.network, piece.objective
    with torch.device("meta") if device == "meta" else contextlib.nullcontext():
        model = build(network, objective, seed=0).to(device)
    if isinstance(network, specs.ConvolutionalNetwork):
        shape: tuple[int, ...] = (network.channels, network.size, network.size)
    else:
        shape = (network.input_dim,)
    x = torch.rand((piece.batch, *shape), device=device)
    z = torch.rand((piece.batch, network.latent_dim), device=device)
    generator = torch_generator(0, "forecast")
    held = (*model.parameters(), *model.buffers(), x, z)

    def loss() -> objectives.Loss:
        # "meta" knows no lower precision: FLOPs are the same, and memory is then a bound
        with computing_in(piece.precision if device != "meta" else "float32", model, device):
            return objectives.loss(model, x, objective, generator)

    if piece.what == "update":
        model.train()
        # Adam's own arithmetic is elementwise: nothing to count, and "meta" has no fused kernel
        optimiser = torch.optim.Adam(model.parameters(), fused=True) if device != "meta" else None

        def update() -> None:
            model.zero_grad(set_to_none=True)
            loss().total.backward()  # type: ignore[no-untyped-call]
            if optimiser is not None:
                optimiser.step()

        return Prepared(update, held)
    model.eval()
    forward: dict[str, Callable[[], object]] = {
        "loss": loss,
        "encode": lambda: model.encode(x),
        "decode": lambda: model.decode(z),
    }
    return Prepared(torch.no_grad()(forward[piece.what]), held)


@functools.cache
def parameter_bytes(network: specs.Network, objective: specs.Objective) -> int:
    """The bytes of a model's weights, batch norm's statistics included."""
    with torch.device("meta"):
        model = build(network, objective, seed=0)
    return sum(value.numel() * value.element_size() for value in model.state_dict().values())


@functools.cache
def state_bytes(piece: work.Density) -> int:
    """The bytes of a fitted density."""
    return sum(array.nbytes for array in fitted(piece).state().values())


@functools.cache
def resident_bytes(modules: tuple[str, ...]) -> int:
    """The memory of a process that has imported `modules` and done nothing, measured on this machine."""
    # of the process itself (Linux): its parent's peak counts in getrusage's
    code = f"""import resource, {", ".join(modules)}
try:
    print(int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]))
except OSError:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"""
    found = subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, capture_output=True, text=True)
    return 1024 * int(found.stdout)


def _reading(piece: work.Reading, device: str) -> Prepared:
    images = _bytes(piece.batch, piece.channels, piece.size, piece.size)
    if piece.extractor == "face_classifier":
        faces_model = features.load_face_classifier()
        return Prepared(lambda: read_classes(faces_model, images))
    if piece.extractor in ("inception_v3_compat", "dinov2_vit_l_14"):
        read = _without_weights(piece.extractor).to(device)
        colour = torch.from_numpy(images).expand(-1, 3, -1, -1).contiguous()
        return Prepared(torch.no_grad()(lambda: read(colour.to(device)).cpu().numpy()), tuple(read.parameters()))
    extractor = features.load_extractor(piece.extractor, device)
    return Prepared(lambda: extractor(images))


class _Inception(nn.Module):
    """torch-fidelity's network for FID, with random weights."""

    def __init__(self) -> None:
        super().__init__()
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        class Unweighted(FeatureExtractorInceptionV3):  # type: ignore[misc]
            def load_state_dict(self, *_: object) -> None:
                """Its constructor insists on loading a file."""

        nothing = io.BytesIO()
        torch.save({}, nothing)
        nothing.seek(0)
        self.network = Unweighted("inception-v3-compat", ["2048"], feature_extractor_weights_path=nothing)

    def forward(self, images: Tensor) -> Tensor:
        pooled: Tensor = self.network(images)[0]
        return pooled


class _Transformer(nn.Module):
    """DINOv2's layout, torchvision's vision transformer of its sizes, with random weights.

    24 layers of 1,024, 16 heads, patches of 14 of 224 pixels. Never in evaluation mode, in which attention is one
    operation that nothing is seen of; without dropout both are the same.
    """

    def __init__(self) -> None:
        super().__init__()
        from torchvision.models import VisionTransformer

        self.network = VisionTransformer(224, 14, num_layers=24, num_heads=16, hidden_dim=1024, mlp_dim=4096)
        self.network.heads = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        large = nn.functional.interpolate(images.float() / 255, size=(224, 224))
        with nn.attention.sdpa_kernel(nn.attention.SDPBackend.MATH):  # products that are seen
            token: Tensor = self.network(large)
        return token


@functools.cache
def _without_weights(name: Literal["inception_v3_compat", "dinov2_vit_l_14"]) -> nn.Module:
    """The network of an extractor: its cost is known before its files are there."""
    return _Inception() if name == "inception_v3_compat" else _Transformer()


def fitted(piece: work.Density) -> densities.FittedDensity:
    """The density of `piece` after a short fit: its cost in use, and its size, are those of a long one."""
    spec, points = _short(piece.density), _least(piece)
    if isinstance(spec, (specs.KernelDensity, specs.AggregatePosterior)):
        points = piece.points  # which it keeps
    if isinstance(spec, specs.KernelDensity):
        spec = replace(spec, bandwidths=spec.bandwidths[:1])
    return densities.fit(spec, _posteriors(points, piece.d), _posteriors(2, piece.d), 0)


def _least(piece: work.Density) -> int:
    return least_codes(piece.density, piece.d)[0]


def _short(density: specs.Density) -> specs.Density:
    match density:
        case specs.SplineFlow() | specs.FlowMatching() | specs.SecondStage() | specs.DaiWipfSecondStage():
            return replace(density, optimisation=replace(density.optimisation, epochs=1))
        case specs.GaussianMixture() | specs.DirichletMixture():
            return replace(density, tolerance=sys.float_info.max)  # two iterations: the first has nothing to compare
        case _:
            return density


def _posteriors(n: int, d: int) -> Posteriors:
    return Posteriors(_normal(n, d), np.zeros((n, d), dtype=np.float32))


def _density(piece: work.Density) -> Callable[[], object]:
    match piece.what:
        case "fit":
            spec = _short(piece.density)
            train, validation = _posteriors(piece.points, piece.d), _posteriors(piece.codes, piece.d)
            return lambda: densities.fit(spec, train, validation, 0)
        case "draw":
            density, rng = fitted(piece), _random()
            return lambda: density.sample(piece.codes, rng)
        case "judge":
            density, codes = fitted(piece), _normal(piece.codes, piece.d)
            return lambda: density.log_density(codes)
        case _:
            assert_never(piece.what)


def _iterations(piece: work.Iterations) -> Callable[[], object]:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import BayesianGaussianMixture, GaussianMixture

    kind = GaussianMixture if piece.kind == "mixture" else BayesianGaussianMixture
    mixture = kind(n_components=piece.n_components, max_iter=work.EM_AT_ONCE, tol=0.0, warm_start=True, random_state=0)
    codes = _normal(piece.points, piece.d)

    def iterate() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # it is stopped on purpose
            mixture.fit(codes)

    iterate()  # starts by k-means; the next calls carry on
    return iterate


def _metric(piece: work.Metric) -> Callable[[], object]:
    settings = piece.settings
    neighbours = max(settings.neighbours, settings.coverage_neighbours)
    real, fake = _normal(piece.n, piece.d), _normal(piece.m, piece.d) + 0.1
    if piece.what in ("reference", "moments"):
        return lambda: Reference.of(real, neighbours if piece.what == "reference" else 0)
    reference = Reference.of(real, neighbours)
    calls: dict[work.MetricName, Callable[[], object]] = {
        "frechet": lambda: frechet.frechet_distance(reference, fake),
        "fid": lambda: frechet.fid(reference, fake),
        "half_samples": lambda: frechet.half_sample_sd(reference, fake, settings.half_samples, settings.seed),
        "infinity": lambda: frechet.frechet_infinity(real, fake, settings.infinity_sizes, settings.seed),
        "kernel": lambda: kernel.kernel_distance(reference, fake, settings),
        "pairs": lambda: pairs.pair_metrics(reference, fake, settings),
        "prd": lambda: prd(reference, fake, settings),
        "nearest": lambda: pairs.nearest_distances(fake, real),
    }
    return calls[piece.what]
