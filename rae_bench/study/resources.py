"""What each stage needs, by formulas of the study's sizes: memory, disk, operations, and minutes of a slow core.

The rules ask a scheduler for memory and minutes, more at each attempt. It kills what passes them, so they are bounds
with room, not predictions: bytes and operations counted from the shapes, at the rates of one slow core or of a GPU,
times ROOM and MEMORY_ROOM. `cost STUDY --slurm` prints them.
They change no result and rerun nothing. GPUs are asked for by the rules (`Study.gpus`); cores are the study's threads,
which change bytes. `cost` adds the same needs up (`rae_bench.run.cost`).

Operations (FLOPs) are those of matrix products and convolutions, two a multiply-add; elementwise work is not counted.
Metrics and densities count by their leading terms: distances n m d, covariances n d², eigenvalues d³.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from rae_bench.data.specs import DatasetSpec
from rae_bench.densities.specs import NetworkSpec
from rae_bench.models.layouts.specs import (
    Counts,
    LinearNetwork,
    OwnModel,
    OwnNetworks,
    TrainedElsewhere,
)
from rae_bench.models.specs import TrainingSpec, at_once
from rae_bench.models.terms.specs import VampPrior, codes_per_image
from rae_bench.scoring.specs import EvaluationSpec, Extractor, FloorSpec, MetricSettings
from rae_bench.study import loads
from rae_bench.study.specs import DensityPart, MeasurePart
from rae_bench.study.study import Study

BASE_MB = 500
"""Megabytes of a Slurm job beside its stage. Measured: up to three Snakemakes of 135 MiB."""
CUDA_MB = 3000
"""Megabytes of main memory that a process which loads CUDA's libraries takes besides. Not measured: there is no GPU
here."""
START_SECONDS = 300.0
"""Before the work: Snakemakes and imports. Measured: 12 s of a quiet core, 60 s with five processes a core."""
ROOM = 2.0
"""How many times longer than counted a stage may take: other machines, busy nodes; each attempt asks for more.
Measured, an epoch of each data set and each kind of density took a tenth to nearly all of the count."""
MEMORY_ROOM = 1.5
"""How many times more memory than counted it may take: allocators. Measured, of processes of the smoke study: 0.95
to 1.5 times."""
MOST_MINUTES = 24 * 60
"""What a training asks for at most, where no profile says: it goes on from its state in the next attempt."""
MOST = 3
"""Attempts up to which an ask grows; later ones, after many pre-emptions, ask for no more than a node has."""
NETWORK_RATE = 4e10
"""Operations a second of one core in convolutions and dense layers, in single precision. Measured (torch 2.14,
AVX-512), training on digits: 9e10 with 8 filters, 1.6e11 with 32."""
MATRIX_RATE = 5e9
"""The same of double-precision linear algebra, mostly eigenvalues."""
GPU_RATE = 1e13
"""The same of a GPU: a third of 30 TFLOP/s. Not measured: there is no GPU here. On a
slower one trainings go on in the next attempt, and all else gets more time there."""
GPU_SPEEDUP = 10.0
"""How many times one core's rate of samples a GPU has at least. Not measured either."""
DIFFERENTIATIONS = 5
"""How many plain steps one with a penalty on a derivative takes, in memory and time. Measured: 3.4 to 4."""
DERIVATIVES = {"gradient_penalty": 5.5, "output_gradient": 3.5}
"""How many passes of the decoder a penalty on its derivative adds: torch was seen to count 5.7, and 3.1 to 4."""
ENCODER_DERIVATIVES = {"contractive": 3.5}
"""How many passes of the encoder a latent term on its derivative adds: torch was seen to count 2.9."""
SAMPLE_SECONDS = 1.2e-4
"""A core's overhead for each sample of a batch. Measured: spline flow of 5 x 64 x 2, 1.1e-4; other networks, less."""

COMPARED = 500
"""Images whose pixels are compared in double precision at a time."""
PCA_VALUES = 2**26
"""Values of images that PCA holds as float32 at a time."""
MOMENT_VALUES, NEAREST = 2**25, 2**14
"""Features, and training images, that are held in double precision at a time."""
TRIED_IMAGES, TRIED_CODES = 128, 2000
"""What a user's own code is tried on."""
IMAGE_FILE = 1500.0
"""Bytes in memory of a file whose image is decoded while it is written: names, hash, place in its archive."""
ENCODED, DECODED, EXPECTED = 500, 250, 20
"""Images that are encoded, codes that are decoded, and images whose likelihood is found, at a time; of large images
fewer (`at_once`), as of those that are compared."""
BOUND_CODES, EXPANSIONS = 10, 5
"""Codes that an image's bound takes; and how often the derivatives for its proposal do, each a code a dimension."""
SHOWN, STRIP_IMAGES, PLOTTED = 36, 6 * 8, 500
"""Images of each set, images of interpolations and codes that an evaluation keeps for figures."""

LIBRARIES: dict[str, float] = {
    **{
        "prepare": 85e6,
        "reference": 543e6,
        "floor": 701e6,
        "train": 767e6,
        "tryout": 767e6,
        "decode": 546e6,
        "evaluate": 707e6,
        "protocols": 613e6,
    },
    **{"collect": 116e6, "tables": 181e6, "figures": 226e6, "report": 124e6},
    **{"fit": 36e6, "fit by scikit-learn": 204e6, "fit of a network": 694e6, "torch-fidelity": 165e6},
}
"""Bytes of a process that has imported what its stage does (`loads`), and done nothing. Measured: torch 2.14, CPU."""

EXTRACTION: dict[Extractor, float] = {
    "digit_classifier": 5.3e6,
    "face_features": 5.9e6,
    "efficientnet_lite0": 1.5e8,
    "efficientnet_lite0_bicubic": 1.5e8,
    "efficientnet_lite0_nearest": 1.5e8,
    "efficientnet_lite0_128": 2.7e8,
    "pixels": 1e5,
    "inception_v3_compat": 1.2e10,
    "dinov2_vit_l_14": 1.7e11,
}
"""Arithmetic an image through each extractor: twice the multiplications that their authors state (lite0: 4.1e8 at 224
pixels, scaled by area); torch counts 5 to 6 % less. Ours: as torch counts."""
FEATURES: dict[Extractor, int] = {
    **{name: 1280 for name in EXTRACTION if name.startswith("efficientnet")},
    "digit_classifier": 128,
    "face_features": 128,
    "inception_v3_compat": 2048,
    "dinov2_vit_l_14": 1024,
}
"""Length of each network's features; of pixels it depends on the images (`feature_length`)."""
EXTRACTOR_BYTES: dict[Extractor, float] = {
    **{name: 0.4e9 for name in EXTRACTION if name.startswith("efficientnet")},
    "inception_v3_compat": 0.9e9,
    "dinov2_vit_l_14": 3e9,
}
"""Bytes of a network of features and of its batch; none of the small ones. Measured: EfficientNet-Lite0 254 MiB, at 128
pixels 346; Inception, with random weights, 0.9 GB. DINOv2, not measured: twice its weights, and its code."""
PIXEL_BLOCK = 4
"""Side of the blocks of pixels whose means are features."""


@dataclass(frozen=True, kw_only=True)
class Need:
    """What a job needs beyond any process.

    bytes, libraries, gpu   of main memory, of it for libraries, and of a GPU's
    networks                operations of autoencoders
    float32, float64        other operations: of feature networks, networks on codes and PCA; of metrics and densities
    samples                 passes of an image or a code through a network
    overhead                seconds that no operations account for
    slack                   by how much longer it may take than is counted
    images, disk            how many are made, read or trained on, each time counted; bytes kept
    on_gpu, resumes         it runs on a GPU; it goes on where it was stopped
    """

    bytes: float = 0.0
    libraries: float = 0.0
    gpu: float = 0.0
    networks: float = 0.0
    float32: float = 0.0
    float64: float = 0.0
    samples: float = 0.0
    overhead: float = 0.0
    slack: float = 1.0
    images: float = 0.0
    disk: float = 0.0
    on_gpu: bool = False
    resumes: bool = False

    @property
    def seconds(self) -> float:
        """How long it takes at most, by the rates of a slow core or GPU."""
        rate, speedup = (GPU_RATE, GPU_SPEEDUP) if self.on_gpu else (NETWORK_RATE, 1.0)
        passes = (self.networks + self.float32) / rate + self.samples * SAMPLE_SECONDS / speedup
        return self.slack * (self.overhead + passes + self.float64 / MATRIX_RATE)

    def mem_mb(self, attempt: int) -> int:
        """Megabytes to ask for, in steps of 500."""
        base = BASE_MB + (CUDA_MB if self.on_gpu else 0)
        process = MEMORY_ROOM * (self.libraries + self.bytes) / 1e6
        return 500 * math.ceil((base + process) / 500) * min(attempt, MOST)

    def minutes(self, attempt: int, limit: int | None = None) -> int:
        """Minutes to ask for, in steps of 5; no more than `limit`, which a profile may state."""
        asked = 5 * math.ceil((START_SECONDS + ROOM * self.seconds) / 300) * min(attempt, MOST)
        most = MOST_MINUTES if self.resumes else asked
        return min(asked, most if limit is None else limit)


NO_NETWORK = Counts(0.0, 0.0, 0.0, 0.0)


def feature_length(extractor: Extractor, data: DatasetSpec) -> int:
    """How many features an image of a data set has."""
    return data.channels * (data.size // PIXEL_BLOCK) ** 2 if extractor == "pixels" else FEATURES[extractor]


def prepare(study: Study, dataset: str) -> Need:
    """Images drawn, cut or read, held several times over; but for those that are decoded while they are written."""
    data = study.preparation(dataset)
    n = data.n_train + data.n_validation + data.n_test
    size = float(n * data.channels * data.size**2)
    return Need(
        bytes=IMAGE_FILE * n if data.source.is_streamed else 4 * size,
        libraries=LIBRARIES["prepare"],
        overhead=1e-3 * n * (data.size / 64) ** 2,  # measured: 5,000 faces of 64x64 pixels, 4.6 s, the slowest source
        images=n,
        disk=size + 8 * n,
    )


def reference(study: Study, dataset: str, name: str) -> Need:
    """Features of real images, a matrix root, and neighbours among them."""
    spec = study.references(dataset)[name]
    n, dim = spec.n_images, feature_length(spec.extractor, spec.dataset)
    compared = _distances(n, n, dim) if spec.neighbours else 0
    # features, and the bytes that are written of them
    held = 8.0 * n * dim + _feature_bytes(n, dim, spec.neighbours > 0) + 3 * spec.dataset.held_bytes(spec.split)
    return Need(
        bytes=held + EXTRACTOR_BYTES.get(spec.extractor, 0.0),
        libraries=LIBRARIES["reference"],
        float32=n * EXTRACTION[spec.extractor],
        float64=2 * n * dim**2 + _roots(n, dim, 1) + compared,
        samples=n,
        images=n,
        disk=4 * n * dim + 8 * dim * (dim + min(n, dim)) + 8 * n * spec.neighbours,
        on_gpu=study.gpus > 0,
    )


def floor(study: Study, dataset: str) -> Need:
    """One image set scored."""
    spec, data = study.floor(dataset), study.preparation(dataset)
    dim = feature_length(spec.extractor, data)
    return Need(
        bytes=_scoring_bytes(dim, spec.n_images, data.n_train),
        libraries=_scoring_libraries("floor", spec),
        float64=scoring(dim, spec.metrics, spec.n_images, data.n_train),
        images=2 * spec.n_images,
    )


def tryout(study: Study, dataset: str, part: str) -> Need:
    """Two batches, a few times over; or a density's fits to some thousand codes."""
    found = study.tryouts(dataset)[part].part
    if isinstance(found, MeasurePart):
        return Need(libraries=LIBRARIES["tryout"])
    if isinstance(found, DensityPart):
        work = found.density.work(TRIED_CODES, TRIED_CODES, found.latent_dim)
        return Need(bytes=work.held, libraries=LIBRARIES["tryout"], float64=4 * work.operations)
    size = _counts(study, dataset, found.training)
    activations = 4 * size.floats * 6 * DIFFERENTIATIONS * TRIED_IMAGES
    return Need(
        bytes=4 * 20 * size.parameters + (0 if study.gpus else activations),
        libraries=LIBRARIES["tryout"],
        gpu=20 * size.parameters + activations if study.gpus else 0,
        networks=100 * TRIED_IMAGES * size.arithmetic,
        samples=100 * TRIED_IMAGES,
        on_gpu=study.gpus > 0,
    )


def train(study: Study, dataset: str, model: str) -> Need:
    """All epochs over the images, the smaller splits held; weights, best weights, moments and what is being saved."""
    spec, data = study.training(dataset, model), study.preparation(dataset)
    size, batch = of_a_loss(spec, _counts(study, dataset, spec)), spec.optimisation.batch_size
    epochs = spec.optimisation.epochs if spec.network.is_optimised else 0
    trained, checked = epochs * (data.n_train - data.n_train % batch), epochs * data.count(spec.validation_split)
    encoded = data.n_train + data.n_validation
    penalty = DERIVATIVES.get(spec.regulariser.kind, 0.0) + ENCODER_DERIVATIVES.get(spec.latent.kind, 0.0)
    # measured at 8 filters: 855 MiB in all for 4,000 images of 32x32, 1,062 for faces of 64x64
    trained_together, encoded_together = batch * (DIFFERENTIATIONS if penalty else 1), at_once(ENCODED, data.size**2)
    trained_together += spec.latent.n_components if isinstance(spec.latent, VampPrior) else 0
    activations = 4 * size.floats * max(3 * trained_together, encoded_together)
    images = sum(data.held_bytes(split) for split in dict.fromkeys(("train", "validation", spec.validation_split)))
    codes = encoded * spec.network.latent_dim * (1 if spec.is_deterministic else 2)
    if isinstance(spec.network, LinearNetwork):
        # principal components: images as float32, thrice; seven power iterations, whose basis has a row an image
        block = min(data.n_train * spec.network.values, PCA_VALUES)
        return Need(
            bytes=3 * images + 3 * 4 * block + 16 * data.n_train * spec.network.latent_dim,
            libraries=LIBRARIES["train"],
            gpu=images if study.gpus else 0,
            float32=40 * data.n_train * spec.network.values * spec.network.latent_dim,
            samples=encoded,
            images=encoded,
            disk=4 * (size.parameters + codes),
            on_gpu=study.gpus > 0,
        )
    return Need(
        bytes=3 * images + 4 * 10 * size.parameters + (0 if study.gpus else activations),
        libraries=LIBRARIES["train"],
        gpu=images + 20 * size.parameters + activations / 2 if study.gpus else 0,
        networks=trained * update_operations(spec, size) + checked * size.arithmetic + encoded * size.encoder,
        samples=3 * trained + checked + encoded,
        slack=DIFFERENTIATIONS / 2 if penalty else 1,  # the other half is counted as operations
        images=trained + checked + encoded,
        disk=4 * (size.parameters + codes),
        on_gpu=study.gpus > 0,
        resumes=True,
    )


def fit(study: Study, dataset: str, model: str, density: str) -> Need:
    """The need of all fits of a density, which its kind states for one; on the CPU."""
    data, dim = study.preparation(dataset), study.training(dataset, model).network.latent_dim
    n, validated = data.n_train, data.n_validation
    spec, fits = study.fit(dataset, model, density).density, len(study.fit(dataset, model, density).fit_seeds)
    if isinstance(spec, NetworkSpec):
        # each epoch over all codes, one fit after the other
        parameters, trained = spec.parameters(dim), fits * spec.optimisation.epochs * n
        return Need(
            bytes=4 * 10 * parameters + 4e3 * math.sqrt(parameters) * 50,
            libraries=LIBRARIES["fit of a network"],
            float32=trained * 6 * parameters,
            samples=trained,
            disk=fits * 4 * parameters,
        )
    work = spec.work(n, validated, dim)
    return Need(
        bytes=8 * 4 * n * dim + work.held + fits * work.disk,
        libraries=LIBRARIES["fit by scikit-learn" if "sklearn.mixture" in spec.modules else "fit"],
        float64=fits * work.operations,
        slack=work.slack,
        disk=fits * work.disk,
    )


def decode(study: Study, dataset: str, model: str) -> Need:
    """Every image set decoded, its features taken, and held until they are written; likelihoods of every image."""
    spec, making = study.evaluation(dataset, model), _making(study, dataset, model)
    dim = feature_length(spec.extractor, study.preparation(dataset))
    handed = 2 * 4.0 * making.images * dim  # and the bytes that are written of them
    return replace(
        making,
        bytes=making.bytes + handed + 4 * spec.n_images * dim + 2 * 8 * dim**2,
        libraries=LIBRARIES["decode"],
        disk=0.0,  # what is handed on is not kept
        on_gpu=study.gpus > 0,
    )


def evaluate(study: Study, dataset: str, model: str) -> Need:
    """Every image set scored; and, unless `decode` did it, made."""
    spec, data = study.evaluation(dataset, model), study.preparation(dataset)
    making = _making(study, dataset, model)
    n, dim = spec.n_images, feature_length(spec.extractor, data)
    _, passed, first = _sets(spec)
    draws = first * len(spec.sample_seeds)
    scored = replace(
        making,
        bytes=_scoring_bytes(dim, spec.n_generated, data.n_train),
        libraries=_scoring_libraries("evaluate", spec),
        float64=(2 * passed + first) * scoring(dim, spec.metrics, n, data.n_train)
        + draws * distances(dim, spec.metrics, n, spec.n_generated),
    )
    if study.decodes_apart:
        return replace(scored, gpu=0.0, networks=0.0, float32=0.0, samples=0.0, overhead=0.0, images=0.0)
    return replace(scored, bytes=scored.bytes + making.bytes)


def _sets(spec: EvaluationSpec) -> tuple[int, int, int]:
    """How many kinds of reconstructions there are, how often images are passed through, and how many fits are drawn."""
    rebuilt = 1 + len(spec.through) if spec.training else 0
    passed = rebuilt and 1 + sum(len(spec.fit_seeds[name]) for name in spec.through)
    return rebuilt, passed, sum(map(len, spec.fit_seeds.values())) + len(spec.given) + len(spec.generated)


def _making(study: Study, dataset: str, model: str) -> Need:
    """What networks do of an evaluation: decode, take features, estimate likelihoods."""
    spec, data = study.evaluation(dataset, model), study.preparation(dataset)
    size = _counts(study, dataset, spec.training) if spec.training else NO_NETWORK
    n, pixels = spec.n_images, data.channels * data.size**2
    rebuilt, passed, first = _sets(spec)
    is_bounded = spec.training is not None and spec.training.decoder_variance is not None
    samples = spec.importance_samples if is_bounded else 0
    # the codes that each image's proposal and bound take besides
    differences = 1 + spec.training.network.latent_dim if spec.training and samples else 0
    likelihoods = n * (samples + BOUND_CODES + EXPANSIONS * differences) if samples else 0
    made = 2 * passed * n + first * len(spec.sample_seeds) * spec.n_generated
    decoded = made + likelihoods
    splits = {spec.reference_split, spec.image_sets.reconstructed, spec.image_sets.interpolated}
    encoded = n * len(splits) if spec.training else 0
    # measured: digits with 10 samples an image, 340 MiB beyond libraries
    compared, decoded_together, expected = (at_once(most, data.size**2) for most in (COMPARED, DECODED, EXPECTED))
    held = 8.0 * (n + 6 * min(n, compared)) * pixels + 2 * spec.n_generated * pixels
    codes = max(samples, BOUND_CODES if samples else 0, differences)
    passes = 4 * size.floats * max(decoded_together, expected * codes)
    shown = pixels * ((2 * rebuilt + len(spec.densities) + 1) * SHOWN + rebuilt * STRIP_IMAGES)
    plotted = spec.training.network.latent_dim * PLOTTED * (1 + len(spec.densities)) if spec.training else 0
    return Need(
        bytes=EXTRACTOR_BYTES.get(spec.extractor, 0.0) + held + (0 if study.gpus else passes),
        gpu=4 * size.parameters + passes / 2 if study.gpus else 0,
        networks=decoded * size.decoder + encoded * size.encoder,
        float32=made * EXTRACTION[spec.extractor],
        samples=decoded + encoded + made,
        # a prior may have a component for each training code, at every importance sample
        overhead=samples * n * data.n_train * len(spec.priors) * 50 / MATRIX_RATE,
        images=made,
        disk=shown + 4 * plotted,
    )


def protocols(study: Study, dataset: str, model: str) -> Need:
    """The samples of the shown densities, decoded and taken the features of in every way."""
    spec, data = study.protocol_panel(dataset, model), study.preparation(dataset)
    size, scored = _counts(study, dataset, spec.training), spec.protocols.values()
    n = len(spec.densities) * len(spec.sample_seeds) * max((one.n_generated for one in scored), default=0)
    dims = [(one, feature_length(one.extractor, data)) for one in scored]
    roots = sum(2 * one.n_images * dim**2 + _roots(one.n_images, dim, 1) for one, dim in dims)
    ways = {(one.rounding, one.extractor) for one in scored}
    roundings = {rounding for rounding, _ in ways}
    passes = 4.0 * size.floats * at_once(DECODED, data.size**2)
    return Need(
        bytes=passes
        + sum(_feature_bytes(data.count(one.reference_split), dim) for one, dim in dims)
        + max((EXTRACTOR_BYTES.get(extractor, 0.0) for _, extractor in ways), default=0.0),
        libraries=LIBRARIES["protocols"],
        gpu=4 * size.parameters + passes / 2 if study.gpus else 0,
        networks=n * len(roundings) * size.decoder,
        float32=n * sum(EXTRACTION[extractor] for _, extractor in ways),
        float64=len(spec.densities) * len(spec.sample_seeds) * roots,
        samples=n * (len(roundings) + len(ways)),
        images=n,
        on_gpu=study.gpus > 0,
    )


def of_job(study: Study, stage: str, about: Sequence[str]) -> Need:
    """What a job needs; `about`: its data set, then model and density, or the reference, as far as it has them."""
    stages: dict[str, Callable[..., Need]] = {
        **{"prepare": prepare, "tryout": tryout, "reference": reference, "floor": floor, "train": train, "fit": fit},
        **{"decode": decode, "evaluate": evaluate, "protocols": protocols},
    }
    return stages[stage](study, *about) if stage in stages else Need(libraries=LIBRARIES[stage])


def _feature_bytes(n: int, dim: int, are_compared: bool = True) -> float:
    """Bytes of n features in double precision: some thrice for moments, square matrices, two blocks of distances."""
    block = 3 * min(n * dim, MOMENT_VALUES) + 8 * dim**2
    return 8.0 * (block + (n * dim + 8 * 512 * n if are_compared else 0))


def _distances(one: int, two: int, dim: int) -> float:
    return float(one * two * (2 * dim + 50))


def distances(dim: int, metrics: MetricSettings, n: int, generated: int) -> float:
    """Operations of the two distances of one draw of samples, of so many features each."""
    pairs = 3 * min(metrics.kernel_subsets * metrics.kernel_subset_size**2, n * generated)
    return pairs * (2.0 * dim + 50) + 2 * generated * dim**2 + _roots(n, dim, 1)


def _roots(n: int, dim: int, count: int) -> float:
    """Operations of `count` square roots of matrices of n features, through eigenvalues.

    Measured: the 31 of a floor of 1,000 x 1,280, less than 7 s in all.
    """
    return 4.0 * count * min(n, dim) ** 3


def scoring(dim: int, metrics: MetricSettings, n: int, n_train: int) -> float:
    """Operations of every metric of one image set, of so many features an image."""
    compared = 4 * _distances(n, n, dim) + _distances(n, n_train, dim)
    roots = _roots(n, dim, 1 + metrics.infinity_sizes + metrics.half_samples)
    return compared + roots + metrics.prd_runs * 100 * 2 * n * metrics.prd_clusters * dim


def _scoring_bytes(dim: int, n: int, n_train: int) -> float:
    return _feature_bytes(2 * n + min(n_train, NEAREST), dim) + 4.0 * n_train * dim


def _scoring_libraries(stage: str, spec: EvaluationSpec | FloorSpec) -> float:
    loads_fidelity = set(loads.FIDELITY) <= set(loads.of_scoring(stage, spec))
    return LIBRARIES[stage] + (LIBRARIES["torch-fidelity"] if loads_fidelity else 0)


def of_a_loss(spec: TrainingSpec, counts: Counts) -> Counts:
    """What a pass of the loss takes, which may decode several codes of an image."""
    codes = codes_per_image(spec.latent)
    return replace(counts, decoder=codes * counts.decoder, floats=codes * counts.floats)


def update_operations(spec: TrainingSpec, counts: Counts) -> float:
    """Operations of a training step, per image: backwards twice a pass of the loss; and what penalties add."""
    decoder = DERIVATIVES.get(spec.regulariser.kind, 0.0) * counts.decoder
    encoder = ENCODER_DERIVATIVES.get(spec.latent.kind, 0.0) * counts.encoder
    if isinstance(spec.latent, VampPrior):  # its pseudo-inputs are encoded once a batch
        encoder += 3 * counts.encoder * spec.latent.n_components / spec.optimisation.batch_size
    return 3 * counts.arithmetic + decoder + encoder


def _counts(study: Study, dataset: str, spec: TrainingSpec) -> Counts:
    """What a model's network takes; of a user's own nothing is known, and the budget's layout stands in for it."""
    network, budget = spec.network, study.budgets[dataset]
    if not isinstance(network, OwnNetworks | OwnModel | TrainedElsewhere):
        return network.counts
    return budget.laid_out(network.channels, network.size, network.latent_dim, f"budget of {dataset!r}").counts
