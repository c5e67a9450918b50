"""What each job of a study needs: pieces of work, each with how often it is done; memory, and disk.

It follows from the study's settings alone: no data set, no model need be there.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal, assert_never

import torch

from rae_bench import generation, likelihood, loads, specs, training
from rae_bench.autoencoder import Autoencoder
from rae_bench.config import least_codes
from rae_bench.densities.kernels import BLOCK as KERNEL_BLOCK
from rae_bench.evaluation import COMPARED, PLOTTED, SHOWN, STEPS, STRIPS
from rae_bench.features import BATCH as FEATURE_BATCH
from rae_bench.features import batch_of
from rae_bench.jobs import Job
from rae_bench.metrics.pairs import AMONG
from rae_bench.metrics.pairs import BLOCK as PAIR_BLOCK
from rae_bench.metrics.reference import BLOCK as MOMENT_VALUES
from rae_bench.pca import BLOCK as PCA_VALUES
from rae_bench.pca import OVERSAMPLES
from rae_bench.rehearsal import count, n_features, parameter_bytes, resident_bytes, state_bytes
from rae_bench.resources import IMAGE_FILE
from rae_bench.study import Study
from rae_bench.work import EM_AT_ONCE, Density, Images, Iterations, Metric, MetricName, Pass, Pca, Reading, Start, Work

TYPICAL_ITERATIONS = 30
"""Of EM until it converges: about the median in the study `smoke` (20, 24, 34, 35); `max_iter` is the bound."""
EPOCH_UPDATES = 16
"""Updates in the piece of work that stands for a density's epochs."""
DRAWN = 100
"""Faces in the piece of work that stands for drawing them."""


@dataclass(frozen=True)
class Part:
    """A piece of work that a job does `times` times; `at_most`, where that is not known beforehand, is a bound."""

    piece: Work
    times: float
    at_most: float


@dataclass(frozen=True)
class Demand:
    """`images`: how many a job makes, reads or trains on, each time counted. Memory of the host and of the GPU."""

    parts: tuple[Part, ...]
    images: int
    host_bytes: int
    device_bytes: int
    disk_bytes: int


Listed = list[tuple[Work, float]]


def about(job: Job) -> list[str]:
    """Data set, model, seed and density of a job, as far as it has them."""
    return [] if job.stage in ("collect", "tables", "figures", "report") else job.name.split("/")


def demand(study: Study, job: Job) -> Demand:
    """What `job` of `study` needs."""
    match job.stage, about(job):
        case "prepare", [dataset]:
            return _prepare(study.preparation(dataset))
        case "reference", [dataset, name]:
            return _reference(study, study.references(dataset)[name])
        case "floor", [dataset]:
            return _floor(study, dataset)
        case "train", [dataset, model, _]:
            return _train(study.preparation(dataset), study.training(dataset, model))
        case "fit", [dataset, model, _, name]:
            latent_dim = study.training(dataset, model).network.latent_dim
            return _fit(study.preparation(dataset), latent_dim, study.fit(dataset, model, name))
        case "evaluate", [dataset, model, _]:
            return _evaluate(study, dataset, model)
        case "protocols", [dataset, model, _]:
            return _protocols(study, dataset, model)
        case _:
            return Demand(_parts(loads.STAGES[job.stage], []), 0, resident_bytes(loads.STAGES[job.stage]), 0, 0)


def _parts(modules: tuple[str, ...], listed: Listed, *bounded: Part) -> tuple[Part, ...]:
    """The start of a process, and its work; the same piece listed twice is one part."""
    times: dict[Work, float] = {Start(modules): 1.0}
    for piece, often in listed:
        times[piece] = times.get(piece, 0.0) + often
    return (*(Part(piece, often, often) for piece, often in times.items()), *bounded)


def _placed(device: str, host: int, inside: int) -> tuple[int, int]:
    """Memory of the host and of the GPU, of a job whose networks and their batches need `inside`."""
    return (host, inside) if device == "cuda" else (host + inside, 0)


def _pixels(data: specs.DatasetSpec) -> int:
    return data.channels * data.size**2


def _prepare(data: specs.DatasetSpec) -> Demand:
    n = data.n_train + data.n_validation + data.n_test
    kept = n * (_pixels(data) + 8)
    held = int(IMAGE_FILE * n) if data.is_streamed else 4 * kept
    drawn: Listed = [(Images("render", DRAWN, data.channels, data.size), n / DRAWN)] if data.is_synthetic else []
    modules = loads.STAGES["prepare"]
    return Demand(_parts(modules, drawn), n, resident_bytes(modules) + held, 0, kept)


# --- features and metrics ----------------------------------------------------------------------------------


def _reading(extractor: specs.Extractor, data: specs.DatasetSpec, compute: specs.Compute) -> Reading:
    return Reading(extractor, data.channels, data.size, batch_of(extractor, compute.device))


def _pair_bytes(n: int, d: int) -> int:
    """Of comparing images with n others: these in float64, and eight blocks.

    Of products, scales, squared distances and the kernel, those of one block are held while the next one's are made
    (measured: 7.2 to 7.5).
    """
    return 8 * n * (d + 8 * PAIR_BLOCK)


def _kernel_bytes(n: int, d: int) -> int:
    """Of the density of codes under a mixture of n kernels: these, and three blocks of log densities (measured)."""
    return 8 * n * (d + 3 * KERNEL_BLOCK)


def _moment_bytes(n: int, d: int) -> int:
    """Of means, covariances, a root and its eigenvectors, of n features."""
    return 8 * (2 * min(n * d, MOMENT_VALUES) + 5 * d**2)


def _reference(study: Study, spec: specs.ReferenceSpec) -> Demand:
    data, n = spec.dataset, spec.n_images
    reading = _reading(spec.extractor, data, spec.compute)
    d = n_features(reading)
    metric = Metric("reference" if spec.neighbours else "moments", n, n, d, study.metrics)
    compared = max(_moment_bytes(n, d), _pair_bytes(n, d) if spec.neighbours else 0)
    images = min(n * _pixels(data), data.held_bytes(spec.split))
    written = 4 * n * d  # a file's bytes are made whole
    memory = resident_bytes(loads.STAGES["reference"]) + images + 4 * n * d + max(compared, written)
    kept = 4 * n * d + 8 * d * (d + min(n, d)) + 8 * n * spec.neighbours
    parts = _parts(loads.STAGES["reference"], [(reading, n / reading.batch), (metric, 1)])
    return Demand(parts, n, *_placed(spec.compute.device, memory, count(reading).peak_bytes), kept)


def _scores(study: Study, dataset: str, d: int) -> Listed:
    """Every metric of one set of images: against the reference, against training images, against the law of faces."""
    n, data = study.file.n_images, study.preparation(dataset)
    frechet: MetricName = "fid" if specs.is_fid(study.datasets[dataset].extractor) else "frechet"
    names: tuple[MetricName, ...] = (frechet, "half_samples", "infinity", "kernel", "pairs", "prd")
    metrics = [Metric(name, n, n, d, study.metrics) for name in names]
    metrics.append(Metric("nearest", data.n_train, n, d, study.metrics))
    listed: Listed = [(metric, 1.0) for metric in metrics if count(metric).flops]  # infinity: none where n is too small
    if data.is_synthetic:
        listed.append((Reading("face_classifier", data.channels, data.size, FEATURE_BATCH), n / FEATURE_BATCH))
    return listed


def _floor(study: Study, dataset: str) -> Demand:
    data, n, spec = study.preparation(dataset), study.file.n_images, study.floor(dataset)
    d, pixels = n_features(_reading(spec.extractor, data, spec.compute)), _pixels(data)
    pca = Pca(data.n_train, n, pixels, spec.pca_components)
    nearest = Metric("nearest", data.n_train, n, d, study.metrics)  # of the reference; of the other set: a score
    # PCA has a block as bytes and as floats, and two floats an image and direction
    directions = 8 * data.n_train * (spec.pca_components + OVERSAMPLES)
    decomposed = data.held_bytes("train") + 5 * min(data.n_train * pixels, PCA_VALUES) + directions
    largest = max(_pair_bytes(min(data.n_train, AMONG), d), _moment_bytes(n, d), decomposed)
    modules = loads.of_scoring("floor", spec)
    memory = resident_bytes(modules) + 4 * d * (2 * n + data.n_train) + largest
    return Demand(_parts(modules, [*_scores(study, dataset, d), (nearest, 1), (pca, 1)]), 2 * n, memory, 0, 0)


# --- training -----------------------------------------------------------------------------------------------


def _pass(what: Literal["update", "loss", "encode", "decode"], spec: specs.TrainingSpec, batch: int) -> Pass:
    """A batch of at most so many; models that cost the same give the same piece."""
    posterior = spec.objective.posterior
    latent, regulariser = _unweighted(spec.objective.latent), _unweighted(spec.objective.regulariser)
    precision = spec.compute.precision
    if what in ("encode", "decode"):
        latent, precision = specs.NoLatentTerm("none"), "float32"
        if not isinstance(regulariser, specs.SpectralNorm):  # a property of layers
            regulariser = specs.NoRegulariser("none")
    if what == "decode":
        posterior = specs.Deterministic("deterministic")
    return Pass(what, spec.network, specs.Objective(posterior, latent, regulariser), batch, precision)


def _unweighted(term: Any) -> Any:
    """The term with weight 1, on which what it costs does not depend."""
    return replace(term, weight=1.0) if hasattr(term, "weight") else term


def _train(data: specs.DatasetSpec, spec: specs.TrainingSpec) -> Demand:
    epochs, batch = spec.optimisation.epochs, spec.optimisation.batch_size
    validated, encoded = data.count(spec.validation_split), data.n_train + data.n_validation
    updates = data.n_train // batch
    update = _pass("update", spec, batch)
    with torch.device("meta"):
        size = training.validation_batch(Autoencoder(spec.network, spec.objective.posterior), data.size**2)
    loss = _pass("loss", spec, min(size, validated))
    encode = _pass("encode", spec, min(training.VALIDATION_BATCH, data.n_validation))
    listed: Listed = [
        (update, epochs * updates),
        (loss, epochs * validated / loss.batch),
        (encode, encoded / encode.batch),
    ]
    weights = parameter_bytes(spec.network, spec.objective)
    images = (data.n_train + validated) * _pixels(data)
    held = data.held_bytes("train") + data.held_bytes(spec.validation_split)
    if spec.compute.device == "cpu":
        images = held
    inside = images + 4 * weights + max(count(update).peak_bytes, count(loss).peak_bytes)  # with moments, and the best
    outside = resident_bytes(loads.STAGES["train"]) + held + 8 * weights  # a state is copied, then serialised
    per_code = 1 if isinstance(spec.objective.posterior, specs.Deterministic) else 2
    codes = 4 * per_code * encoded * spec.network.latent_dim
    made = epochs * (updates * batch + validated) + encoded
    placed = _placed(spec.compute.device, outside, inside)
    return Demand(_parts(loads.STAGES["train"], listed), made, *placed, weights + codes)


# --- densities ----------------------------------------------------------------------------------------------


def _fit(data: specs.DatasetSpec, d: int, spec: specs.FitSpec) -> Demand:
    density, n, validated = spec.density, data.n_train - spec.leave_out_last, data.n_validation
    modules = loads.of_density(density)
    fit = Density("fit", density, d, n, validated)
    listed: Listed = [(Density("judge", density, d, n, validated), 1 + n / validated)]
    bounded: list[Part] = []
    memory = 8 * 4 * d * (n + validated)
    match density:
        case specs.StandardNormal() | specs.SingleGaussian():
            listed.append((fit, 1))
        case specs.AggregatePosterior():
            listed.append((fit, 1))
            memory += _kernel_bytes(n, d)
        case specs.KernelDensity(bandwidths=bandwidths):
            listed.append((fit, 1))
            memory += _kernel_bytes(n, d * len(bandwidths))
        case specs.GaussianMixture() | specs.DirichletMixture():
            listed.append((fit, density.n_init))
            piece = Iterations(density.kind, density.n_components, d, n)
            typical = min(TYPICAL_ITERATIONS, density.max_iter)
            often, at_most = (density.n_init * iterations / EM_AT_ONCE for iterations in (typical, density.max_iter))
            bounded.append(Part(piece, often, at_most))
            memory += 8 * 4 * n * density.n_components
        case specs.SplineFlow() | specs.FlowMatching() | specs.SecondStage() | specs.DaiWipfSecondStage():
            updates = n // density.optimisation.batch_size
            some = min(updates, EPOCH_UPDATES * -(-least_codes(density, d)[0] // density.optimisation.batch_size))
            points = some * density.optimisation.batch_size
            epoch = replace(fit, points=points, codes=max(round(validated * some / updates), 2))
            listed.append((epoch, density.optimisation.epochs * updates / some))
            memory += count(epoch).peak_bytes
        case _:
            assert_never(density)
    host, inside = _placed(spec.compute.device, resident_bytes(modules), memory)
    return Demand(_parts(modules, listed, *bounded), 0, host, inside, state_bytes(fit))


# --- evaluation ---------------------------------------------------------------------------------------------


def _evaluate(study: Study, dataset: str, model: str) -> Demand:
    spec, data = study.evaluation(dataset, model), study.preparation(dataset)
    n, sets, network = spec.n_images, spec.image_sets, spec.training.network
    reading, decode = _reading(spec.extractor, data, spec.compute), _pass("decode", spec.training, generation.BATCH)
    encode = _pass("encode", spec.training, min(training.VALIDATION_BATCH, n))
    d, pixels = n_features(reading), _pixels(data)
    rebuilt, drawn = 1 + len(spec.through), len(spec.densities) * len(spec.sample_seeds)
    n_sets = 2 * rebuilt + drawn
    splits = dict.fromkeys((spec.reference_split, sets.reconstructed, sets.interpolated))
    listed: Listed = [
        (encode, (len(splits) + (rebuilt if sets.reconstruction_codes == "sample" else 0)) * n / encode.batch),
        (decode, (n_sets * n + rebuilt * STRIPS * STEPS) / decode.batch),
        (reading, n_sets * n / reading.batch),
        (Images("ssim", n, data.channels, data.size), rebuilt),
        *((piece, n_sets * times) for piece, times in _scores(study, dataset, d)),
        *((_density("draw", study, dataset, model, name, n), len(spec.sample_seeds)) for name in spec.densities),
    ]
    if data.is_digits:  # whose labels reconstructions are read for
        reader = _reading("digit_classifier", data, spec.compute)
        listed.append((reader, rebuilt * n / reader.batch))
    weighing = decode
    if spec.importance_samples and isinstance(spec.training.objective.latent, specs.GaussianKL):
        codes = likelihood.BATCH * spec.importance_samples
        weighing = replace(decode, batch=codes)
        listed += [(encode, n / encode.batch), (weighing, n / likelihood.BATCH)]
        judged = [_density("judge", study, dataset, model, name, codes) for name in spec.priors]
        listed += [(piece, n / likelihood.BATCH) for piece in judged]
    features = 4 * d * (data.n_train + 3 * n)
    compared = max(_pair_bytes(max(n, min(data.n_train, AMONG)), d), _moment_bytes(n, d))
    # as they are, as decoded (in parts, then joined), and some in float64, whose pixel errors are found
    images = pixels * (n * (len(splits) + 2) + 3 * 8 * min(n, COMPARED))
    decoding = max(count(piece).peak_bytes + 4 * pixels * piece.batch for piece in (decode, weighing))
    inside = parameter_bytes(network, spec.training.objective) + max(count(reading).peak_bytes, decoding)
    modules = loads.of_scoring("evaluate", spec)
    memory = _placed(spec.compute.device, resident_bytes(modules) + features + images + compared, inside)
    sheets = (
        (n_sets + 1) * SHOWN * pixels
        + rebuilt * STRIPS * STEPS * pixels
        + 4 * network.latent_dim * PLOTTED * (1 + len(spec.densities))
    )
    return Demand(_parts(modules, listed), n_sets * n, *memory, sheets)


def _density(what: Literal["draw", "judge"], study: Study, dataset: str, model: str, name: str, codes: int) -> Density:
    spec, data = study.fit(dataset, model, name), study.preparation(dataset)
    latent_dim = study.training(dataset, model).network.latent_dim
    return Density(what, spec.density, latent_dim, data.n_train - spec.leave_out_last, codes)


def _protocols(study: Study, dataset: str, model: str) -> Demand:
    spec, data = study.protocol_panel(dataset, model), study.preparation(dataset)
    most = max(protocol.n_images for protocol in spec.protocols.values())
    roundings = {protocol.rounding for protocol in spec.protocols.values()}
    readings = {
        (protocol.rounding, protocol.extractor): _reading(protocol.extractor, data, spec.compute)
        for protocol in spec.protocols.values()
    }
    decode = _pass("decode", spec.training, generation.BATCH)
    n_drawn = len(spec.densities) * len(spec.sample_seeds)
    listed: Listed = [(decode, n_drawn * len(roundings) * most / decode.batch)]
    listed += [(reading, n_drawn * most / reading.batch) for reading in readings.values()]
    for protocol in spec.protocols.values():
        n, d = protocol.n_images, n_features(_reading(protocol.extractor, data, spec.compute))
        listed.append((Metric("frechet", n, n, d, study.metrics), n_drawn))
    listed += [(_density("draw", study, dataset, model, name, most), len(spec.sample_seeds)) for name in spec.densities]
    widest = max(n_features(reading) for reading in readings.values())
    inside = parameter_bytes(spec.training.network, spec.training.objective)
    inside += max(count(piece).peak_bytes for piece in (decode, *readings.values()))
    host = (
        resident_bytes(loads.STAGES["protocols"])
        + 2 * most * (_pixels(data) + 4 * widest)
        + _moment_bytes(most, widest)
    )
    placed = _placed(spec.compute.device, host, inside)
    return Demand(_parts(loads.STAGES["protocols"], listed), n_drawn * most, *placed, 0)
