"""Every named setting, switched alone, changes a number: the whole path from images to metrics, at a small scale.

A setting of the paper's data sets is tried on the embedded one that follows the first of them: digits, photos or faces.
That its patches for the others are right too, tests/study/test_protocols.py shows by the official configurations.
"""

import dataclasses
import functools

import pytest
import yaml

from rae_bench.base.rng import derive
from rae_bench.data import catalogue as sources
from rae_bench.densities import catalogue as densities
from rae_bench.densities.codes import Posteriors
from rae_bench.models import training
from rae_bench.models.specs import TrainingSpec
from rae_bench.scoring import evaluation
from rae_bench.scoring.catalogue import load_extractor
from rae_bench.scoring.metrics.memorisation import Training
from rae_bench.scoring.metrics.reference import Reference
from rae_bench.study.config import CONFIG, load_study, resolve_study

pytestmark = pytest.mark.slow

SETTINGS = yaml.safe_load((CONFIG / "settings.yaml").read_text())
PROTOCOLS = yaml.safe_load((CONFIG / "protocols.yaml").read_text())
STANDS_FOR = {"mnist": "digits", "cifar10": "photos", "celeba": "faces"}
BUDGETS = {"digits": "digits_smoke", "photos": "photos_quick", "faces": "faces_quick"}
N_TRAIN = {"digits": 320, "photos": 320, "faces": 1000}
"""1,000 faces make one of the VAE's large batches."""


def cases():
    """Each setting once, on the first data set it names, with a model that it touches."""
    for name, setting in SETTINGS.items():
        touched = {
            (like, patch["of"][0], patch["target"])
            for patch in setting["patches"]
            for like in (STANDS_FOR if patch["like"] == ["any"] else patch["like"])
        }
        like = min((like for like, _, _ in touched), key=list(STANDS_FOR).index)
        of, target = min((of, target) for found, of, target in touched if found == like)
        yield pytest.param(name, STANDS_FOR[like], {"any": "vae"}.get(of, of), target, id=f"{name}-{like}")


@functools.cache
def study(dataset, switch):
    file = dataclasses.replace(
        load_study("smoke").file,
        datasets={dataset: BUDGETS[dataset]},
        rows=load_study("embedded").file.rows,
        n_images=100,
        n_generated=100,
        sample_seeds=(0,),
        protocols={},
        tables=("table1",),
        importance_samples=0,
        switches={switch: True} if switch else {},
    )
    return resolve_study("smoke", file)


@functools.cache
def images(dataset):
    spec = dataclasses.replace(
        study(dataset, "").preparation(dataset), n_train=N_TRAIN[dataset], n_validation=160, n_test=100
    )
    prepared = sources.prepare(spec)
    made = {split: prepared.images[indices] for split, indices in prepared.splits.items()}
    # as datasets.load_split reads it: both in one line, less as many at its front as there are validation images
    import numpy as np

    made["overlapping"] = np.concatenate([made["train"], made["validation"]])[len(made["validation"]) :]
    return made


def small(spec):
    """A training of some hundred updates with few filters; what a setting changes stays, if on a smaller scale."""
    network = dataclasses.replace(
        spec.network, width=spec.network.width // 2, start_width=8, latent_dim=min(spec.network.latent_dim, 4)
    )
    epochs = {70: 3, 100: 4}.get(spec.optimisation.epochs, 2 if spec.network.size == 64 else 10)
    return dataclasses.replace(
        spec, network=network, optimisation=dataclasses.replace(spec.optimisation, epochs=epochs)
    )


@functools.cache
def numbers(dataset, model, switch):
    """Every metric of the model's image sets, by name."""
    made, chosen = images(dataset), study(dataset, switch)
    spec = small(chosen.training(dataset, model))
    on_device = {split: training.to_device(array, "cpu") for split, array in made.items()}
    data, validation = on_device["train"], on_device[spec.validation_split]
    run = training.train(spec, data, validation, seed=0)
    trained = run.model
    codes = {split: training.encode(trained, on_device[split]) for split in ("train", "validation")}
    parts = {split: Posteriors(found["mean"], found.get("log_sigma")) for split, found in codes.items()}
    fitted = {}
    for row in [row for row in chosen.rows.values() if row.model == model]:
        for name in {row.n, row.gmm} - {""}:
            fit = chosen.fit(dataset, model, name)
            kept = parts["train"].without_last(fit.leave_out_last)
            fitted[name] = {0: densities.fit(fit.density, kept, parts["validation"], derive(0, name))}
    extractor = load_extractor("pixels")
    evaluate = dataclasses.replace(
        chosen.evaluation(dataset, model), training=spec, extractor="pixels", densities=tuple(fitted), has_factors=False
    )
    sets = evaluate.image_sets
    reference, prd_reference = (
        Reference.of(extractor(made[split][:100]), 5) for split in (evaluate.reference_split, sets.prd_reference)
    )
    subject = evaluation.Subject(
        spec=evaluate,
        model=trained,
        densities=fitted,
        images={
            split: made[split][:100] for split in (evaluate.reference_split, sets.reconstructed, sets.interpolated)
        },
        labels=None,
        extractor=extractor,
        seed=0,
    )
    found = evaluation.measured(
        evaluation.Ruler(
            spec=evaluate,
            reference=reference,
            prd_reference=prd_reference,
            training=Training.of(extractor(made["train"]), reference.features),
        ),
        evaluation.made(subject),
    )
    values = {(row["image_set"], row["density"], row["metric"]): row["value"] for row in found.rows}
    history = {("history", row["epoch"], name): value for row in run.history for name, value in row.items()}
    return values | history, {(key, row.n, row.gmm) for key, row in chosen.rows.items()}


@pytest.mark.parametrize(("setting", "dataset", "model", "target"), list(cases()))
def test_a_setting_switched_alone_changes_a_number(setting, dataset, model, target):
    with_it, shown = numbers(dataset, model, setting)
    without, shown_before = numbers(dataset, model, "")
    if target == "rows":  # another density stands in the column: its numbers are those the column shows
        assert shown != shown_before
    assert with_it != without


def test_every_setting_is_in_a_protocol_or_says_that_it_is_undetermined():
    used = {name for protocol in PROTOCOLS.values() for name in protocol["settings"]}
    assert {name for name in SETTINGS if name not in used} == {"spherical_midpoints", "rescaled_midpoints"}


def test_the_specs_of_a_switch_differ_in_what_it_names_only():
    """One field of the training specification, for instance; the rest is the study's."""
    before, after = (study("digits", switch).training("digits", "rae_l2") for switch in ("", "file_order"))
    changed = dataclasses.replace(before.optimisation, order="file")
    assert after == dataclasses.replace(before, optimisation=changed)
    assert isinstance(after, TrainingSpec)
