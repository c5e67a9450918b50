"""Settings laid over a study: what they change, where, and what they must not be."""

import csv
import dataclasses
import re

import pytest
import yaml
from checkout import ROOT

from rae_bench import cli
from rae_bench.base.plain import ConfigError
from rae_bench.study.config import CONFIG, load_study, resolve_study
from rae_bench.study.protocols import Patch, Setting, changes, laid_over, merge, parse_settings

SETTINGS = yaml.safe_load((CONFIG / "settings.yaml").read_text())
MODELS, ROWS = ["vae", "rae"], ["vae", "rae", "two_stage_vae"]


def patch(**changes):
    return {"like": ["any"], "of": ["any"], "target": "training", "set": {"epochs": 3}, **changes}


def setting(*patches):
    return {"what": "w", "source": "s", "stands_in": "code", "effect": "e", "note": "", "patches": list(patches)}


def study(**changes):
    """The smoke study with changes, and without its panel, whose truncated samples would be the study's own."""
    file = dataclasses.replace(load_study("smoke").file, protocols={}, tables=("table1",))
    return resolve_study("smoke", dataclasses.replace(file, **changes))


# --- laying one over the other ----------------------------------------------------------------------------


def test_a_change_replaces_leaves_and_keeps_the_rest():
    data = {"a": 1, "b": {"c": 2, "d": [1, 2]}}
    assert merge(data, {"b": {"d": [3]}}, "here") == {"a": 1, "b": {"c": 2, "d": [3]}}
    assert data == {"a": 1, "b": {"c": 2, "d": [1, 2]}}


def test_another_kind_replaces_the_whole():
    data = {"term": {"kind": "weight_l2", "weight": 1.0, "scope": "all"}}
    assert merge(data, {"term": {"kind": "none"}}, "here") == {"term": {"kind": "none"}}
    same = {"term": {"kind": "weight_l2", "weight": 2.0}}
    assert merge(data, same, "here") == {"term": {"kind": "weight_l2", "weight": 2.0, "scope": "all"}}


def test_a_key_that_is_not_there_is_refused():
    with pytest.raises(ConfigError, match=re.escape("here.b.e: unknown key 'e'")):
        merge({"b": {"c": 2}}, {"b": {"e": 1}}, "here")


def test_settings_apply_in_the_protocols_order_and_only_where_they_say():
    made = parse_settings(
        {
            "one": setting(patch(set={"x": 1})),
            "two": setting(patch(like=["celeba"], of=["vae"], set={"x": 2}), patch(target="fit", set={"x": 9})),
        },
        MODELS,
        ROWS,
    )
    for order, like, of, expected in [
        (("one", "two"), "celeba", "vae", 2),
        (("two", "one"), "celeba", "vae", 1),
        (("one", "two"), "celeba", "rae", 1),
        (("one", "two"), "mnist", "vae", 1),
        ((), "celeba", "vae", 0),
    ]:
        laid = list(changes(made, order, "training", like, of))
        assert laid_over(dict[str, int], {"x": 0}, laid, "here") == {"x": expected}


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (setting(), "settings.yaml.s.patches: is empty"),
        (setting(patch(like=["mnits"])), "settings.yaml.s.patches[0].like[0]: 'mnits' is not one of ['any', 'mnist',"),
        (setting(patch(like=["mnist", "celeba", "mnist"])), "settings.yaml.s.patches[0].like: 'mnist' stands twice"),
        (setting(patch(of=["vae", "vae"])), "settings.yaml.s.patches[0].of: 'vae' stands twice"),
        (setting(patch(of=["two_stage_vae"])), "settings.yaml.s.patches[0].of: unknown model 'two_stage_vae'"),
        (setting(patch(target="rows", of=["ae"])), "settings.yaml.s.patches[0].of: unknown row 'ae'"),
        (
            setting(patch(target="rows", like=["mnist"])),
            "settings.yaml.s.patches[0].like: ['mnist']: rows are the same",
        ),
        (setting(patch(target="image_sets", of=["vae"])), "settings.yaml.s.patches[0].of: ['vae']: image sets are"),
        (setting(patch(set={})), "settings.yaml.s.patches[0].set: is empty"),
        (setting(patch(target="model")), "settings.yaml.s.patches[0].target: 'model' is not one of"),
    ],
)
def test_a_setting_that_cannot_be_meant_is_refused(entry, expected):
    with pytest.raises(ConfigError, match=re.escape(expected)):
        parse_settings({"s": entry}, MODELS, ROWS)


def test_what_a_setting_touches_is_what_its_patches_say():
    made = Setting("w", "s", "code", "e", "", (Patch(("mnist",), ("any",), "fit", {"leave_out_last": 1}),))
    assert made.touches("mnist")
    assert not made.touches("celeba")


# --- in studies -------------------------------------------------------------------------------------------


def test_a_protocol_without_settings_leaves_a_study_as_stated():
    assert load_study("smoke").protocol == "clean"
    assert load_study("smoke").image_sets["digits_mini"].rounding == "round"
    assert load_study("smoke").training("digits_mini", "vae").validation_split == "validation"


def test_a_switch_turns_one_setting_and_the_title_says_so():
    turned = study(switches={"truncation": True})
    assert turned.image_sets["digits_mini"].rounding == "truncate"
    assert turned.own_protocol("digits_mini").rounding == "truncate"
    assert turned.training("digits_mini", "vae") == load_study("smoke").training("digits_mini", "vae")
    assert turned.protocol == "clean, with truncation"
    released = study(protocol="as_released", switches={"truncation": False})
    assert released.image_sets["digits_mini"].rounding == "round"
    assert released.protocol == "as released, without truncation"


# --- described --------------------------------------------------------------------------------------------


def test_the_table_of_settings_has_each_once_and_the_documentation_is_current(capsys):
    cli.main(["switches"])
    printed = capsys.readouterr().out
    lines = printed.splitlines()
    assert [line.split("`")[1] for line in lines[2:]] == list(SETTINGS)
    assert all(line.count(" | ") == lines[0].count(" | ") for line in lines)
    document = (ROOT / "docs" / "protocols.md").read_text()
    assert printed in document, "paste it anew: python -m rae_bench switches"


# --- as released, against the official configurations -----------------------------------------------------

OFFICIAL = [
    row
    for row in csv.DictReader((ROOT / "rae_bench" / "study" / "official_configs.csv").read_text().splitlines())
    if not row["model"].startswith("VAE (")  # a two-dimensional one, for a picture
]
KEYS = {"MNIST": "mnist", "CIFAR-10": "cifar10", "CelebA": "celeba"}
PIXELS = {"mnist": 1024, "cifar10": 3072, "celeba": 12288}


def official_scale(dataset, model):
    """The official loss over ours, ½‖x − x̂‖² + ...: a mean over pixels, or over channels, or 0.05 times the sum."""
    if model in ("vae", "cv_vae"):
        return 2 / (1 if dataset == "mnist" else 3)
    return 0.1 if (dataset, model) == ("celeba", "wae") else 2 / PIXELS[dataset]


@pytest.mark.parametrize("row", OFFICIAL, ids=lambda row: f"{row['dataset']}-{row['model']}")
def test_as_released_is_the_official_configuration(row):
    released = load_study("paper_as_released")
    dataset = KEYS[row["dataset"]]
    two_stages = row["model"] == "2sVAE"
    model = "vae" if two_stages else row["model"].lower().replace("-", "_")
    training = released.training(dataset, model)
    objective, optimisation = training.objective, training.optimisation
    assert (optimisation.epochs, optimisation.batch_size) == (int(row["epochs"]), int(row["batch_size"]))
    assert optimisation.learning_rate == float(row["adam_lr"])
    network = training.network
    assert (network.width, network.latent_dim) == (int(row["base_filters"]), int(row["latent_dim"]))
    assert (network.kernel, network.start_width, network.norm_momentum) == (5 if dataset == "celeba" else 4, 1024, 0.01)
    assert optimisation.order == ("shuffled" if dataset == "celeba" else "file")
    assert (optimisation.schedule.factor, optimisation.schedule.patience) == (0.5, 5)
    scale = official_scale(dataset, model)
    assert optimisation.adam_epsilon == pytest.approx(1e-7 / scale, rel=1e-9)
    assert optimisation.schedule.threshold == pytest.approx(1e-4 / scale, rel=1e-9)
    assert getattr(objective.latent, "weight", 0) == pytest.approx(float(row["latent_weight_sum_form"]) / 2, rel=1e-9)
    weight = getattr(objective.regulariser, "weight", 0)
    assert weight == pytest.approx(float(row["reg_weight_sum_form"] or 0) / 2, rel=1e-9)
    assert getattr(objective.regulariser, "evaluation", "iterates") == "iterates"
    updates = {"mnist": 50_000, "cifar10": 40_000, "celeba": 162_770}[dataset] // optimisation.batch_size
    assert updates * optimisation.epochs == int(row["updates"])
    if two_stages:
        dimensions = int(row["latent_dim"])
        stage = released.fit(dataset, "vae", "second_stage").density
        expected = float(row["second_stage_beta"]) * dimensions / 2
        assert stage.objective.latent.weight == pytest.approx(expected, rel=1e-9)
        assert stage.optimisation.adam_epsilon == pytest.approx(1e-7 * dimensions / 2, rel=1e-9)
        assert stage.optimisation.schedule.threshold == pytest.approx(1e-4 * dimensions / 2, rel=1e-9)
        assert (stage.width, stage.depth, stage.codes) == (1024, 2, "mean")
        assert (stage.optimisation.epochs, stage.optimisation.batch_size) == (100, 64)
        assert (stage.optimisation.learning_rate, stage.optimisation.schedule.patience) == (1e-4, 3)


def test_the_official_configurations_are_all_there():
    assert len(OFFICIAL) == 30
    assert {(row["dataset"], row["model"]) for row in OFFICIAL if row["model"] == "2sVAE"} == {
        (name, "2sVAE") for name in KEYS
    }


def test_as_described_leaves_the_texts_objectives_alone():
    """Spectral norm and L2 on the decoder, the Jacobian's penalty; without one only where the code's weight is 0."""
    described, clean = load_study("paper_as_described"), load_study("paper_clean")
    for (dataset, model), training in described.trainings.items():
        if (dataset, model) == ("cifar10", "rae_gp"):
            assert training.objective.regulariser.kind == "none"
        else:
            assert training.objective == clean.training(dataset, model).objective
    assert described.rows == {name: row for name, row in clean.rows.items() if row.family != "baseline"}
    assert described.image_sets == clean.image_sets


def test_clean_gives_every_model_the_same_budget():
    clean = load_study("paper_clean")
    for dataset in clean.datasets:
        assert len({clean.training(dataset, model).optimisation for model in clean.competing}) == 1
        assert len({clean.training(dataset, model).network for model in clean.competing}) == 1
    assert len(clean.train_seeds) == 5


@pytest.mark.parametrize(("dataset", "square", "code_weight"), [("mnist", 0.0857, 5e-8), ("celeba", 1 / 3, 1e-7)])
def test_the_jacobians_weight_follows_the_stated_rule(dataset, square, code_weight):
    """λ_J = 4 m λ_g, λ_g = ½ λ D/Z the converted weight of the official code's penalty."""
    dimensions = {"mnist": 16, "celeba": 64}[dataset]
    converted = 0.5 * code_weight * PIXELS[dataset] / dimensions
    penalty = load_study("paper_clean").training(dataset, "rae_gp").objective.regulariser
    assert penalty.kind == "gradient_penalty"
    assert penalty.weight == pytest.approx(4 * square * converted, rel=1e-3)
