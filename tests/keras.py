"""The official code's networks and losses in numpy, in Keras' layout (B, H, W, C): written from their definitions.

Kernels are (k, k, in, out), of transposed convolutions (k, k, out, in), of dense layers (in, out). Batch norm is in
training mode. `Keras` takes a model's weights as they are now; a pass iterates its spectral norms.
"""

import numpy as np
from torch import nn

from rae_bench.models import networks


def times(x, matrix):
    """X (..., a) by a matrix (a, b), as one product."""
    return (x.reshape(-1, x.shape[-1]) @ matrix).reshape(*x.shape[:-1], -1)


def conv(x, kernel, bias, stride):
    """A "same" convolution of square x: ceil(side / stride) results; zeros before and after, the odd one after."""
    k, (height, width) = kernel.shape[0], x.shape[1:3]
    total = max((-(-height // stride) - 1) * stride + k - height, 0)
    padded = np.pad(x, ((0, 0), *[(total // 2, total - total // 2)] * 2, (0, 0)))
    out = bias
    for i in range(k):
        for j in range(k):
            rows, columns = slice(i, i + height, stride), slice(j, j + width, stride)
            out = out + times(padded[:, rows, columns], kernel[i, j])
    return out


def transposed_conv(x, kernel, bias, stride):
    """The gradient of that convolution with respect to its input."""
    k, before = kernel.shape[0], max(kernel.shape[0] - stride, 0) // 2
    height, width = x.shape[1] * stride, x.shape[2] * stride
    padded = np.zeros((len(x), height + k, width + k, kernel.shape[2]), x.dtype)
    for i in range(k):
        for j in range(k):
            padded[:, i : i + height : stride, j : j + width : stride] += times(x, kernel[i, j].T)
    return padded[:, before : before + height, before : before + width] + bias


def norm(x, gamma, beta):
    """Batch norm with the batch's own moments; the output, and what its gradient needs."""
    mean, variance = x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))
    deviation = np.sqrt(variance + 1e-3)
    centred = (x - mean) / deviation
    return gamma * centred + beta, (centred, gamma / deviation)


def norm_gradient(dy, saved):
    """Gradient with respect to the input of `norm`, through the moments, too."""
    centred, factor = saved
    axes = (0, 1, 2)
    return factor * (dy - dy.mean(axis=axes) - centred * (dy * centred).mean(axis=axes))


class Keras:
    """A convolutional autoencoder of the suite in Keras' layout, in float64."""

    def __init__(self, model, size):
        self.size = size
        self.encoder = [self._layer(layer) for layer in networks.weighted_layers(model.features)]
        self.encoder_norms = self._norms(model.features)
        side = -(-size // 2 ** len(self.encoder))
        self.heads = {}
        for name in ("mean", "log_sigma"):
            head = getattr(model, name)
            if head is not None:
                kernel, bias, u = self._layer(head)  # (C·H·W, Z): Keras flattens (H, W, C)
                kernel = kernel.reshape(-1, side, side, kernel.shape[1]).transpose(1, 2, 0, 3)
                self.heads[name] = [kernel.reshape(-1, kernel.shape[3]), bias, u]
        dense, *transposed = networks.weighted_layers(model.decoder)
        kernel, bias, u = self._layer(dense)
        self.start = start = -(-size // 2 ** (len(transposed) - 1))

        def as_keras(vector):  # (..., C·H·W) to (..., H·W·C)
            lead = vector.shape[:-1]
            return np.moveaxis(vector.reshape(*lead, -1, start**2), -1, -2).reshape(*lead, -1)

        self.dense = [as_keras(kernel), as_keras(bias), None if u is None else as_keras(u)]
        self.decoder = [self._layer(layer) for layer in transposed]
        self.decoder_norms = self._norms(model.decoder)

    @staticmethod
    def _layer(layer):
        """Kernel, bias and, where there is a spectral norm, its vector over the kernel's last axis."""
        normalised = nn.utils.parametrize.is_parametrized(layer)
        weight = layer.parametrizations.weight.original if normalised else layer.weight
        weight = weight.detach().double().numpy()
        kernel = weight.T if weight.ndim == 2 else weight.transpose(2, 3, 1, 0)
        u = layer.parametrizations.weight[0].v.double().numpy().copy() if normalised else None
        return [kernel, layer.bias.detach().double().numpy(), u]

    @staticmethod
    def _norms(module):
        norms = [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]
        return [[value.detach().double().numpy() for value in (part.weight, part.bias)] for part in norms]

    @staticmethod
    def _kernel(layer):
        """The kernel, divided by its spectral norm after one power iteration if it has one."""
        kernel, _, u = layer
        if u is None:
            return kernel
        matrix = kernel.reshape(-1, kernel.shape[-1])
        v = u @ matrix.T
        v = v / np.sqrt((v**2).sum())
        u = v @ matrix
        layer[2] = u = u / np.sqrt((u**2).sum())
        return kernel / (v @ matrix @ u)

    def encode(self, x):
        """The outputs of the heads, by name."""
        h = 2 * x - 1 if self.size == 32 else x
        for layer, (gamma, beta) in zip(self.encoder, self.encoder_norms, strict=True):
            h = np.maximum(norm(conv(h, self._kernel(layer), layer[1], 2), gamma, beta)[0], 0)
        flat = h.reshape(len(h), -1)
        return {name: flat @ self._kernel(layer) + layer[1] for name, layer in self.heads.items()}

    def decode(self, z):
        """x_hat, and a function from a gradient with respect to it to the one with respect to z.

        The function knows nothing of maps that were cropped: it is for sizes of 8 times a power of two.
        """
        dense = self._kernel(self.dense)
        h = (z @ dense + self.dense[1]).reshape(len(z), self.start, self.start, -1)
        kernels, saved = [self._kernel(layer) for layer in self.decoder], []
        for kernel, layer, (gamma, beta) in zip(kernels[:-1], self.decoder[:-1], self.decoder_norms, strict=True):
            side = -(-self.size // 2 ** (len(kernels) - 2 - len(saved)))  # the image's, halved and rounded up
            h, kept = norm(transposed_conv(h, kernel, layer[1], 2)[:, :side, :side], gamma, beta)
            saved.append((kept, h > 0))
            h = np.maximum(h, 0)
        x_hat = 1 / (1 + np.exp(-transposed_conv(h, kernels[-1], self.decoder[-1][1], 1)))

        def gradient(dx):
            d = conv(dx * x_hat * (1 - x_hat), kernels[-1], 0, 1)
            for kernel, (kept, active) in zip(reversed(kernels[:-1]), reversed(saved), strict=True):
                d = conv(norm_gradient(d * active, kept), kernel, 0, 2)
            return d.reshape(len(z), -1) @ dense.T

        return x_hat, gradient


def mean_squared_error(x, x_hat):
    """Keras' "mse": the mean over the last axis."""
    return ((x - x_hat) ** 2).mean(axis=-1)


def kl(mean, log_sigma):
    """KL of each image."""
    return 0.5 * (np.exp(2 * log_sigma) + mean**2 - 1 - 2 * log_sigma).sum(axis=1)


def mmd(z, prior):
    """The sum over kernels of pairs: within sets without the diagonal over n(n - 1), across over n²; seven scales."""
    (n, d), total = z.shape, 0.0
    for scale in (0.1, 0.2, 0.5, 1, 2, 5, 10):
        c = 2 * d * scale

        def kernels(a, b, c=c):
            return np.stack([c / (c + ((one - b) ** 2).sum(axis=1)) for one in a])

        for sample in (z, prior):
            within = kernels(sample, sample)
            total += (within.sum() - np.trace(within)) / (n * (n - 1))
        total -= 2 * kernels(z, prior).sum() / n**2
    return total


def official_terms(row, net, x, draw):
    """The loss of paper.md's section 2.2, as coded: the reconstruction, and the weighted latent term and regulariser.

    `row` is a line of official_configs.csv, `net` a Keras model, x images (B, H, W, C); `draw(shape)` gives standard
    normal numbers, in the order input noise, codes, prior.
    """
    model, dataset = row["model"], row["dataset"]
    latent_weight, weight = float(row["latent_weight_code"]), float(row["reg_weight_code"] or 0)
    seen = x
    if model == "WAE" and dataset == "CelebA":
        seen = x + np.clip(0.01 * draw(x.shape), -0.01, 0.01)
    heads = net.encode(seen)
    z, log_sigma = heads["mean"], None
    if "VAE" in model:
        fixed = row["cv_sigma"]
        log_sigma = np.full_like(z, np.log(float(fixed))) if fixed else 5 * np.tanh(heads["log_sigma"])
        z = z + np.exp(log_sigma) * draw(z.shape)
    x_hat, gradient = net.decode(z)
    error = mean_squared_error(x, x_hat)
    if "VAE" in model:
        return error.sum(axis=(1, 2)).mean(), latent_weight * kl(heads["mean"], log_sigma).mean(), 0.0
    if model == "WAE":
        squares = ((x - x_hat) ** 2).sum(axis=(1, 2, 3))
        reconstruction = 0.05 * squares.mean() if dataset == "CelebA" else error.mean()
        return reconstruction, latent_weight * mmd(z, draw(z.shape)), 0.0
    regulariser = 0.0
    if model in ("RAE-L2", "AE-L2"):
        layers = [net.dense, *net.decoder] if dataset == "CelebA" else net.decoder
        regulariser = weight * sum((layer[0] ** 2).sum() for layer in layers)
    if model == "RAE-GP":
        regulariser = weight * (gradient(2 * x_hat) ** 2).mean()
    return error.mean(), latent_weight * (z**2).mean(), regulariser
