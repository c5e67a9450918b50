"""One model to numbers: every image set decoded and scored, against numbers computed here from the network itself."""

import copy
import dataclasses
import itertools

import numpy as np
import pytest
import torch
from metric_settings import settings
from planted import fit

from rae_bench.base.rng import numpy_generator
from rae_bench.densities.gaussian import FittedGaussian
from rae_bench.models import training
from rae_bench.models.autoencoder import Codes
from rae_bench.scoring import classifiers, evaluation, generation
from rae_bench.scoring.catalogue import load_extractor
from rae_bench.scoring.metrics.frechet import between
from rae_bench.scoring.metrics.memorisation import Training
from rae_bench.scoring.metrics.reference import Reference
from rae_bench.scoring.specs import Protocol, ProtocolSpec
from rae_bench.study.config import load_study

N = 60
STUDY = load_study("smoke")
SPEC = dataclasses.replace(
    STUDY.evaluation("digits_mini", "vae"),
    metrics=settings(kernel_subset_size=40),
    n_images=N,
    n_generated=N + 20,
    sample_seeds=(0, 1),
    densities=("spread", "collapsed", "second_stage"),
    fit_seeds={"spread": (0, 3), "collapsed": (0,), "second_stage": (0, 1)},
    through=("second_stage",),
    priors=("spread", "collapsed"),
    importance_samples=0,
)
METRICS = {
    *("frechet_distance", "frechet_distance_half_sd", "kernel_distance", "kernel_distance_subset_sd", "kernel_mmd2"),
    *("precision", "recall", "density", "coverage", "prd_f8", "prd_f8_sd", "prd_f1_8", "prd_f1_8_sd"),
    "nearest_training_ratio",
}
"""No extrapolation: 60 images are too few for 128 features."""
OF_DRAWS = {"frechet_distance", "kernel_distance", "kernel_distance_subset_sd"}
"""What is measured of every draw of every fit; of each fit's first draw, all of METRICS but the half-sampling SD."""
OF_RECONSTRUCTIONS = METRICS | {"squared_error", "psnr", "ssim", "label_agreement"}


def subject(spec, model, densities, reference, copies, images, labels, extractor, seed):
    """As the default study has it: all image sets are made of the reference images; and what they are held against."""
    made = evaluation.Subject(
        spec=spec,
        extractor=extractor,
        seed=seed,
        model=model,
        densities=densities,
        images={"test": images},
        labels=labels,
    )
    return made, ruler(spec, reference, copies)


def ruler(spec, reference, copies):
    """What any run is held against; precision-recall curves, too, are of the reference."""
    return evaluation.Ruler(spec=spec, reference=reference, prd_reference=reference, training=copies)


def scored(subject, ruler):
    """Every image set of a subject, made and measured."""
    return evaluation.measured(ruler, evaluation.made(subject))


@pytest.fixture(scope="module")
def images(digit_images):
    return digit_images[:N]


@pytest.fixture(scope="module")
def extractor():
    return load_extractor("digit_classifier")


@pytest.fixture(scope="module")
def model(digits):
    spec = STUDY.training("digits_mini", "rae_l2")
    data = training.to_device(digits.images[digits.splits["train"][:1000]], "cpu")
    return training.train(spec, data, data[:100], seed=0).model


@pytest.fixture(scope="module")
def densities(model, images):
    codes = means(model, images)
    stage = STUDY.fit("digits_mini", "vae", "second_stage").density
    stage = dataclasses.replace(stage, optimisation=dataclasses.replace(stage.optimisation, epochs=3, batch_size=20))
    return {
        "spread": {0: FittedGaussian.of(codes), 3: FittedGaussian.of(codes[: N // 2])},
        "collapsed": {0: FittedGaussian(codes[0].astype(np.float64), 1e-4 * np.eye(codes.shape[1]))},
        "second_stage": {seed: fit(stage, codes, codes, seed) for seed in (0, 1)},
    }


@pytest.fixture(scope="module")
def copies(digit_images, images, extractor):
    return Training.of(extractor(digit_images[N : 3 * N]), extractor(images))


@pytest.fixture(scope="module")
def run(model, densities, images, digit_labels, extractor, copies):
    reference = Reference.of(extractor(images), 5)

    def run(seed=0, labels=digit_labels[:N], spec=SPEC, device="cpu"):
        spec = dataclasses.replace(spec, compute=dataclasses.replace(spec.compute, device=device))
        there = copy.deepcopy(model).to(device), load_extractor("digit_classifier", device)
        return scored(*subject(spec, there[0], densities, reference, copies, images, labels, there[1], seed))

    return run


@pytest.fixture(scope="module")
def evaluated(run):
    return run()


def means(model, images):
    with torch.no_grad():
        return model.mean(model.features(torch.from_numpy(images).float() / 255)).numpy()


def decoded(model, codes):
    with torch.no_grad():
        return np.round(255 * model.decoder(torch.from_numpy(codes)).numpy()).astype(np.uint8)


def frechet(real, fake):
    """By symmetric matrix roots; the suite uses the eigenvalues of a product."""
    one, two = np.cov(real.T.astype(np.float64)), np.cov(fake.T.astype(np.float64))
    values, vectors = np.linalg.eigh(one)
    root = vectors * np.sqrt(np.clip(values, 0, None)) @ vectors.T
    cross = np.sqrt(np.clip(np.linalg.eigvalsh(root @ two @ root), 0, None)).sum()
    shift = real.mean(axis=0) - fake.mean(axis=0)
    return shift @ shift + np.trace(one) + np.trace(two) - 2 * cross


def value(evaluated, image_set, metric, density="", fit_seed=0, sample_seed=0):
    wanted = {"image_set": image_set, "metric": metric, "density": density}
    wanted |= {"fit_seed": fit_seed, "sample_seed": sample_seed}
    (found,) = [row["value"] for row in evaluated.rows if wanted.items() <= row.items()]
    return found


# --- what is evaluated ------------------------------------------------------------------------------------


def test_every_image_set_has_every_metric_once(evaluated):
    names = ("image_set", "density", "fit_seed", "sample_seed", "metric")
    found = {tuple(row[name] for name in names): row["n_generated"] for row in evaluated.rows}
    assert len(found) == len(evaluated.rows)
    expected = {}
    for density, fit_seed in (("", 0), ("second_stage", 0), ("second_stage", 1)):
        expected |= {("reconstruction", density, fit_seed, 0, metric): N for metric in OF_RECONSTRUCTIONS}
        expected |= {("interpolation", density, fit_seed, 0, metric): N for metric in METRICS}
    for density, fit_seeds in SPEC.fit_seeds.items():
        for fit_seed in fit_seeds:
            first = METRICS - {"frechet_distance_half_sd"}
            expected |= {("sample", density, fit_seed, 0, metric): N for metric in first}
            draws = itertools.product((0, 1), OF_DRAWS)
            expected |= {("sample", density, fit_seed, draw, metric): N + 20 for draw, metric in draws}
        expected["sample", density, 0, 0, "frechet_distance_reference_sd"] = N + 20
    assert found == expected
    assert all(np.isfinite(row["value"]) for row in evaluated.rows)


def test_every_fit_and_draw_is_of_its_own_density_and_seed(evaluated, model, densities, images, extractor):
    real = extractor(images)
    for (fit_seed, fitted), draw in itertools.product(densities["spread"].items(), SPEC.sample_seeds):
        codes = fitted.sample(N + 20, numpy_generator(0, "sample", "spread", fit_seed, draw))
        expected = frechet(real, extractor(decoded(model, codes)))
        found = value(evaluated, "sample", "frechet_distance", "spread", fit_seed, draw)
        assert found == pytest.approx(expected, rel=1e-2)


def test_sheets_show_images_of_every_set(evaluated, images):
    sheets = evaluated.sheets
    np.testing.assert_array_equal(sheets["original"], images[:36])
    for name in ("reconstruction", "sample.spread", "sample.second_stage"):
        assert sheets[name].shape == (36, 1, 32, 32)
        assert sheets[name].dtype == np.uint8
    for name in ("interpolation", "interpolation.second_stage"):
        assert sheets[name].shape == (6 * 8, 1, 32, 32)


def test_strips_of_interpolations_begin_and_end_at_reconstructions(evaluated, model, images):
    rebuilt = decoded(model, means(model, images)).astype(int)
    strips = evaluated.sheets["interpolation"].reshape(6, 8, 1, 32, 32).astype(int)
    for end in strips[:, [0, -1]].reshape(12, 1, 32, 32):
        assert min(np.abs(rebuilt - end).max(axis=(1, 2, 3))) <= 1  # another batch may round one level away


# --- numbers ----------------------------------------------------------------------------------------------


def test_reconstructions_are_scored_by_their_pixels_and_classes(evaluated, model, images, digit_labels):
    rebuilt = decoded(model, means(model, images))
    error = np.mean([np.sum((x / 255 - y / 255) ** 2) for x, y in zip(images, rebuilt, strict=True)])
    assert value(evaluated, "reconstruction", "squared_error") == pytest.approx(error, rel=1e-3)
    with torch.no_grad():
        answers = classifiers.digit_classifier()(torch.from_numpy(rebuilt).float() / 255).argmax(dim=1).numpy()
    agreement = np.mean(answers == digit_labels[:N])
    assert value(evaluated, "reconstruction", "label_agreement") == pytest.approx(agreement, abs=1 / N)
    assert 0.2 < agreement < 1


def test_distances_are_those_of_the_decoded_images(evaluated, model, densities, images, extractor):
    codes = means(model, images)
    through = densities["second_stage"][0].through(codes)
    real = extractor(images)
    for density, rebuilt in (("", codes), ("second_stage", through)):
        expected = frechet(real, extractor(decoded(model, rebuilt)))
        # 60 images leave 69 of 128 dimensions empty: √ε each; and a level of rounding
        assert value(evaluated, "reconstruction", "frechet_distance", density) == pytest.approx(expected, rel=1e-2)


def test_interpolations_are_mid_points_of_codes_or_of_a_second_stages_own(
    evaluated, model, densities, images, extractor
):
    codes, stage = means(model, images), densities["second_stage"][0]
    pairs = generation.interpolation_pairs(N, seed=0)
    inner = stage.to_inner(codes)
    for density, middle in (
        ("", (codes[pairs[:, 0]] + codes[pairs[:, 1]]) / 2),
        ("second_stage", stage.from_inner((inner[pairs[:, 0]] + inner[pairs[:, 1]]) / 2)),
    ):
        expected = frechet(extractor(images), extractor(decoded(model, middle)))
        assert value(evaluated, "interpolation", "frechet_distance", density) == pytest.approx(expected, rel=1e-2)
    rebuilt = value(evaluated, "reconstruction", "frechet_distance")
    assert value(evaluated, "interpolation", "frechet_distance") > 1.1 * rebuilt


class Identity(torch.nn.Module):
    """A model whose codes are its pixels."""

    pixels = 32 * 32

    def __init__(self):
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def encode(self, x):
        return Codes(x.flatten(1), None)

    def decode(self, z):
        return z.unflatten(1, (1, 32, 32))


def test_a_perfect_model_is_perfect(images, digit_labels, extractor, copies):
    spec = dataclasses.replace(SPEC, densities=(), through=())
    reference = Reference.of(extractor(images), 5)
    found = scored(*subject(spec, Identity(), {}, reference, copies, images, digit_labels[:N], extractor, seed=0))
    assert value(found, "reconstruction", "nearest_training_ratio") == pytest.approx(1)
    assert value(found, "reconstruction", "ssim") == pytest.approx(1)
    # no error at all counts as half a level in one of 1,024 pixels
    assert value(found, "reconstruction", "psnr") == pytest.approx(10 * np.log10(1024 * 510**2))
    assert value(found, "reconstruction", "squared_error") == 0
    assert value(found, "reconstruction", "frechet_distance") == pytest.approx(0, abs=1e-4)
    assert value(found, "reconstruction", "precision") == value(found, "reconstruction", "recall") == 1
    assert value(found, "interpolation", "frechet_distance") > 0.01


# --- seeds ------------------------------------------------------------------------------------------------


def test_an_evaluation_repeats_itself(run, evaluated):
    again = run()
    assert again.rows == evaluated.rows
    assert all(np.array_equal(again.sheets[name], sheet) for name, sheet in evaluated.sheets.items())


def test_on_a_gpu_it_repeats_itself_and_is_the_cpus_but_for_rounding(run, evaluated, device):
    """A decoded value at the edge of two grey levels may fall to either side, and with it a neighbour or two of N."""
    found = run(device=device)
    if device == "cuda":
        assert run(device=device).rows == found.rows
    for ours, theirs in zip(found.rows, evaluated.rows, strict=True):
        assert {**ours, "value": 0.0} == {**theirs, "value": 0.0}
        assert ours["value"] == pytest.approx(theirs["value"], rel=2e-3, abs=2.5 / N), ours


def test_samples_differ_between_sample_seeds_and_training_seeds_and_nothing_else_does(run, evaluated):
    assert value(evaluated, "sample", "frechet_distance", "spread", sample_seed=0) != value(
        evaluated, "sample", "frechet_distance", "spread", sample_seed=1
    )
    other = run(seed=1)
    for ours, theirs in zip(evaluated.rows, other.rows, strict=True):
        if ours["image_set"] != "sample":
            assert ours == theirs
    assert value(other, "sample", "frechet_distance", "spread") != value(
        evaluated, "sample", "frechet_distance", "spread"
    )


def test_a_densitys_samples_do_not_depend_on_the_others(run, evaluated):
    alone = run(spec=dataclasses.replace(SPEC, densities=("second_stage",), through=()))
    ours = [row for row in evaluated.rows if (row["image_set"], row["density"]) == ("sample", "second_stage")]
    assert ours == [row for row in alone.rows if row["image_set"] == "sample"]


def test_equal_densities_of_other_names_draw_other_samples(model, densities, images, extractor, copies):
    spec = dataclasses.replace(SPEC, densities=("one", "two"), through=())
    both = dict.fromkeys(("one", "two"), densities["spread"])
    reference = Reference.of(extractor(images), 5)
    found = scored(*subject(spec, model, both, reference, copies, images, None, extractor, seed=0))
    assert not np.array_equal(found.sheets["codes.one"], found.sheets["codes.two"])


# --- likelihood, protocols, attributes ----------------------------------------------------------------------


def test_a_vaes_images_have_a_likelihood_under_each_prior(densities, images):
    training_spec = STUDY.training("digits_mini", "vae")
    data = training.to_device(images, "cpu")
    one_epoch = dataclasses.replace(training_spec.optimisation, epochs=1)
    vae = training.train(dataclasses.replace(training_spec, optimisation=one_epoch), data, data, seed=0).model
    spec = dataclasses.replace(SPEC, densities=(), through=(), importance_samples=3)
    assert spec.training.objective == training_spec.objective
    reference = Reference.of(np.zeros((N, 2), np.float32) + np.arange(N)[:, None], 5)

    def constant(made):
        return np.zeros((len(made), 2), np.float32) + np.arange(len(made))[:, None] + 0.5

    copies = Training.of(reference.features + 0.3, reference.features)
    found = scored(*subject(spec, vae, densities, reference, copies, images, None, constant, seed=0))
    bound = value(found, "reference", "evidence_bound")
    spread = value(found, "reference", "log_likelihood_images", "spread")
    collapsed = value(found, "reference", "log_likelihood_images", "collapsed")
    assert np.isfinite(bound)
    assert collapsed < spread  # a prior of one point explains nothing


def test_models_without_a_kl_term_have_no_likelihood(run):
    spec = dataclasses.replace(SPEC, training=STUDY.training("digits_mini", "rae_l2"), importance_samples=3)
    assert "reference" not in {row["image_set"] for row in run(spec=spec).rows}


def test_the_panel_scores_the_same_samples_by_other_protocols(model, densities, images, digit_images):
    own = Protocol("test", "round", "digit_classifier", 40, 50)
    panel = {
        "own": own,
        "half": dataclasses.replace(own, n_images=20),
        "fewer": dataclasses.replace(own, n_generated=30),
        "truncated": dataclasses.replace(own, rounding="truncate"),
        "pixels": dataclasses.replace(own, extractor="pixels"),
        "other": dataclasses.replace(own, reference_split="validation"),
    }
    extractors = {name: load_extractor(name) for name in ("digit_classifier", "pixels")}
    real = {name: images[: protocol.n_images] for name, protocol in panel.items()} | {"other": digit_images[100:140]}
    references = {name: Reference.of(extractors[protocol.extractor](real[name]), 0) for name, protocol in panel.items()}
    spec = ProtocolSpec(
        1, STUDY.training("digits_mini", "rae_l2"), panel, {}, ("spread",), (0, 1), {}, STUDY.file.compute
    )
    rows = evaluation.score_protocols(spec, model, densities, references, extractors, seed=0)
    assert len(rows) == len(panel) * 2
    found = {row["protocol"]: row["value"] for row in rows if row["sample_seed"] == 0}
    drawn = densities["spread"][0].sample(50, numpy_generator(0, "sample", "spread", 0, 0))  # the first fit alone
    made = {rounding: generation.decode(model, drawn, rounding) for rounding in ("round", "truncate")}
    for name, protocol in panel.items():
        fake = extractors[protocol.extractor](made[protocol.rounding])[: protocol.n_generated]
        expected = between(extractors[protocol.extractor](real[name]), fake)
        assert found[name] == pytest.approx(expected, rel=1e-6, abs=1e-9), name
    assert len(set(found.values())) == len(panel)


def test_faces_are_held_against_the_law_that_drew_them():
    from rae_bench.base.rng import numpy_generator
    from rae_bench.data import faces

    drawn = faces.draw_factors(400, numpy_generator(5, "test"))
    found = evaluation.attribute_metrics(faces.render(drawn, 64))
    assert found["attribute_error"] < 0.06
    assert found["mode_coverage"] > 0.95
    only = {**drawn, "hair": np.zeros(400)}
    one_colour = evaluation.attribute_metrics(faces.render(only, 64))
    assert one_colour["attribute_error_hair"] == pytest.approx(0.8, abs=0.02)  # of five, equally likely
    assert one_colour["mode_coverage"] < 0.3


# --- given images -----------------------------------------------------------------------------------------

GIVEN = dataclasses.replace(
    STUDY.evaluation("digits_mini", "training_images"), metrics=SPEC.metrics, n_images=N, n_generated=N + 20
)


def test_given_images_are_scored_as_samples_in_a_random_order(digit_images, images, extractor, copies):
    """Forty images for eighty samples: every one of them twice, in each of two draws, once before any a second time."""
    train, reference = digit_images[N : N + 40], Reference.of(extractor(images), 5)
    spec = dataclasses.replace(GIVEN, sample_seeds=(0, 1))
    seen = []

    def watched(batch):
        seen.append(batch)
        return extractor(batch)

    source = evaluation.Given(spec=spec, extractor=watched, seed=2, sets={"train_images": train})
    found = scored(source, ruler(spec, reference, copies))
    assert {(row["image_set"], row["density"], row["fit_seed"]) for row in found.rows} == {
        ("sample", "train_images", 0)
    }
    assert {row["metric"] for row in found.rows if row["sample_seed"] == 0} == (
        METRICS - {"frechet_distance_half_sd"} | {"frechet_distance_reference_sd"}
    )
    assert {row["metric"] for row in found.rows if row["sample_seed"] == 1} == OF_DRAWS
    for draw, batch in enumerate(seen):
        for half in (batch[:40], batch[40:]):
            assert sorted(image.tobytes() for image in half) == sorted(image.tobytes() for image in train)
        expected = frechet(extractor(images), extractor(batch))
        measured = value(found, "sample", "frechet_distance", "train_images", sample_seed=draw)
        assert measured == pytest.approx(expected, rel=1e-4)
    assert not np.array_equal(seen[0], seen[1])
    assert not np.array_equal(seen[0][:40], seen[0][40:])
    assert value(found, "sample", "nearest_training_ratio", "train_images") == 0
    np.testing.assert_array_equal(found.sheets["sample.train_images"], seen[0][: evaluation.SHOWN])
    assert evaluation.densities_for(spec, "train_images") == ()


# --- reconstructions ------------------------------------------------------------------------------------------


def test_errors_are_summed_over_pixels_on_the_scale_of_one():
    x = np.zeros((2, 1, 12, 12), dtype=np.uint8)
    y = x.copy()
    y[0, 0, 0, :2] = 255
    y[1, 0, 1, 1] = 51  # a fifth
    for found in (evaluation.pixel_errors(x, y), evaluation.pixel_errors(y, x)):  # uint8 differences do not wrap
        np.testing.assert_allclose(found, [2, 0.04])
    found = evaluation.reconstruction_metrics(x, y, None)
    assert sorted(found) == ["psnr", "squared_error", "ssim"]
    assert found["squared_error"] == pytest.approx((2 + 0.04) / 2)
    assert found["psnr"] == pytest.approx(np.mean(10 * np.log10([144 / 2, 144 / 0.04])))
