"""What each stage asks a scheduler for, from the study's size: memory and run time, more at each attempt.

A scheduler kills what passes them, so they are bounds with room, not predictions: arithmetic and bytes counted from the
shapes, at the rate of one slow core, times ROOM. They change no result and rerun nothing. GPUs are asked for by the
rules (`Study.gpus`); cores are the study's threads, which change bytes.
"""

import math
from dataclasses import dataclass
from typing import assert_never

from rae_bench import specs
from rae_bench.study import Study

BASE_MB = 3000
"""Megabytes of any process here, data aside. Measured: `reference` of 3,000 faces through EfficientNet-Lite0, the
largest, 1,932 MiB; `evaluate` of digits 1,137; beside it in a Slurm job up to three Snakemakes of 135 MiB."""
CUDA_MB = 4000
"""Megabytes of main memory that a process which loads CUDA's libraries takes besides. Not measured: there is no GPU
here."""
START_SECONDS = 300.0
"""Before the work: Snakemakes and imports. Measured: 12 s of a quiet core, 60 s with five processes a core."""
ROOM = 4.0
"""By how much longer than counted a stage may take: other machines, busy nodes. Measured, an epoch of each data set and
each kind of density took a tenth to nearly all of the count."""
MEMORY_ROOM = 1.5
"""By how much more memory than counted: allocators. Measured of the same, beyond libraries: 0.6 to 1.4 of the count."""
MOST_MINUTES = 24 * 60
"""What a training asks for at most: partitions have limits, and it goes on from its state in the next attempt."""
MOST = 3
"""Attempts up to which an ask grows; later ones, after many pre-emptions, ask for no more than a node has."""
NETWORK_RATE = 4e10
"""Arithmetic a second of one core in convolutions and dense layers. Measured (torch 2.14, AVX-512), training on digits:
9e10 with 8 filters, 1.6e11 with 32."""
MATRIX_RATE = 5e9
"""The same of double-precision linear algebra, mostly eigenvalues."""
GPU_SPEEDUP = 10.0
"""How many times one core's rate a GPU has at least, of ten years ago or later. Not measured: there is no GPU here."""
SAMPLE_SECONDS = 1.2e-4
"""A core's overhead for each sample of a batch. Measured: spline flow of 5 x 64 x 2, 1.1e-4; other networks, less."""

COMPARED = 500
"""Images whose pixels are compared in double precision at a time."""
PCA_VALUES = 2**26
"""Values of images that PCA holds as float32 at a time."""
MOMENT_VALUES, NEAREST = 2**25, 2**14
"""Features, and training images, that are held in double precision at a time."""
IMAGE_FILE = 1500.0
"""Bytes in memory of a file whose image is decoded while it is written: names, hash, place in its archive."""

EXTRACTION: dict[specs.Extractor, float] = {
    "digit_classifier": 2e7,
    "efficientnet_lite0": 1.5e8,
    "efficientnet_lite0_bicubic": 1.5e8,
    "efficientnet_lite0_nearest": 1.5e8,
    "efficientnet_lite0_128": 2.7e8,
    "pixels": 1e5,
    "inception_v3_compat": 1.2e10,
    "dinov2_vit_l_14": 1.7e11,
}
"""Arithmetic an image through each extractor: twice the multiplications that their authors state (lite0: 4.1e8 at 224
pixels, scaled by area)."""
FEATURES: dict[specs.Extractor, int] = {
    **dict.fromkeys(EXTRACTION, 1280),
    "digit_classifier": 128,
    "pixels": 768,
    "inception_v3_compat": 2048,
    "dinov2_vit_l_14": 1024,
}
"""Length of each extractor's features; of pixels, the most (64x64 in colour)."""


@dataclass(frozen=True)
class Need:
    """Beyond what any process needs: bytes of main memory, and seconds. `resumes`: it goes on where it was stopped."""

    bytes: float
    seconds: float
    on_gpu: bool = False
    resumes: bool = False

    def mem_mb(self, attempt: int) -> int:
        """Megabytes to ask for, in steps of 500."""
        base = BASE_MB + (CUDA_MB if self.on_gpu else 0)
        return 500 * math.ceil((base + MEMORY_ROOM * self.bytes / 1e6) / 500) * min(attempt, MOST)

    def minutes(self, attempt: int) -> int:
        """Minutes to ask for, in steps of 5."""
        asked = 5 * math.ceil((START_SECONDS + ROOM * self.seconds) / 300) * min(attempt, MOST)
        return min(asked, MOST_MINUTES) if self.resumes else asked


@dataclass(frozen=True)
class _Size:
    """Of a network, per sample: arithmetic of a pass forward, floats that it leaves; and its parameters."""

    arithmetic: float
    floats: float
    parameters: float


def prepare(study: Study, dataset: str) -> Need:
    """Images drawn, cut or read, held several times over; but for those that are decoded while they are written."""
    data = study.preparation(dataset)
    held = IMAGE_FILE * _count(data) if data.is_streamed else 4 * _images(data)
    # measured: 5,000 faces of 64x64 pixels, 4.6 s, the slowest source: 1e-3 s an image
    return Need(bytes=held, seconds=1e-3 * _count(data) * (data.size / 64) ** 2)


def reference(study: Study, dataset: str, name: str) -> Need:
    """Features of real images, a matrix root, and neighbours among them."""
    spec = study.references(dataset)[name]
    dim = FEATURES[spec.extractor]
    seconds = _extraction(study, spec.extractor, spec.n_images) + _distances(spec.n_images, spec.n_images, dim)
    # features, and the bytes that are written of them
    held = 8.0 * spec.n_images * dim + _feature_bytes(spec.n_images, dim, spec.neighbours > 0)
    held += 3 * spec.dataset.held_bytes(spec.split)
    return Need(held, seconds + _roots(spec.n_images, dim, 1), study.gpus > 0)


def floor(study: Study, dataset: str) -> Need:
    """One image set scored, and the training images' principal components."""
    spec, data = study.floor(dataset), study.preparation(dataset)
    pixels = data.channels * data.size**2
    scored = _scored(spec.extractor, spec.metrics, spec.n_images, data.n_train)
    # PCA: images as float32, twice, and as they are; seven power iterations, whose basis has a row an image
    pca = 40 * data.n_train * pixels * spec.pca_components / NETWORK_RATE
    block = min(data.n_train * pixels, PCA_VALUES)
    held = 3 * 4 * block + 16 * data.n_train * spec.pca_components + 8 * spec.n_images * pixels
    return Need(scored.bytes + held, scored.seconds + pca)


def train(study: Study, dataset: str, model: str) -> Need:
    """All epochs over the images, the smaller splits held; weights, best weights, moments and what is being saved."""
    spec, data = study.training(dataset, model), study.preparation(dataset)
    size = _size(spec.network)
    passes = 3 * data.n_train + data.n_validation  # backwards costs twice forwards
    seconds = (
        spec.optimisation.epochs * passes * _pass_seconds(study, size.arithmetic) * _differentiations(spec.objective)
    )
    # measured at 8 filters: 855 MiB in all for 4,000 images of 32x32, 1,062 for faces of 64x64
    activations = 4 * size.floats * max(spec.optimisation.batch_size * 3 * _differentiations(spec.objective), 500)
    images = sum(data.held_bytes(split) for split in dict.fromkeys(("train", "validation", spec.validation_split)))
    held = 3 * images + 4 * 10 * size.parameters + (0 if study.gpus else activations)
    return Need(held, seconds, study.gpus > 0, resumes=True)


def fit(study: Study, dataset: str, model: str, density: str) -> Need:
    """By the kind of density; on the CPU."""
    n, dim = study.preparation(dataset).n_train, study.budgets[dataset].latent_dim
    codes = 8 * 4 * n * dim
    match study.fit(dataset, model, density).density:
        case specs.StandardNormal() | specs.SingleGaussian() | specs.AggregatePosterior():
            return Need(codes, 1e-5 * n * dim)
        case specs.KernelDensity(bandwidths=bandwidths):
            # every validation code against every training code, once a bandwidth
            pairs = n * study.preparation(dataset).n_validation * len(bandwidths)
            return Need(codes + 8 * 3 * 256 * n, pairs * (dim + 20) / MATRIX_RATE)
        case (
            specs.GaussianMixture(n_components=k, n_init=starts) | specs.DirichletMixture(n_components=k, n_init=starts)
        ):
            # measured: 100 components of 3,000 codes in 16 dimensions, 0.7 s, by a Dirichlet process 3.1 s, in 8
            # dimensions 5.8 s; 500 iterations, each a product of codes and of outer products for each component
            seconds = 500 * starts * n * k * (4 * dim**2 + 50) / MATRIX_RATE
            return Need(codes + 8 * 4 * n * k + 8 * 6 * k * dim**2, seconds)
        case specs.SplineFlow(width=width, depth=depth, transforms=transforms, optimisation=optimisation):
            return _learnt(n, optimisation, transforms * (depth * width**2 + 40 * dim * width))
        case (
            specs.FlowMatching(width=width, depth=depth, optimisation=optimisation)
            | specs.SecondStage(width=width, depth=depth, optimisation=optimisation)
            | specs.DaiWipfSecondStage(width=width, depth=depth, optimisation=optimisation)
        ):
            return _learnt(n, optimisation, 2 * (depth * width**2 + 4 * dim * width))
        case other:
            assert_never(other)


def evaluate(study: Study, dataset: str, model: str) -> Need:
    """Every image set decoded, its features taken and scored; importance samples of every image's likelihood."""
    spec, data = study.evaluation(dataset, model), study.preparation(dataset)
    sets = 2 * (1 + len(spec.through)) + len(spec.densities) * len(spec.sample_seeds)
    decoded = spec.n_images * (sets + spec.importance_samples)
    size = _size(spec.training.network)
    one = _scored(spec.extractor, spec.metrics, spec.n_images, data.n_train)
    seconds = decoded * _pass_seconds(study, size.arithmetic) + sets * (
        one.seconds + _extraction(study, spec.extractor, spec.n_images)
    )
    # a prior with a component for each training code, at every importance sample
    seconds += spec.importance_samples * spec.n_images * data.n_train * len(spec.priors) * 50 / MATRIX_RATE
    # measured: digits with 10 samples an image, 340 MiB beyond libraries
    pixels = data.channels * data.size**2
    held = 8.0 * (spec.n_images + 6 * min(spec.n_images, COMPARED)) * pixels
    held += 0 if study.gpus else 4 * size.floats * max(250, 20 * spec.importance_samples)
    return Need(one.bytes + held, seconds, study.gpus > 0)


def protocols(study: Study, dataset: str, model: str) -> Need:
    """The samples of the shown densities, decoded and taken the features of in every way."""
    spec = study.protocol_panel(dataset, model)
    sets, size = len(spec.densities) * len(spec.sample_seeds), _size(spec.training.network)
    n = max((protocol.n_images for protocol in spec.protocols.values()), default=0)
    seconds = 2 * sets * n * _pass_seconds(study, size.arithmetic)
    held = 4.0 * size.floats * 250
    for protocol in spec.protocols.values():
        dim = FEATURES[protocol.extractor]
        seconds += sets * (_extraction(study, protocol.extractor, n) + _roots(n, dim, 1))
        held += _feature_bytes(study.preparation(dataset).count(protocol.reference_split), dim)
    return Need(held, seconds, study.gpus > 0)


def _count(data: specs.DatasetSpec) -> int:
    return data.n_train + data.n_validation + data.n_test


def _images(data: specs.DatasetSpec) -> float:
    """Bytes of a data set."""
    return float(_count(data) * data.channels * data.size**2)


def _extraction(study: Study, extractor: specs.Extractor, n: int) -> float:
    return n * _pass_seconds(study, EXTRACTION[extractor])


def _feature_bytes(n: int, dim: int, are_compared: bool = True) -> float:
    """Of n features in double precision: some thrice for moments, a few square matrices, blocks of distances."""
    block = 3 * min(n * dim, MOMENT_VALUES) + 8 * dim**2
    return 8.0 * (block + (n * dim + 4 * 512 * n if are_compared else 0))


def _distances(one: int, two: int, dim: int) -> float:
    return one * two * (2 * dim + 50) / MATRIX_RATE


def _roots(n: int, dim: int, count: int) -> float:
    """Seconds of `count` square roots of matrices of n features, through eigenvalues.

    Measured: the 31 of a floor of 1,000 x 1,280, less than 7 s in all.
    """
    return 4.0 * count * min(n, dim) ** 3 / MATRIX_RATE


def _scored(extractor: specs.Extractor, metrics: specs.MetricSettings, n: int, n_train: int) -> Need:
    """Of every metric of one image set."""
    dim = FEATURES[extractor]
    seconds = 4 * _distances(n, n, dim) + _distances(n, n_train, dim)
    seconds += _roots(n, dim, 1 + metrics.infinity_sizes + metrics.half_samples)
    seconds += metrics.prd_runs * 100 * 2 * n * metrics.prd_clusters * dim / MATRIX_RATE
    return Need(_feature_bytes(2 * n + min(n_train, NEAREST), dim) + 4.0 * n_train * dim, seconds)


def _differentiations(objective: specs.Objective) -> int:
    """How many plain steps one of this objective takes; of a derivative differentiated again, 4 measured."""
    match objective.regulariser:
        case specs.GradientPenalty() | specs.OutputGradient():
            return 5
        case specs.NoRegulariser() | specs.WeightL2() | specs.SpectralNorm():
            return 1
        case other:
            assert_never(other)


def _pass_seconds(study: Study, arithmetic: float) -> float:
    """One sample once forwards, on the study's device."""
    seconds = arithmetic / NETWORK_RATE + SAMPLE_SECONDS
    return seconds / GPU_SPEEDUP if study.gpus else seconds


def _learnt(n: int, optimisation: specs.Optimisation, parameters: float) -> Need:
    """A network on codes: each epoch forwards and backwards over all."""
    seconds = optimisation.epochs * n * (6 * parameters / NETWORK_RATE + SAMPLE_SECONDS)
    return Need(4 * 10 * parameters + 4e3 * math.sqrt(parameters) * 50, seconds)


def _size(network: specs.Network) -> _Size:
    match network:
        case specs.DenseNetwork(input_dim=inputs, width=width, depth=depth, latent_dim=latent):
            parameters = float(2 * depth * width**2 + 2 * width * (inputs + latent))
            return _Size(2 * parameters, 2.0 * depth * width + inputs, parameters)
        case specs.ConvolutionalNetwork():
            return _convolutional(network)
        case _:
            assert_never(network)


def _convolutional(network: specs.ConvolutionalNetwork) -> _Size:
    """Layer by layer, as `backbones` builds them."""
    arithmetic = floats = parameters = 0.0

    def add(inputs: int, outputs: int, side: int, places: int) -> None:
        """A convolution whose kernel is laid at `places`, and whose result is `side` wide."""
        nonlocal arithmetic, floats, parameters
        weights = network.kernel**2 * inputs * outputs
        arithmetic += 2 * weights * places
        parameters += weights
        floats += 3 * outputs * side**2  # before and after batch norm, and after the ReLU

    side, inputs = network.size, network.channels
    for layer in range(4):
        side, outputs = side // 2, network.width * 2**layer
        add(inputs, outputs, side, side**2)
        inputs = outputs
    dense = network.latent_dim * (2 * inputs * side**2 + 64 * network.start_width)
    arithmetic, parameters, floats = arithmetic + 2 * dense, parameters + dense, floats + 64 * network.start_width
    side, inputs = 8, network.start_width
    outputs = network.width * 8
    while side < network.size:
        side, outputs = side * 2, outputs // 2
        add(inputs, outputs, side, side**2 // 4)
        inputs = outputs
    add(inputs, network.channels, side, side**2)
    return _Size(arithmetic, floats, parameters)
