"""What networks are made of and what is done to them: layers, first weights, spectral norm, a user's own networks.

Layers have the paper's conventions where Keras and torch differ (Glorot-uniform weights, zero biases), and derivatives
that are right where torch's are not. The families of networks are in `rae_bench.models.layouts`.
"""

import contextlib
import itertools
from collections.abc import Iterator
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn import functional
from torch.nn.utils import parametrizations, parametrize

from rae_bench.base import rng
from rae_bench.base.own import OwnCodeError, explained
from rae_bench.base.plain import ConfigError
from rae_bench.models.layouts.specs import (
    OwnNetworks,
)
from rae_bench.models.terms.specs import GradientPenalty, OrthogonalFirstLayer, Regulariser, SpectralNorm, WeightL2

MEMORY_ORDER = {"cpu": torch.channels_last, "cuda": torch.channels_last}
"""The memory order of images and of layers on each kind of device; another changes last digits: raise TRAIN_VERSION.

The CPU's is the faster one there. A GPU's has not been measured: in float32 without TF32 the other may be faster.
`benchmarks/gpu.py --ways ours plain` says so on the first one, and this is where it then stands.
"""
Placed = TypeVar("Placed", bound=nn.Module)


def placed(model: Placed, device: str) -> Placed:
    """The model on a device, in the order of memory for it."""
    return model.to(device=device, memory_format=MEMORY_ORDER[device])  # type: ignore[call-overload, no-any-return]


class CropLast(nn.Module):
    """Keras' "same" transposed convolution drops the last row and column; so does a map that was doubled too far."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, :-1, :-1]


def first_map(latent_dim: int, filters: int, side: int) -> list[nn.Module]:
    """A dense layer from codes (B, latent_dim) to the map that a decoder of convolutions starts from."""
    return [nn.Linear(latent_dim, filters * side**2), nn.Unflatten(1, (filters, side, side))]


def cropped(side: int, wanted: int) -> list[nn.Module]:
    """What takes a map of this side, once it is doubled, to the side that is wanted."""
    return [CropLast()] if wanted < 2 * side else []


class BatchNorm(nn.BatchNorm2d):
    """Batch norm that takes and gives bfloat16 where images are bfloat16, with statistics and arithmetic in float32.

    While a forward derivative is taken it is computed in elementary operations: torch's own rule for the forward
    derivative of batch norm holds the batch's moments constant where that derivative is differentiated once more, so
    that the gradient of ‖J u‖² comes out wrong for every layer up to the norm (docs/methods.md).
    """

    def forward(self, x: Tensor) -> Tensor:
        return self._elementary(widened(x)) if derives_forward() else super().forward(x)

    def _elementary(self, x: Tensor) -> Tensor:
        if self.training:
            variance, mean = torch.var_mean(x, dim=(0, 2, 3), correction=0)
            self._follow(mean, variance, x.numel() // x.shape[1])
        else:
            mean, variance = self.running_mean, self.running_var  # type: ignore[assignment]
        scale = self.weight * (variance + self.eps).rsqrt()
        # centred first: x * scale + (bias - mean * scale) would cancel where a mean is large beside its SD
        return (x - mean[:, None, None]) * scale[:, None, None] + self.bias[:, None, None]

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor, n: int) -> None:
        """Move the running moments as `nn.BatchNorm2d` does: the variance is that of a sample of `n`."""
        with forward_ad._set_fwd_grad_enabled(False):
            self.num_batches_tracked.add_(1)  # type: ignore[union-attr]
            self.running_mean.lerp_(mean, self.momentum)  # type: ignore[union-attr, arg-type]
            self.running_var.lerp_(variance * (n / (n - 1)), self.momentum)  # type: ignore[union-attr, arg-type]


class LayerNorm(nn.LayerNorm):
    """Layer norm with statistics and arithmetic in float32, elementary while a forward derivative is taken.

    torch's own rule holds the moments constant there, as that of batch norm does (see `BatchNorm`).
    """

    def forward(self, x: Tensor) -> Tensor:
        x = widened(x)
        if not derives_forward():
            return super().forward(x)
        dims = list(range(-len(self.normalized_shape), 0))
        variance, mean = torch.var_mean(x, dim=dims, correction=0, keepdim=True)
        normed = (x - mean) * (variance + self.eps).rsqrt()
        scaled = normed if self.weight is None else normed * self.weight
        return scaled if self.bias is None else scaled + self.bias


class GroupNorm(nn.GroupNorm):
    """Group norm with statistics and arithmetic in float32; torch's rule for its derivative is right (a test)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(widened(x))


def softmax(x: Tensor) -> Tensor:
    """The softmax over the last dimension, in float32.

    While a forward derivative is taken it is computed in elementary operations: torch's own can then not be
    differentiated once more. The largest value, which cancels, keeps exp from overflowing, and is no function of x.
    """
    x = widened(x)
    if not derives_forward():
        return x.softmax(dim=-1)
    powers = (x - x.amax(dim=-1, keepdim=True).detach()).exp()
    return powers / powers.sum(dim=-1, keepdim=True)


class Sigmoid(nn.Sigmoid):
    """A sigmoid in float32: a bfloat16 near 1 is up to half a grey level off."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(widened(x))


class _Direction(nn.Module):
    """Codes on the unit sphere: a code's direction."""

    def forward(self, z: Tensor) -> Tensor:
        return direction(z)


def direction(z: Tensor) -> Tensor:
    """The codes divided by their norms, (B, d)."""
    return functional.normalize(z, dim=1)


def of_directions(decoder: nn.Module) -> nn.Sequential:
    """`decoder`, which sees the direction of each code and nothing else."""
    return nn.Sequential(_Direction(), decoder)


def derives_forward() -> bool:
    """Whether a forward derivative is being taken; `unpack_dual` would tell of one tensor, but not in a vmap."""
    return forward_ad._current_level >= 0


def widened(x: Tensor) -> Tensor:
    """A bfloat16 tensor in float32; any other as it is."""
    return x.float() if x.dtype == torch.bfloat16 else x


class OwnPair(NamedTuple):
    """A user's encoder with the length of its features (B, n), and a decoder."""

    features: tuple[nn.Module, int]
    decoder: nn.Module


def own(spec: OwnNetworks) -> OwnPair:
    """A user's encoder and decoder.

    Raises:
        OwnCodeError: they are no modules, or do not take and give the shapes that they should.
    """
    made = spec.code.make(channels=spec.channels, size=spec.size, latent_dim=spec.latent_dim)
    for part in ("encoder", "decoder"):
        if not isinstance(found := getattr(made, part, None), nn.Module):
            raise OwnCodeError(f"{spec.code.place}: .{part} is {type(found).__name__}; expected a torch.nn.Module")
    image, place = (spec.channels, spec.size, spec.size), spec.code.place
    training = [module.training for module in (made.encoder, made.decoder)]
    with torch.no_grad(), explained(spec.code, "a pass through encoder and decoder"):
        features = made.encoder.eval()(torch.zeros(2, *image))
        rebuilt = made.decoder.eval()(torch.zeros(2, spec.latent_dim))
    made.encoder.train(training[0])
    made.decoder.train(training[1])
    if features.dim() != 2 or len(features) != 2:
        raise OwnCodeError(f"{place}: encoder gives {tuple(features.shape)} of 2 images; expected features (2, n)")
    if rebuilt.shape != (2, *image):
        raise OwnCodeError(f"{place}: decoder gives {tuple(rebuilt.shape)} of 2 codes; expected {(2, *image)}")
    return OwnPair((made.encoder, features.shape[1]), made.decoder)


def fit_for(regulariser: Regulariser, module: nn.Module, place: str) -> None:
    """Make a user's `module` one that `regulariser` sees whole: its layers are found, and their derivatives are right.

    Where a derivative is penalised, the suite's batch norm and layer norm take the place of torch's, whose derivatives
    are wrong there (see `BatchNorm`): the same layers otherwise.

    Raises:
        OwnCodeError: a layer that the regulariser cannot see.
    """
    if isinstance(regulariser, WeightL2 | SpectralNorm):
        known = {id(layer.weight) for layer in weighted_layers(module)}
        for name, parameter in module.named_parameters():
            if parameter.dim() > 1 and id(parameter) not in known:
                raise OwnCodeError(
                    f"{place}: {name!r} of the decoder, {tuple(parameter.shape)}, is the weight of no dense,"
                    f" convolutional or transposed convolutional layer; {regulariser.kind!r} knows no other"
                )
        if not known:
            raise OwnCodeError(f"{place}: {regulariser.kind!r} finds no layer with weights in the decoder")
    if isinstance(regulariser, OrthogonalFirstLayer):
        first = next(iter(weighted_layers(module)), None)
        if not isinstance(first, nn.Linear) or first.out_features < first.in_features:
            found = "none" if first is None else f"{type(first).__name__} {tuple(first.weight.shape)}"
            raise OwnCodeError(
                f"{place}: {regulariser.kind!r} needs a dense first layer of the decoder with at least as many outputs"
                f" as inputs; found {found}"
            )
    if isinstance(regulariser, GradientPenalty):
        for name, layer in module.named_modules():
            if type(layer) is nn.LayerNorm:
                layer.__class__ = LayerNorm
            elif type(layer) is nn.BatchNorm2d and layer.affine and layer.track_running_stats:
                layer.__class__ = BatchNorm
            elif isinstance(layer, nn.modules.batchnorm._NormBase) and not isinstance(layer, BatchNorm):
                raise OwnCodeError(
                    f"{place}: under 'gradient_penalty' torch's derivative of {name!r} of the decoder, a"
                    f" {type(layer).__name__}, is wrong; use nn.BatchNorm2d with its defaults, GroupNorm or LayerNorm"
                )


def dense(inputs: int, width: int, depth: int, activation: type[nn.Module] = nn.ReLU) -> list[nn.Module]:
    """`depth` dense layers of `width` units, each with its activation: (n, inputs) to (n, width)."""
    sizes = [inputs, *depth * [width]]
    return [layer for one, other in itertools.pairwise(sizes) for layer in (nn.Linear(one, other), activation())]


@contextlib.contextmanager
def initialising(seed: int) -> Iterator[None]:
    """A scope in which layers are initialised from `seed` alone; torch's global generator is as before afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng.derive(seed, "initialise"))
        yield


def initialise(module: nn.Module) -> None:
    """Give every layer Keras' defaults: Glorot-uniform weights and zero biases."""
    for layer in weighted_layers(module):
        nn.init.xavier_uniform_(layer.weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def weighted_layers(module: nn.Module) -> list[nn.Linear | nn.Conv2d | nn.ConvTranspose2d]:
    """The dense, convolutional and transposed convolutional layers of `module`, in order."""
    kinds = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)
    return [layer for layer in module.modules() if isinstance(layer, kinds)]


def orthogonalise(layer: nn.Linear | nn.Conv2d | nn.ConvTranspose2d) -> None:
    """Make the columns of the weight (out, in) of a dense layer orthonormal, now and at every update.

    They are those of a product of reflections whose vectors are the parameters, (out, in); torch's default would hold a
    matrix (out, out) beside them.

    Raises:
        ConfigError: fewer outputs than inputs.
    """
    outputs, inputs = layer.weight.shape
    if outputs < inputs:
        raise ConfigError(
            f"objective.regulariser: 'orthogonal_first_layer' needs a first layer of the decoder with at least as many"
            f" outputs as a code has dimensions; found {outputs} for {inputs}"
        )
    parametrizations.orthogonal(layer, orthogonal_map="householder", use_trivialization=False)


def normalise_spectrally(module: nn.Module, spec: SpectralNorm) -> None:
    """Divide the weight of each layer of `module` by its largest singular value, estimated by power iteration."""
    for layer in weighted_layers(module):
        if spec.is_pytorchs:
            parametrizations.spectral_norm(layer, n_power_iterations=spec.power_iterations)
        else:
            # unchecked: the check is a forward pass, and that an iteration
            parametrize.register_parametrization(layer, "weight", _SpectralNorm(layer, spec), unsafe=True)


class _SpectralNorm(nn.Module):
    """The map of W to W / sigma, with sigma = uᵀ M v; an iteration is u = M v / ‖M v‖, then v = Mᵀ u / ‖Mᵀ u‖.

    PyTorch's parametrization, but for what `SpectralNorm` names. The vectors are buffers, part of the model's
    state. Where evaluation iterates, what a model gives depends on the passes before: the same passes in the same
    order give the same bytes.
    """

    u: Tensor
    v: Tensor

    def __init__(self, layer: nn.Linear | nn.Conv2d | nn.ConvTranspose2d, spec: SpectralNorm) -> None:
        super().__init__()
        self.spec = spec
        self.is_transposed = isinstance(layer, nn.ConvTranspose2d)
        matrix = self._matrix(layer.weight.detach())
        self.register_buffer("u", functional.normalize(torch.randn(matrix.shape[0]), dim=0))
        self.register_buffer("v", functional.normalize(torch.randn(matrix.shape[1]), dim=0))
        self.u, self.v = self._iterate(matrix, spec.initial_iterations)

    def _matrix(self, weight: Tensor) -> Tensor:
        # weights are (out, in, ...), of transposed convolutions (in, out, k, k); Keras' last axis is their first
        if self.spec.matrix == "keras":
            return weight.flatten(1).T
        return (weight.transpose(0, 1) if self.is_transposed else weight).flatten(1)

    def _iterate(self, matrix: Tensor, n: int) -> tuple[Tensor, Tensor]:
        u, v = self.u.clone(), self.v.clone()
        for _ in range(n):
            u = functional.normalize(matrix @ v, dim=0, eps=1e-12)
            v = functional.normalize(matrix.T @ u, dim=0, eps=1e-12)
        return u, v

    def forward(self, weight: Tensor) -> Tensor:
        iterates = self.training or self.spec.evaluation == "iterates"
        matrix = self._matrix(weight)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.spec.vectors == "differentiated"):
            u, v = self._iterate(matrix, self.spec.power_iterations if iterates else 0)
        with torch.no_grad():
            self.u.copy_(u)
            self.v.copy_(v)
        return weight / torch.dot(u, matrix @ v)
