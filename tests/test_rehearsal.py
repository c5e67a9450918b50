"""Pieces of work: their counts against closed forms and published figures, and against the suite's real functions."""

import dataclasses
import itertools
import logging

import numpy as np
import pytest
import torch
from metric_settings import settings
from torch.utils.flop_counter import FlopCounterMode

from rae_bench import densities, specs, training, work
from rae_bench.config import load_study
from rae_bench.counting import counted
from rae_bench.demands import EPOCH_UPDATES, demand
from rae_bench.densities.codes import Posteriors
from rae_bench.jobs import Job
from rae_bench.rehearsal import count, n_features, parameter_bytes, prepare, resident_bytes, state_bytes
from rae_bench.work import Density, Images, Iterations, Metric, Pass, Pca, Reading, Start

STUDY = load_study("densities")
DENSITIES = {name: STUDY.fit("digits", "vae", name).density for name in STUDY.densities}
NETWORKS = {name: spec for name, spec in DENSITIES.items() if isinstance(spec, densities.NETWORKS)}
AE = STUDY.training("digits", "ae").objective
MNIST = dataclasses.replace(STUDY.training("digits", "ae").network, width=128, start_width=1024)
CELEBA = dataclasses.replace(MNIST, channels=3, size=64, kernel=5, latent_dim=64)
METRICS = ("frechet", "fid", "half_samples", "infinity", "kernel", "pairs", "prd", "nearest", "reference", "moments")


@pytest.fixture(autouse=True)
def _quiet():
    logging.getLogger("rae_bench.densities").setLevel(logging.ERROR)


def layout(network, batch):
    """FLOPs of each product of the paper's layout by hand: encoder, head, decoder, forward."""
    w, k, d = network.width, network.kernel**2, network.latent_dim
    sides = [network.size // 2**i for i in range(1, 5)]
    filters = [network.channels, w, 2 * w, 4 * w, 8 * w]
    encoder = [
        2 * batch * inputs * outputs * k * side**2
        for (inputs, outputs), side in zip(itertools.pairwise(filters), sides, strict=True)
    ]
    head = 2 * batch * d * 8 * w * sides[-1] ** 2
    n_up = {32: 2, 64: 3}[network.size]
    up = [network.start_width, *(4 * w // 2**i for i in range(n_up))]
    decoder = [2 * batch * d * network.start_width * 64]
    # every input pixel spreads over a window; the last layer keeps the size
    decoder += [2 * batch * a * b * k * (8 * 2**i) ** 2 for i, (a, b) in enumerate(itertools.pairwise(up))]
    return encoder, head, [*decoder, 2 * batch * up[-1] * network.channels * k * network.size**2]


@pytest.mark.parametrize("network", [MNIST, CELEBA], ids=["mnist", "celeba"])
def test_full_width_is_counted_without_being_run(network):
    encoder, head, decoder = layout(network, 100)
    forward = sum(encoder) + head + sum(decoder)
    pieces = {what: Pass(what, network, AE, 100, "float32") for what in ("update", "loss", "encode", "decode")}
    assert count(pieces["loss"]).flops == forward
    assert count(pieces["encode"]).flops == sum(encoder) + head
    assert count(pieces["decode"]).flops == sum(decoder)
    # gradients of weights and of inputs, but for the images
    assert count(pieces["update"]).flops == 3 * forward - encoder[0]


def test_full_width_mnist_takes_seven_gflop_an_image():
    assert count(Pass("update", MNIST, AE, 100, "float32")).flops / 100 == pytest.approx(7.1e9, rel=0.01)


def test_gradients_in_bfloat16_are_as_many():
    counts = [count(Pass("update", MNIST, AE, 10, precision)).flops for precision in ("float32", "bfloat16")]
    assert counts[0] == counts[1]


def test_a_gradient_penalty_by_hand():
    """A decoder of two dense layers: its derivative along u is taken forward, and differentiated."""
    network = specs.DenseNetwork("dense", input_dim=50, width=40, depth=1, latent_dim=6)
    penalised = dataclasses.replace(AE, regulariser=specs.GradientPenalty("gradient_penalty", 1.0))
    plain, with_penalty = (count(Pass("update", network, one, 7, "float32")).flops for one in (AE, penalised))
    inner, outer = 2 * 7 * 6 * 40, 2 * 7 * 40 * 50
    # forward, a layer: the derivative, and a product with the weights' zero tangent. Backward: of the derivative by the
    # weights and, but for u, by its factor; of the other product by its factor alone, times zero
    assert with_penalty - plain == (2 + 2) * inner + (2 + 3) * outer


def test_the_official_penalty_by_hand():
    """The gradient of the summed squares of x̂ by the code is a backward pass, and is differentiated."""
    network = specs.DenseNetwork("dense", input_dim=50, width=40, depth=1, latent_dim=6)
    penalised = dataclasses.replace(AE, regulariser=specs.OutputGradient("output_gradient", 1.0))
    plain, with_penalty = (count(Pass("update", network, one, 7, "float32")).flops for one in (AE, penalised))
    # a layer: the gradient by its input; then back through that product to the weights and to its other factor
    assert with_penalty - plain == 3 * (2 * 7 * 6 * 40 + 2 * 7 * 40 * 50)


def test_parameters_are_the_papers():
    """Trainable ones and batch norm's statistics, as in Ghosh et al.'s code: float32, and an int64 per norm."""
    weights = 11_087_248 + 11_607_809
    assert parameter_bytes(MNIST, AE) == 4 * weights + 8 * 6


@pytest.mark.parametrize("model", ["vae", "wae", "rae_gp", "rae_sn"])
def test_a_forecast_of_training_is_what_training_does(model):
    data = dataclasses.replace(STUDY.preparation("digits"), n_train=150, n_validation=70)
    spec = STUDY.training("digits", model)
    spec = dataclasses.replace(spec, optimisation=dataclasses.replace(spec.optimisation, epochs=2, batch_size=40))
    study = dataclasses.replace(
        STUDY,
        datasets={"digits": dataclasses.replace(STUDY.datasets["digits"], data=data)},
        trainings={("digits", model): spec},
    )
    needs = demand(study, Job("train", f"digits/{model}/seed0", None))
    images, held_out = (torch.zeros(n, 1, 32, 32, dtype=torch.uint8) for n in (150, 70))
    with FlopCounterMode(display=False) as flops:
        trained = training.train(spec.network, spec.objective, spec.optimisation, images, held_out, seed=0)
        for part in (images, held_out):
            training.encode(trained.model, part)
    assert sum(part.times * count(part.piece).flops for part in needs.parts) == pytest.approx(flops.get_total_flops())
    assert needs.images == 2 * (120 + 70) + 220


def _codes(n, d=16):
    rng = np.random.default_rng(0)
    return Posteriors(rng.standard_normal((n, d), dtype=np.float32), np.zeros((n, d), dtype=np.float32))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_forecast_of_a_network_of_codes_is_what_its_fit_does(name):
    batch = NETWORKS[name].optimisation.batch_size
    n = (EPOCH_UPDATES + 1) * batch + 3
    spec = dataclasses.replace(NETWORKS[name], optimisation=dataclasses.replace(NETWORKS[name].optimisation, epochs=2))
    data = dataclasses.replace(STUDY.preparation("digits"), n_train=n, n_validation=90)
    study = dataclasses.replace(
        STUDY,
        datasets={"digits": dataclasses.replace(STUDY.datasets["digits"], data=data)},
        fits={("digits", "vae", name): dataclasses.replace(STUDY.fit("digits", "vae", name), density=spec)},
    )
    needs = demand(study, Job("fit", f"digits/vae/seed0/{name}", None))
    train, held_out = _codes(n), _codes(90)
    with FlopCounterMode(display=False) as flops:
        fitted = densities.fit(spec, train, held_out, 0)
        for part in (train, held_out):
            fitted.log_density(part.mean)
    expected = sum(part.times * (count(part.piece).flops - work.host_flops(part.piece)) for part in needs.parts)
    assert expected == pytest.approx(flops.get_total_flops(), rel=0.01)
    with FlopCounterMode(display=False) as flops:
        fitted.sample(123, np.random.default_rng(0))
    piece = Density("draw", spec, 16, n, 123)
    assert count(piece).flops - work.host_flops(piece) == pytest.approx(flops.get_total_flops())
    assert needs.disk_bytes == state_bytes(piece) == sum(array.nbytes for array in fitted.state().values())


def test_metrics_by_hand():
    def flops(what, n, m, d, **changes):
        return work.host_flops(Metric(what, n, m, d, settings(**changes)))

    assert flops("nearest", 3000, 1000, 128) == 2 * 3000 * 1000 * 128
    assert flops("pairs", 3000, 1000, 128) == 2 * 1000**2 * 128 + 2 * 3000 * 1000 * 128
    assert flops("kernel", 999, 999, 10, kernel_subsets=7, kernel_subset_size=50) == 7 * 3 * 2 * 50**2 * 10
    assert flops("kernel", 90, 80, 10, kernel_subsets=7, kernel_subset_size=50) == 2 * (90**2 + 80**2 + 90 * 80) * 10
    cubes = 2 * 2 * 64**3 + 4 / 3 * 64**3  # F C F, and its eigenvalues
    assert flops("frechet", 1000, 500, 64) == pytest.approx(2 * 500 * 64**2 + cubes)
    assert flops("half_samples", 1000, 500, 64, half_samples=9) == pytest.approx(9 * (2 * 250 * 64**2 + cubes))
    assert flops("infinity", 200, 200, 64) == 0  # too few for it
    assert flops("infinity", 2000, 2000, 64) > 0


def test_fewer_images_than_features_are_compared_in_their_own_dimensions():
    """Singular values of 100 x 80, and the product before them; the same whichever set is the smaller."""
    one, two = (work.host_flops(Metric("frechet", n, m, 500, settings())) for n, m in ((100, 80), (80, 100)))
    assert one == two == 2 * 100 * 80 * 500 + 4 * 100 * 80**2 - 4 / 3 * 80**3


def test_an_iteration_of_em_by_hand():
    """Every code with every component's factor, then every component's covariance; a last pass over the first."""
    piece = Iterations("mixture", 10, 16, 3000)
    each = 2 * 3000 * 10 * 16**2
    assert work.host_flops(piece) == work.EM_AT_ONCE * 2 * each + each


@pytest.mark.parametrize(
    ("extractor", "features", "gigaflops"),
    [
        ("inception_v3_compat", 2048, 2 * 5.71),  # multiply-adds as published for 299 pixels
        ("efficientnet_lite0", 1280, 2 * 0.385 * (96 / 224) ** 2),  # Google's 407 M at 224 pixels, less the classifier
        ("pixels", 64 * 3, 0),
        pytest.param("dinov2_vit_l_14", 1024, 2 * 81.0, marks=pytest.mark.slow),
    ],
)
def test_feature_networks_cost_what_is_published(extractor, features, gigaflops):
    piece = Reading(extractor, 3, 32, 64)
    assert n_features(piece) == features
    assert count(piece).flops / 64e9 == pytest.approx(gigaflops, rel=0.02, abs=1e-9)


@pytest.mark.parametrize(("extractor", "channels"), [("digit_classifier", 1), ("efficientnet_lite0", 3)])
def test_memory_of_a_batch_of_features_is_told_from_few_images(extractor, channels):
    whole = prepare(Reading(extractor, channels, 32, 40), "cpu")
    expected = counted(whole.run, whole.held).peak_bytes
    assert count(Reading(extractor, channels, 32, 40)).peak_bytes == pytest.approx(expected, rel=0.1)


CATALOGUE = [
    *(Pass(what, STUDY.training("digits", "vae").network, AE, 8, "float32") for what in ("update", "loss", "encode")),
    Pass("decode", STUDY.training("digits", "vae").network, AE, 8, "float32"),
    *(Reading(name, 1, 32, 4) for name in ("digit_classifier", "pixels")),
    Reading("face_classifier", 3, 64, 4),
    *(Density(what, spec, 8, 2000, 20) for spec in DENSITIES.values() for what in ("fit", "draw", "judge")),
    *(Iterations(kind, 3, 4, 200) for kind in ("mixture", "dirichlet_mixture")),
    *(Metric(what, 300, 200, 16, settings()) for what in METRICS),
    Pca(100, 40, 64, 5),
    Images("render", 3, 3, 64),
    Images("ssim", 3, 1, 32),
    Start(("json",)),
]


def _id(piece):
    data = getattr(piece, "density", None)
    return "-".join([type(piece).__name__, getattr(piece, "what", ""), getattr(data, "kind", "")])


@pytest.mark.parametrize("piece", CATALOGUE, ids=_id)
def test_every_piece_runs_whole_and_made_smaller(piece):
    small = work.reduced(piece, 0.0)
    assert type(small) is type(piece)
    assert count(small).flops <= count(piece).flops
    assert work.reduced(piece, 1.0) == piece
    for one in (small, work.reduced(piece, 0.5)):
        prepare(one, "cpu").run()


def test_a_process_that_imports_more_is_larger():
    assert 5e6 < resident_bytes(("json",)) < 5e7 < resident_bytes(("numpy", "json", "scipy.linalg")) < 5e8
