"""Studies: every one loads; a mistake in a file is one line that names the file, the key and what would be right."""

import csv
import os
import re
import shutil
from dataclasses import replace

import pytest
import yaml
from checkout import ROOT, put, script, unshared

from rae_bench.base.plain import ConfigError, to_json, to_plain
from rae_bench.study import config, resources, vocabulary
from rae_bench.study.config import load_study, resolve_study

SMOKE = "studies/smoke.yaml"
STUDIES = sorted(path.stem for path in (ROOT / "workflow/config/studies").glob("*.yaml"))
SEARCHES = ROOT / "docs" / "search"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A copy of the configuration that may be edited."""
    shutil.copytree(config.CONFIG, tmp_path / "config")
    monkeypatch.setattr(config, "CONFIG", tmp_path / "config")
    return tmp_path / "config"


def _edit(path, *changes):
    data = unshared(yaml.safe_load(path.read_text()))
    for keys, value in changes:
        put(data, keys, value)
    path.write_text(yaml.safe_dump(data, sort_keys=False))


def _slices(study):
    """Every stage's settings, as the workflow hands them over."""
    for dataset in study.datasets:
        yield to_json(study.preparation(dataset))
        yield from (to_json(reference) for _, reference in sorted(study.references(dataset).items()))
        yield to_json(study.floor(dataset))
        for model in study.models:
            yield from (to_json(study.fit(dataset, model, density)) for density in study.densities_of(model))
            yield to_json(study.training(dataset, model))
            yield to_json(study.evaluation(dataset, model))
            if study.protocols[dataset]:
                yield to_json(study.protocol_panel(dataset, model))
    yield to_json(study.summary())


# --- what there is ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_loads(name):
    study = load_study(name)
    assert study.name == name
    assert all(_slices(study))


def test_digits_mean_the_same_in_both_studies():
    """But for how many samples are drawn: features of colour images cost too much for as many."""
    digits, embedded = load_study("digits"), load_study("embedded")
    assert digits.models == embedded.models
    assert digits.train_seeds == embedded.train_seeds
    for get in (
        lambda study: study.preparation("digits"),
        lambda study: study.reference("digits"),
        lambda study: study.floor("digits"),
        *(lambda study, model=model: study.training("digits", model) for model in digits.models),
        *(
            lambda study, model=model: replace(study.evaluation("digits", model), n_generated=0, sample_seeds=())
            for model in digits.models
        ),
        *(lambda study, density=density: study.fit("digits", "vae", density) for density in digits.densities),
    ):
        assert to_json(get(digits)) == to_json(get(embedded))


def test_a_training_slice_joins_data_set_budget_model_and_weights(folder):
    _edit(folder / "models.yaml", (["rae_l2", "weights", "digits"], {"latent": 0.25, "regulariser": 0.5}))
    _edit(folder / "budgets.yaml", (["digits_smoke", "optimisation", "learning_rate"], 1))
    training = load_study("smoke").training("digits_mini", "rae_l2")
    assert '"learning_rate":1.0,' in to_json(training)
    assert to_plain(training) == {
        "version": 1,
        "network": {
            "kind": "convolutional",
            "channels": 1,
            "size": 32,
            "kernel": 4,
            "width": 4,
            "start_width": 32,
            "latent_dim": 8,
            "norm_momentum": 0.1,
        },
        "objective": {
            "posterior": {"kind": "deterministic"},
            "latent": {"kind": "squared_norm", "weight": 0.25},
            "regulariser": {"kind": "weight_l2", "weight": 0.5, "scope": "all"},
        },
        "optimisation": {
            "epochs": 10,
            "batch_size": 32,
            "order": "shuffled",
            "learning_rate": 1.0,
            "adam_epsilon": 1e-7,
            "schedule": {"kind": "cosine"},
        },
        "validation_split": "validation",
        "compute": {"device": "cpu", "threads": 1, "tf32": False, "precision": "float32"},
    }


def test_the_digits_of_every_architecture_are_the_same():
    study = load_study("architectures")
    plain = [to_plain(study.preparation(dataset)) | {"label": ""} for dataset in study.datasets]
    assert len(plain) == 4
    assert all(one == plain[0] for one in plain)
    networks = [study.training(dataset, "ae").network for dataset in study.datasets]
    assert {network.kind for network in networks} == {"convolutional", "residual", "dense_images", "transformer"}
    assert {network.latent_dim for network in networks} == {16}
    assert to_json(study.training("digits", "rae_gp")) == to_json(load_study("digits").training("digits", "rae_gp"))


@pytest.mark.parametrize("dataset", ["digits", "digits_residual", "digits_dense", "digits_transformer"])
def test_the_l2_of_convolutions_alone_is_refused_where_there_are_none(dataset):
    file = load_study("architectures").file
    file = replace(file, switches={"l2_on_convolutions_only": True}, datasets={dataset: file.datasets[dataset]})
    if dataset in ("digits", "digits_residual"):
        spec = resolve_study("architectures", file).training(dataset, "rae_l2")
        assert spec.objective.regulariser.scope == "convolutions"
    else:
        with pytest.raises(ConfigError, match=r"regulariser\.scope: 'convolutions', of which a network '\w+' has none"):
            resolve_study("architectures", file)


def test_the_documents_model_is_one_entry_of_one_file(folder):
    page = (ROOT / "docs/adding.md").read_text()
    entry = re.search(r"```yaml\n# workflow/config/models\.yaml\n(.*?)```", page, re.DOTALL)[1]
    with (folder / "models.yaml").open("a") as file:
        file.write("\n" + entry)
    _edit(folder / SMOKE, (["rows"], ["rae_l2", "vae_l2"]))
    study = load_study("smoke")
    assert study.models == ["rae_l2", "vae_l2"]
    objective = study.training("digits_mini", "vae_l2").objective
    assert (objective.posterior.kind, objective.latent.weight, objective.regulariser.weight) == ("gaussian", 0.03, 1e-3)
    assert study.rows["vae_l2"].label == "VAE-L2"
    assert study.summary().rows["vae_l2"].n == "standard_normal"


def test_two_rows_share_a_model_and_its_second_stage_is_fitted_once():
    study = load_study("smoke")
    assert list(study.rows) == ["vae", "two_stage_vae", "rae_l2", "linear", "training_images"]
    assert study.models == ["vae", "rae_l2", "linear"]
    assert study.densities_of("vae") == ["standard_normal", "gaussian", "gmm10", "second_stage"]
    assert study.densities_of("rae_l2") == ["standard_normal", "gaussian", "gmm10"]
    assert study.through_of("vae") == ("second_stage",)
    assert study.through_of("rae_l2") == ()


def test_a_row_of_given_images_is_scored_and_nothing_is_trained_for_it():
    study = load_study("smoke")
    assert {name: row.images for name, row in study.given.items()} == {"training_images": {"gmm": "train_images"}}
    assert study.scored == [*study.models, "training_images"]
    assert (study.densities_of("training_images"), study.shown_densities("training_images")) == ([], ())
    spec = study.evaluation("digits_mini", "training_images")
    assert (spec.training, spec.given, spec.densities) == (None, {"train_images": "train"}, ())
    assert "model" not in spec.made_by
    row = study.rows["training_images"]
    assert (row.shown("gmm"), row.shown("n"), study.rows["vae"].shown("gmm")) == ("train_images", "", "gmm10")


def test_a_baseline_is_no_row_of_the_comparison():
    study = load_study("smoke")
    spec = study.summary()
    assert list(spec.competing) == ["vae", "two_stage_vae", "rae_l2"]
    assert list(spec.baselines) == ["linear", "training_images"]
    assert set(spec.panels["digits_mini"]) == {"vae", "rae_l2"}
    network = study.training("digits_mini", "linear").network
    assert (network.kind, network.latent_dim) == ("linear", study.budgets["digits_mini"].latent_dim)


def test_a_search_trains_each_point_with_its_own_weights(folder):
    points = [{"latent": 0.5}, {"latent": 0.25}]
    _edit(
        folder / SMOKE,
        *((["search"], {"vae": points}), (["tables"], ["search"]), (["protocols"], {})),
        (["rows"], ["vae", "rae_l2"]),
    )
    study = load_study("smoke")
    assert len(study.models) == 3
    weights = [study.training("digits_mini", model).objective.latent.weight for model in study.models[:2]]
    assert weights == [0.5, 0.25]


NOISY = {"kind": "noisy_input", "sd": 0.01, "bound": 0.01}
POINTS = [{"latent": 0.5, "regulariser": 1.0}, {"latent": 0.25, "regulariser": 1.0}]


@pytest.mark.parametrize(
    ("file", "keys", "value", "models"),
    [
        (SMOKE, ["rows"], ["vae", "rae_l2"], ["rae_l2"]),
        ("models.yaml", ["rae_l2", "posterior"], NOISY, ["rae_l2", "linear"]),
        (SMOKE, ["search"], {"rae_l2": POINTS}, ["rae_l2_point0", "rae_l2_point1", "linear"]),
    ],
    ids=["a point", "a noisy input", "points of a search"],
)
def test_a_density_of_posteriors_is_left_out_for_models_without(folder, file, keys, value, models):
    _edit(folder / SMOKE, (["densities"], ["standard_normal", "gaussian", "gmm10", "aggregate_posterior"]))
    _edit(folder / file, (keys, value))
    study = load_study("smoke")
    without = [model for model in study.models if "aggregate_posterior" not in study.densities_of(model)]
    assert without == models
    assert study.evaluation("digits_mini", models[0]).densities == ("standard_normal", "gaussian", "gmm10")
    assert study.fit("digits_mini", "vae", "aggregate_posterior").density.kind == "aggregate_posterior"
    assert all(_slices(study))


def test_a_learnt_prior_is_fitted_and_shown_for_the_models_that_have_one(folder):
    _edit(folder / SMOKE, (["densities"], ["standard_normal", "gaussian", "gmm10", "learnt_prior"]))
    _edit(folder / SMOKE, (["rows"], ["vae", "rae_l2", "vampprior", "vae_mixture"]))
    study = load_study("smoke")
    having = [model for model in study.models if "learnt_prior" in study.densities_of(model)]
    assert having == ["vampprior", "vae_mixture"]
    assert study.shown_densities("vampprior") == ("learnt_prior", "gmm10")
    assert study.evaluation("digits_mini", "vampprior").priors[-1] == "learnt_prior"
    assert all(_slices(study))
    plain, vamp = (resources.train(study, "digits_mini", model) for model in ("vae", "vampprior"))
    assert vamp.networks > plain.networks


def test_a_searched_two_stage_row_varies_its_second_stage_only(folder):
    points = [{"latent": 0.5}, {"latent": 0.25}]
    _edit(folder / SMOKE, (["search"], {"two_stage_vae": points}), (["rows"], ["two_stage_vae"]))
    study = load_study("smoke")
    assert study.models == ["vae"]
    stages = [study.fit("digits_mini", row.model, row.n).density for row in study.rows.values()]
    assert [stage.objective.latent.weight for stage in stages] == [0.5, 0.25]
    assert all(row.through == row.n for row in study.rows.values())


# --- protocols, references and priors ---------------------------------------------------------------------


def test_a_protocol_is_the_studys_own_with_its_changes():
    study = load_study("smoke")
    own = {"reference_split": "test", "rounding": "round", "extractor": "digit_classifier", "n_images": 300}
    own["n_generated"] = 600
    assert {name: to_plain(one) for name, one in study.protocols["digits_mini"].items()} == {
        "own": own,
        "truncated": {**own, "rounding": "truncate"},
        "validation": {**own, "reference_split": "validation"},
        "half": {**own, "n_images": 150, "n_generated": 300},
        "pixels": {**own, "extractor": "pixels"},
    }


def test_protocols_score_the_densities_of_columns_n_and_gmm():
    study = load_study("smoke")
    assert study.protocol_panel("digits_mini", "vae").densities == ("standard_normal", "gmm10", "second_stage")
    assert study.protocol_panel("digits_mini", "rae_l2").densities == ("gaussian", "gmm10")


def test_equal_references_are_one_file():
    """What changes the fake images only is held against the study's own; validation images serve the floor, too."""
    study = load_study("smoke")
    named = study.protocol_panel("digits_mini", "vae").references
    own, floor = study.reference("digits_mini").name, study.floor_reference("digits_mini").name
    assert (named["own"], named["truncated"], named["validation"]) == (own, own, floor)
    training = study.training_reference("digits_mini").name
    found = study.references("digits_mini")
    assert set(found) == {own, floor, training, named["half"], named["pixels"]}
    assert len(found) == 5
    assert all(spec.name == name for name, spec in found.items())
    assert [name.rsplit(".", 1)[0] for name in (own, floor, training)] == [
        *("test.300.digit_classifier", "validation.300.digit_classifier", "train.600.digit_classifier")
    ]


def test_only_the_studys_own_reference_has_balls_around_it():
    """As many neighbours as the larger of the two counts: 3 of precision and recall, 5 of density and coverage."""
    study = load_study("smoke")
    own = study.reference("digits_mini").name
    assert {name: spec.neighbours for name, spec in study.references("digits_mini").items() if spec.neighbours} == {
        own: 5
    }


def test_a_study_without_protocols_has_no_panel(folder):
    _edit(folder / SMOKE, (["protocols"], {}), (["tables"], ["table1"]))
    study = load_study("smoke")
    assert study.protocols == {"digits_mini": {}}
    assert len(study.references("digits_mini")) == 3


def test_priors_are_the_densities_with_a_formula(folder):
    added = ["kde", "flow", "flow_matching", "aggregate_posterior", "second_stage_dai_wipf", "gmm10_sampled", "dp5"]
    _edit(folder / SMOKE, (["densities"], ["standard_normal", "gaussian", "gmm10", *added]))
    study = load_study("smoke")
    closed = ("standard_normal", "gaussian", "gmm10", "kde", "flow", "aggregate_posterior", "gmm10_sampled", "dp5")
    assert study.evaluation("digits_mini", "vae").priors == closed
    posteriorless = tuple(name for name in closed if name != "aggregate_posterior")
    assert study.evaluation("digits_mini", "rae_l2").priors == posteriorless


def test_settings_of_metrics_reach_evaluation_and_floor(folder):
    _edit(folder / "metrics.yaml", (["smoke", "prd_runs"], 7))
    study = load_study("smoke")
    assert study.evaluation("digits_mini", "vae").metrics.prd_runs == study.floor("digits_mini").metrics.prd_runs == 7


# --- the weights are those of the searches ----------------------------------------------------------------


def _searched(search):
    """Every point of a search by its row."""
    points = {}
    with (SEARCHES / f"{search}.csv").open() as lines:
        for record in csv.DictReader(lines):
            points.setdefault(record["row"], []).append(record)
    return points


SEARCHED = {
    part.name: part
    for name in (
        *("search_digits", "search_second_stage_digits", "search_variants", "search_architectures"),
        *("search_photos", "search_second_stage_photos", "search_faces", "search_second_stage_faces"),
    )
    for part in script("search").parts(load_study(name))
}


@pytest.mark.parametrize("search", SEARCHED)
def test_the_weights_are_the_best_points_of_the_search(search):
    words, study, searched = vocabulary.read(ROOT / "workflow/config"), SEARCHED[search], _searched(search)
    (dataset,) = study.datasets
    assert {record["dataset"] for points in searched.values() for record in points} == {dataset}
    weights = {name: entry.weights.get(dataset, {}) for name, entry in words.models.items()}
    weights["two_stage_vae"] = words.densities["second_stage"]["weights"].get(dataset)
    assert list(searched) == list(study.file.rows)
    for name, points in searched.items():
        best = min(points, key=lambda record: float(record["criterion"]))
        assert [record for record in points if record["chosen"].lower() == "true"] == [best]
        chosen = {term: float(best[term]) for term in ("latent", "regulariser") if best[term]}
        assert weights[name] == pytest.approx(chosen, rel=1e-9), name


@pytest.mark.parametrize("search", SEARCHED)
def test_every_model_was_searched_as_long_as_the_others(search):
    """But those without a weight, whose one point there is."""
    counts = {name: len(points) for name, points in _searched(search).items()}
    weighted = SEARCHED[search].file.search
    assert {counts[name] for name in counts if name not in weighted} <= {1}
    assert len({counts[name] for name in weighted}) == 1
    assert min(counts[name] for name in weighted) > 1


# --- one spelling -----------------------------------------------------------------------------------------


def test_comments_key_order_and_spelling_of_numbers_change_no_slice(folder):
    before = list(_slices(load_study("smoke")))
    for path in folder.rglob("*.yaml"):
        text = yaml.safe_dump(_reversed(unshared(yaml.safe_load(path.read_text()))), sort_keys=False)
        path.write_text(f"# a comment\n{text}")
    budgets = (folder / "budgets.yaml").read_text()
    assert "learning_rate: 0.004" in budgets
    (folder / "budgets.yaml").write_text(budgets.replace("learning_rate: 0.004", "learning_rate: 4.0e-03  # same"))
    assert list(_slices(load_study("smoke"))) == before


def _reversed(data):
    """The same data with every mapping's keys the other way round, but for the rows' order, which is the table's."""
    if isinstance(data, dict):
        return {key: _reversed(value) for key, value in reversed(data.items())}
    return data


# --- mistakes ---------------------------------------------------------------------------------------------

FOLDER = {"kind": "folder", "path": "mine", "split": "seeded", "padding": 0, "filter": "lanczos"}

MISTAKES = [
    # file, place and value (`...` deletes), what the message says
    (SMOKE, ["n_imags"], 300, "studies/smoke.yaml.n_imags: unknown key 'n_imags'; did you mean 'n_images'?"),
    (SMOKE, ["n_images"], ..., "studies/smoke.yaml: missing n_images"),
    (SMOKE, ["n_images"], "300", "studies/smoke.yaml.n_images: expected a whole number, found '300'"),
    (SMOKE, ["n_images"], True, "studies/smoke.yaml.n_images: expected a whole number, found True"),
    (SMOKE, ["n_images"], 299.5, "studies/smoke.yaml.n_images: expected a whole number, found 299.5"),
    (SMOKE, ["n_images"], 301, "studies/smoke.yaml.n_images: 301 is more than the 300 test images of 'digits_mini'"),
    (SMOKE, ["n_images"], 99, "metrics.yaml.smoke.kernel_subset_size: 100 needs at least 100 images; n_images of stu"),
    (SMOKE, ["metrics"], "smok", "studies/smoke.yaml.metrics: unknown settings of metrics 'smok'; did you mean 'smok"),
    (SMOKE, ["metrics"], {"neighbours": 3}, "studies/smoke.yaml.metrics: expected text, found {'neighbours': 3}"),
    (SMOKE, ["importance_samples"], -1, "studies/smoke.yaml.importance_samples: -1 must be at least 0"),
    (SMOKE, ["importance_samples"], ..., "studies/smoke.yaml: missing importance_samples"),
    (SMOKE, ["protocols"], ..., "studies/smoke.yaml: missing protocols"),
    (SMOKE, ["protocols"], {}, "studies/smoke.yaml.protocols: [] and tables ['table1', 'claims', 'comp"),
    (SMOKE, ["tables"], ["table1"], "studies/smoke.yaml.protocols: ['half', 'pixels', 'truncated', 'vali"),
    (SMOKE, ["protocols", "same"], {}, "studies/smoke.yaml.protocols.same: {} changes nothing of the study's own prot"),
    (SMOKE, ["protocols", "same"], {"rounding": "round"}, "studies/smoke.yaml.protocols.same: {'rounding': 'round'} c"),
    (SMOKE, ["protocols", "half", "n_image"], 9, "studies/smoke.yaml.protocols.half.n_image: unknown key 'n_image'; d"),
    (SMOKE, ["protocols", "half", "rounding"], "up", "studies/smoke.yaml.protocols.half.rounding: 'up' is not one of"),
    (SMOKE, ["protocols", "half", "extractor"], "x", "studies/smoke.yaml.protocols.half.extractor: 'x' is not one of"),
    (SMOKE, ["protocols", "half", "n_images"], 301, "studies/smoke.yaml.protocols.half.n_images: 301 must lie between"),
    (SMOKE, ["protocols", "half", "n_images"], 1, "studies/smoke.yaml.protocols.half.n_images: 1 must lie between 2 a"),
    (SMOKE, ["protocols", "half", "n_images"], 0, "studies/smoke.yaml.protocols.half.n_images: 0 must be above 0"),
    (SMOKE, ["protocols", "own"], {"n_images": 9}, "studies/smoke.yaml.protocols.own: 'own' is the study's own proto"),
    (SMOKE, ["protocols", "../x"], {"n_images": 9}, "studies/smoke.yaml.protocols: '../x' is not a name: at most 40"),
    (SMOKE, ["protocols", "Half"], {"n_images": 9}, "studies/smoke.yaml.protocols: 'Half' is not a name: at most 40"),
    ("metrics.yaml", ["smoke", "neighbours"], 300, "metrics.yaml.smoke.neighbours: 300 needs at least 301 images; n_i"),
    ("metrics.yaml", ["smoke", "coverage_neighbours"], 300, "metrics.yaml.smoke.coverage_neighbours: 300 needs at lea"),
    ("metrics.yaml", ["smoke", "prd_clusters"], 601, "metrics.yaml.smoke.prd_clusters: 601 needs at least 301 images;"),
    ("metrics.yaml", ["smoke", "seed"], 2**32, "metrics.yaml.smoke.seed: 4294967296 must be at most 4294967295"),
    ("metrics.yaml", ["smoke", "kernel_subsets"], 2**31, "metrics.yaml.smoke.kernel_subsets: 2147483648 must be at mo"),
    ("metrics.yaml", ["smoke", "half_samples"], 2**31, "metrics.yaml.smoke.half_samples: 2147483648 must be at most"),
    ("metrics.yaml", ["smoke", "neighbors"], 3, "metrics.yaml.smoke.neighbors: unknown key"),
    ("metrics.yaml", ["smoke", "half_samples"], ..., "metrics.yaml.smoke: missing half_samples"),
    ("metrics.yaml", ["smoke"], ..., "studies/smoke.yaml.metrics: unknown settings of metrics 'smoke'"),
    (SMOKE, ["floor_split"], "test", "studies/smoke.yaml.floor_split: 'test' is not one of ['train', 'validation']"),
    (SMOKE, ["reference_split"], "validation", "studies/smoke.yaml.floor_split: 'validation' is the reference split"),
    (SMOKE, ["rows"], [], "studies/smoke.yaml.rows: is empty"),
    (SMOKE, ["datasets"], {}, "studies/smoke.yaml.datasets: is empty"),
    (SMOKE, ["densities"], [], "studies/smoke.yaml.densities: is empty"),
    (SMOKE, ["train_seeds"], [], "studies/smoke.yaml.train_seeds: is empty"),
    (SMOKE, ["sample_seeds"], [], "studies/smoke.yaml.sample_seeds: is empty"),
    (SMOKE, ["train_seeds"], [0, 1, 0], "studies/smoke.yaml.train_seeds: 0 stands twice"),
    (SMOKE, ["sample_seeds"], [3, 3], "studies/smoke.yaml.sample_seeds: 3 stands twice"),
    (SMOKE, ["train_seeds"], [-1], "studies/smoke.yaml.train_seeds[0]: -1 must be at least 0"),
    (SMOKE, ["tables"], ["table1", "table1"], "studies/smoke.yaml.tables: 'table1' stands twice"),
    (SMOKE, ["tables"], ["tabel1"], "studies/smoke.yaml.tables[0]: 'tabel1' is not one of ['table1', "),
    (SMOKE, ["rows"], ["vae", "rae_l3"], "studies/smoke.yaml.rows: unknown row 'rae_l3'; did you mean 'rae_l2'?"),
    (SMOKE, ["rows"], ["vae", "vae"], "studies/smoke.yaml.rows: 'vae' stands twice"),
    (SMOKE, ["rows"], "vae", "studies/smoke.yaml.rows: expected a list, found 'vae'"),
    (SMOKE, ["densities"], ["gausian"], "studies/smoke.yaml.densities: unknown density 'gausian'; did you mean 'gaus"),
    (SMOKE, ["densities"], ["gmm10"], "studies/smoke.yaml.densities: 'standard_normal' is missing; row 'vae' shows it"),
    (SMOKE, ["datasets"], {"digit_mini": "digits_smoke"}, "unknown data set 'digit_mini'; did you mean 'digits_mini'?"),
    (SMOKE, ["datasets", "digits_mini"], "digits_smok", "unknown budget 'digits_smok'; did you mean 'digits_smoke'?"),
    (SMOKE, ["compute", "device"], "gpu", "studies/smoke.yaml.compute.device: 'gpu' is not one of ['auto', 'cpu',"),
    (SMOKE, ["search"], {"wae": [{"latent": 1.0}]}, "studies/smoke.yaml.search: unknown row of this study 'wae'"),
    (SMOKE, ["search"], {"vae": []}, "studies/smoke.yaml.search.vae: is empty"),
    (SMOKE, ["search"], {"vae": [{"latent": 0.0}]}, "studies/smoke.yaml.search.vae[0].latent: 0.0 must be above 0"),
    (SMOKE, ["search"], {"vae": [{"regulariser": 1.0}]}, "studies/smoke.yaml.search.vae[0]: missing the weight of its"),
    ("models.yaml", ["vae", "weights", "digits", "latent"], 0, "models.yaml.vae.weights.digits.latent: 0 must be abov"),
    ("models.yaml", ["rae_l2", "weights", "digits", "regulariser"], 0.0, "models.yaml.rae_l2.weights.digits.regularis"),
    ("models.yaml", ["vae", "weights", "digits", "latent"], "0.1", "models.yaml.vae.weights.digits.latent: expected a"),
    ("models.yaml", ["vae", "weights", "digits", "latent"], True, "models.yaml.vae.weights.digits.latent: expected a "),
    ("models.yaml", ["vae", "weights", "digits", "latent"], float("nan"), "vae.weights.digits.latent: expected a fini"),
    ("models.yaml", ["vae", "weights", "digits", "latent"], float("inf"), "vae.weights.digits.latent: expected a fini"),
    ("models.yaml", ["vae", "weights", "digits"], {}, "models.yaml.vae.weights.digits: missing the weight of its"),
    ("models.yaml", ["vae", "weights", "digits"], ..., "models.yaml.vae.weights.digits: missing the weight of its"),
    ("models.yaml", ["vae", "weights", "digits", "regulariser"], 1.0, "models.yaml.vae.weights.digits.regulariser: un"),
    ("models.yaml", ["vae", "weights", "digits", "latnt"], 1.0, "models.yaml.vae.weights.digits.latnt: unknown term w"),
    ("densities.yaml", ["second_stage", "weights", "digits"], {}, "densities.yaml.second_stage.weights.digits: missin"),
    ("models.yaml", ["vae", "weights", "digts"], {}, "models.yaml.vae.weights: unknown data set 'digts'; did you mean"),
    ("datasets.yaml", ["digits_mini", "weights"], "digts", "datasets.yaml.digits_mini.weights: unknown data set 'digt"),
    ("datasets.yaml", ["digits_mini", "weights"], ..., "datasets.yaml.digits_mini: missing weights"),
    ("models.yaml", ["vae", "posterior"], {"kind": "deterministic"}, "models.yaml.vae.latent: 'kl' needs a posterior"),
    ("models.yaml", ["vae", "latent", "kind"], "l2", "models.yaml.vae.latent.kind: 'l2' is not one of ['capacity', '"),
    ("models.yaml", ["vae", "latent", "weight"], 3.0, "models.yaml.vae.latent.weight: weights stand by themselves"),
    ("models.yaml", ["vae", "decoder"], {}, "models.yaml.vae.decoder: unknown key 'decoder'"),
    ("models.yaml", ["vae", "posterior", "log_sigma_bound"], ..., "models.yaml.vae.posterior: missing log_sigma_bound"),
    ("models.yaml", ["vae", "latent"], "kl", "models.yaml.vae.latent: expected a mapping of keys to values, found 'kl"),
    ("models.yaml", ["vae", "latent", "kind"], ["kl"], "models.yaml.vae.latent.kind: ['kl'] is not one of"),
    ("rows.yaml", ["two_stage_vae", "model"], "vea", "rows.yaml.two_stage_vae.model: unknown model 'vea'; did you"),
    ("models.yaml", ["vae", "n"], "gausian", "models.yaml.vae.n: unknown density 'gausian'; did you mean 'gaussian'?"),
    ("models.yaml", ["vae", "gmm"], "gm10", "models.yaml.vae.gmm: unknown density 'gm10'; did you mean 'gmm10'?"),
    ("rows.yaml", ["two_stage_vae", "through"], "second", "rows.yaml.two_stage_vae.through: unknown density 'second'"),
    ("rows.yaml", ["two_stage_vae", "through"], "gaussian", "rows.yaml.two_stage_vae.through: 'gaussian'"),  # no codec
    ("models.yaml", ["vae", "family"], "vae", "models.yaml.vae.family: 'vae' is not one of ['variational', 'regular"),
    ("densities.yaml", ["gmm10", "n_components"], 61, "studies/smoke.yaml: 'gmm10' needs at least 610 training codes"),
    ("densities.yaml", ["gmm10", "kind"], "gmm", "densities.yaml.gmm10.kind: 'gmm' is not one of ['aggregate_posteri"),
    ("densities.yaml", ["gmm10", "codes"], ..., "densities.yaml.gmm10: missing codes"),
    ("densities.yaml", ["gmm10", "codes"], "draw", "densities.yaml.gmm10.codes: 'draw' is not one of ['mean', 'sample"),
    ("densities.yaml", ["gmm10", "kind"], ..., "densities.yaml.gmm10.kind: None is not one of"),
    ("densities.yaml", ["gmm10"], "gaussian", "densities.yaml.gmm10: expected a mapping"),
    ("densities.yaml", ["gmm10"], None, "densities.yaml.gmm10: expected a mapping"),
    ("densities.yaml", ["gmm10", "n_inits"], 3, "densities.yaml.gmm10.n_inits: unknown key 'n_inits'; did you mean 'n"),
    ("densities.yaml", ["second_stage", "objective"], ..., "densities.yaml.second_stage: missing objective"),
    ("densities.yaml", ["second_stage", "optimisation", "batch_size"], 601, "batch_size"),  # of 600 codes
    ("budgets.yaml", ["digits_smoke", "layout", "kernel"], 3, "budgets.yaml.digits_smoke.layout.kernel: 3 is not one"),
    ("budgets.yaml", ["faces_quick", "layout", "width"], 0, "budgets.yaml.faces_quick.layout.width: 0 must be above"),
    ("budgets.yaml", ["digits_smoke", "layout", "kind"], "dens", "budgets.yaml.digits_smoke.layout.kind: 'dens' is "),
    ("budgets.yaml", ["digits_smoke", "layout", "size"], 32, "budgets.yaml.digits_smoke.layout.size: stands elsewhere"),
    ("budgets.yaml", ["digits_smoke", "latent_dim"], 0, "budgets.yaml.digits_smoke.latent_dim: 0 must be above 0"),
    ("budgets.yaml", ["digits_smoke", "optimisation", "batch_size"], 601, "budgets.yaml.digits_smoke.optimisation.bat"),
    ("budgets.yaml", ["digits_smoke", "optimisation", "epochs"], 1.5, "digits_smoke.optimisation.epochs: expected a w"),
    ("budgets.yaml", ["digits_smoke", "optimisation", "schedule", "kind"], "cosin", "optimisation.schedule.kind: 'cos"),
    ("datasets.yaml", ["digits_mini", "data", "size"], 28, "datasets.yaml.digits_mini.data.size: 28 is not the 32 pix"),
    ("datasets.yaml", ["digits_mini", "data", "size"], 64, "datasets.yaml.digits_mini.data.size: 64 is not the 32 pix"),
    ("datasets.yaml", ["digits_mini", "data", "channels"], 4, "datasets.yaml.digits_mini.data.channels: 4 is not one "),
    ("datasets.yaml", ["digits_mini", "data", "channels"], 3, "datasets.yaml.digits_mini.data.channels: 3 is not one "),
    ("datasets.yaml", ["digits_mini", "data", "source", "padding"], 4, "data.size: 32 is not the 36 pixels of 'mnist_"),
    ("datasets.yaml", ["digits_mini", "data", "source"], {**FOLDER, "crop": 0, "padding": 16}, "source.padding: 16 on"),
    (SMOKE, ["protocols", "halves"], {"n_images": 150, "n_generated": 300}, "studies/smoke.yaml.protocols.halves: {"),
    (SMOKE, ["protocols", "more"], {"n_generated": 601}, "studies/smoke.yaml.protocols.more.n_generated: 601 must"),
    (SMOKE, ["n_generated"], 299, "studies/smoke.yaml.n_generated: 299 is less than n_images, 300: most metrics"),
    (SMOKE, ["equal_within"], 1.0, "studies/smoke.yaml.equal_within: 1.0 must be above 1"),
    (SMOKE, ["search"], {"vae": [{"latent": 1.0}, {"latent": 1}]}, "studies/smoke.yaml.search.vae: {'latent': 1.0} st"),
    (SMOKE, ["densities"], ["gmm10", "gaussian", "gmm10"], "studies/smoke.yaml.densities: 'gmm10' stands twice"),
    ("protocols.yaml", ["as_described", "settings"], ["truncation", "file_order", "truncation"],
     "protocols.yaml.as_described.settings: 'truncation' stands twice"),
    ("budgets.yaml", ["digits_smoke", "leave_out_last"], -1, "budgets.yaml.digits_smoke.leave_out_last: -1 must be at"),
    ("budgets.yaml", ["digits_smoke", "leave_out_last"], 600, "budgets.yaml.digits_smoke.leave_out_last: 600 leaves n"),
    ("settings.yaml", ["dirichlet_mixture", "patches", 0, "set"], {"gmm11": {}}, "dirichlet_mixture.patches[0].set: u"),
    ("datasets.yaml", ["digits_mini", "data", "source", "kind"], "mnists", "digits_mini.data.source.kind: 'mnists' is"),
    ("datasets.yaml", ["digits_mini", "extractor"], "inception", "datasets.yaml.digits_mini.extractor: 'inception' is"),
    ("datasets.yaml", ["digits_mini", "data", "n_test"], 0, "datasets.yaml.digits_mini.data.n_test: 0 must be above 0"),
    (SMOKE, ["switches"], {"truncaton": True}, "studies/smoke.yaml.switches: unknown setting 'truncaton'; did you"),
    (SMOKE, ["protocol"], "claen", "studies/smoke.yaml.protocol: unknown protocol 'claen'; did you mean 'clean'?"),
    (SMOKE, ["image_sets"], "standrd", "studies/smoke.yaml.image_sets: unknown image sets 'standrd'; did you mean"),
    (SMOKE, ["switches"], {"truncation": False}, "studies/smoke.yaml.switches.truncation: False changes nothing: 'cle"),
    ("rows.yaml", ["training_images", "n"], "gmm10", "rows.yaml.training_images.n: a row of given images has no model"),
    ("rows.yaml", ["training_images", "given"], {"gmm": "trian"}, "rows.yaml.training_images.given.gmm: 'trian' is n"),
    ("rows.yaml", ["training_images", "given"], {}, "rows.yaml.training_images.model: unknown model ''"),
    (SMOKE, ["rows"], ["linear", "training_images"], "studies/smoke.yaml.rows: ['linear', 'training_images'] are all"),
    (SMOKE, ["search"], {"training_images": POINTS}, "studies/smoke.yaml.search.training_images: a row of given image"),
    ("models.yaml", ["linear", "posterior"], NOISY, "studies/smoke.yaml: 'linear' on 'digits_mini'.network: 'linear' "),
    ("models.yaml", ["linear", "network"], "lineal", "models.yaml.linear.network: 'lineal' is not one of ['budget', "),
]  # fmt: skip
SETTINGS_AT_FAULT = [
    # target and change of a setting's patch, what the message says behind ...patches[0].set
    ("training", {"optimisation": {"batch_size": 1000}}, "optimisation.batch_size: 1000, of 'vae' in s"),
    ("training", {"optimisation": {"epochs": 1.5}}, "optimisation.epochs: expected a whole number"),
    ("training", {"network": {"width": 0}}, "network.width: 0 must be above 0"),
    ("training", {"objective": {"posterior": {"kind": "deterministic"}}}, "objective.latent: 'kl' needs"),
    ("fit", {"leave_out_last": 600}, "leave_out_last: 600 leaves none of the 600 training codes"),
    ("fit", {"leave_out_last": -1}, "leave_out_last: -1 must be at least 0"),
    ("densities", {"gmm10": {"n_components": 0}}, "gmm10.n_components: 0 must be above 0"),
    ("image_sets", {"rounding": "up"}, "rounding: 'up' is not one of ['round', 'truncate']"),
    ("rows", {"gmm": "gm10"}, "gmm: unknown density 'gm10'; did you mean 'gmm10'?"),
    ("rows", {"family": "vae"}, "family: 'vae' is not one of ['variational', "),
]
DATA, NO_PANEL = ["digits_mini", "data"], [(SMOKE, ["protocols"], {}), (SMOKE, ["tables"], ["table1"])]
CELEBA = {"kind": "celeba", "filter": "lanczos"}
POSTERIOR = "aggregate_posterior"
USED = ["standard_normal", "gaussian", "gmm10"]
VQ, MASKED = (("models.yaml", name, "posterior") for name in ("vq_vae", "masked_ae"))
AUTO = "autoregressive_indices"
NEEDS = [
    # density, where it says how many codes it needs, and how many that is
    ("dp100", ["n_components"], 100, "1000 training codes of 'digits_mini' (n_components x 10)"),
    ("flow", ["optimisation", "batch_size"], 601, "601 training codes of 'digits_mini' (optimisation.batch_size)"),
    ("flow_matching", ["optimisation", "batch_size"], 601, "601 training codes"),
    ("second_stage_dai_wipf", ["optimisation", "batch_size"], 601, "601 training codes"),
    ("aggregate_posterior500", ["components", "n_components"], 601, "601 training codes of 'digits_mini' (compon"),
]
READERS = [(name, [(SMOKE, ["datasets"], {name: f"{name}_quick"})]) for name in ("photos", "faces")]
SEVERAL = [
    # changes, and what the message says
    *[
        (
            [
                ("settings.yaml", ["large_vae_batches", "patches"],
                 [{"like": ["any"], "of": ["any"], "target": target, "set": change}]),
                (SMOKE, ["switches"], {"truncation": True, "large_vae_batches": True}),
                *NO_PANEL,
            ],
            f"settings.yaml.large_vae_batches.patches[0].set.{told}",
        )
        for target, change, told in SETTINGS_AT_FAULT
    ],
    *[
        ([(SMOKE, ["densities"], [*USED, density]), ("densities.yaml", [density, *keys], value)],
         f"studies/smoke.yaml: {density!r} needs at least {needed}")
        for density, keys, value, needed in NEEDS
    ],
    *[  # its aligned images have 178x218 pixels (Liu et al. 2015)
        ([("datasets.yaml", [*DATA, "source"], {**CELEBA, "crop": crop}), ("datasets.yaml", [*DATA, "channels"], 3)],
         f"datasets.yaml.digits_mini.data.source.crop: {crop} {told}")
        for crop, told in ((179, "must be at most 178"), (31, "is less than the size"))
    ],
    *[
        ([("datasets.yaml", [*DATA, "source"], {**FOLDER, "crop": 0}), ("datasets.yaml", [*DATA, "size"], size)],
         f"datasets.yaml.digits_mini.data.size: {size} is not a multiple of 8 from 16 to 256 pixels, the sizes that")
        for size in (8, 28, 264)
    ],
    *[
        ([*uses, (SMOKE, ["protocols"], {"x": {"extractor": "digit_classifier"}})],
         "studies/smoke.yaml.protocols.x.extractor: 'digit_classifier' reads grey")
        for _, uses in READERS
    ],
    *[
        ([*uses, ("datasets.yaml", [name, "extractor"], "digit_classifier")],
         f"datasets.yaml.{name}.extractor: 'digit_classifier' reads grey images")
        for name, uses in READERS
    ],
    ([("datasets.yaml", ["digits_mini", "extractor"], "face_features")],
     "datasets.yaml.digits_mini.extractor: 'face_features' reads colour images of 32x32 pixels; those of"),
    ([("datasets.yaml", [*DATA, "n_validation"], 200), (SMOKE, ["floor_split"], "train"),
      (SMOKE, ["protocols"], {"other": {"reference_split": "validation"}})],
     "studies/smoke.yaml.protocols.other.reference_split: 'validation' with n_images 300, which must lie between"),
    ([(SMOKE, ["densities"], [*USED, POSTERIOR]), ("models.yaml", ["rae_l2", "gmm"], POSTERIOR)],
     "models.yaml.rae_l2.gmm: 'aggregate_posterior' needs a posterior; 'rae_l2' has none"),
    ([(SMOKE, ["densities"], [*USED, "learnt_prior"]), ("models.yaml", ["vae", "n"], "learnt_prior")],
     "models.yaml.vae.n: 'learnt_prior' needs a learnt prior; 'vae' has none"),
    *[
        ([(SMOKE, ["rows"], ["vae", *row]), (SMOKE, ["densities"], [*USED, *density]),
          *((file, list(keys), value) for file, *keys, value in changed)],
         f"studies/smoke.yaml: {told}")
        for row, density, changed, told in (
            (["vq_vae"], ["uniform_indices"], [(*VQ, "length", 3)],
             "'vq_vae' on 'digits_mini'.objective.posterior.length: 3 must divide the 8 dimensions of a code"),
            (["vq_vae"], ["uniform_indices"], [(*VQ, "n_entries", 129)],
             "'vq_vae' on 'digits_mini'.objective.posterior.n_entries: 129 entries start from the vectors of the first"
             " batch, which are 128 (batch_size 32, 4 a code)"),
            (["vq_vae"], ["uniform_indices", AUTO], [(*VQ, "length", 8), (*VQ, "n_entries", 9)],
             f"{AUTO!r} of 'vq_vae' on 'digits_mini': codes of one entry have no earlier one to depend on"),
            (["vq_vae"], ["uniform_indices", AUTO], [("densities.yaml", AUTO, "width", 2)],
             f"{AUTO!r} of 'vq_vae' on 'digits_mini': width: 2 must be at least 3, the earlier entries of a code"),
            (["vampprior"], ["learnt_prior"], [("models.yaml", "vampprior", "latent", "n_components", 601)],
             "'vampprior' on 'digits_mini'.objective.latent.n_components: 601 pseudo-inputs start from training images;"
             " take at most 600"),
            (["capacity_vae"], [], [], "'capacity_vae' on 'digits_mini'.objective.latent.updates: 400 must be at"),
            (["masked_ae"], [], [(*MASKED, "patch", 16), (*MASKED, "share", 0.1)],
             "'masked_ae' on 'digits_mini'.objective.posterior.share: 0.1 of 32x32 hides 0 of the 4 patches of 16; "),
            (["masked_ae"], [], [(*MASKED, "patch", 16), (*MASKED, "share", 0.9)],
             "'masked_ae' on 'digits_mini'.objective.posterior.share: 0.9 of 32x32 hides 4 of the 4 patches of 16; "),
            (["sphere_ae"], [], [("budgets.yaml", "digits_smoke", "latent_dim", 1)],
             "'sphere_ae' on 'digits_mini'.objective.posterior: a 'sphere' of one dimension is two points"),
        )
    ],
    ([("rows.yaml", ["vae"], {"label": "x", "family": "plain", "model": "vae", "n": "gmm1", "gmm": "", "through": ""})],
     "rows.yaml: 'vae' is a model's row already, models.yaml's; give it"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "expected"),
    [*(([change], expected) for *change, expected in MISTAKES), *SEVERAL],
    ids=lambda part: str(part)[:60],
)
def test_a_mistake_is_one_line_that_names_file_and_key(folder, changes, expected):
    for file, keys, value in changes:
        _edit(folder / file, (keys, value))
    with pytest.raises(ConfigError, match=re.escape(expected)) as error:
        load_study("smoke")
    assert "\n" not in str(error.value)
    assert re.match(r"(studies/smoke|\w+)\.yaml\b", str(error.value))


def test_the_largest_mixture_the_codes_allow_is_accepted(folder):
    """60 components x 10 of 600 training codes; one component more needs 610 (a mistake above)."""
    _edit(folder / "densities.yaml", (["gmm10", "n_components"], 60))
    assert load_study("smoke").fit("digits_mini", "vae", "gmm10").density.n_components == 60


# --- text -------------------------------------------------------------------------------------------------

TITLE = "title: Smoke study (a few real digits; its numbers mean nothing)"
COMPUTE = "compute: {device: cpu, threads: 1, tf32: false, precision: float32}"
SPELLING = [
    # file, text and what stands there instead, what the message says
    ("budgets.yaml", "learning_rate: 4.0e-3", "learning_rate: 4e-3", r"line \d+: 4e-3 could be 0\.004"),
    ("budgets.yaml", "learning_rate: 4.0e-3", "learning_rate: .nan", ".*learning_rate: expected a finite number"),
    ("budgets.yaml", "    width: 4\n", "    width: 4\n    width: 8\n", r"line \d+: the key 'width' stands tw"),
    ("models.yaml", "\ncv_vae:", "\nvae:", r"line \d+: the key 'vae' stands twice"),
    (SMOKE, "n_images: 300", "n_images: 300\nn_images: 200", r"line \d+: the key 'n_images' stands twice"),
    (SMOKE, "train_seeds: [0, 1]", "train_seeds: [0", r"not YAML: "),
    (SMOKE, "title:", "title: a: b", r"not YAML: "),
    (SMOKE, "search: {}", "search: !!python/object/apply:os.getcwd []", r"line \d+: tags are not used h"),
]  # fmt: skip
NOT_A_MAPPING = [
    # the whole file, what the message says behind its name
    (b"", "expected a mapping of keys to values, found nothing"),
    (b"# nothing\n", "expected a mapping of keys to values, found nothing"),
    (b"- 1\n", "expected a mapping of keys to values, found list"),
    (b"{", "not YAML: line 1: "),
    (b"\xff\xfet\x00", "line 1: the byte 0xff is not UTF-8; save the file"),
    (b"title: x\nprotocol: cl\xe9an\n", "line 2: the byte 0xe9 is not UTF-8; save the file as UTF-8"),
    (b"title: x\n---\ntitle: y\n", "not YAML: line 2: expected a single document in the stream (line 1), but fou"),
    (b"title: x\nsearch:\n\tvae: []\n", "not YAML: line 3: while scanning for the next token, found character '\\t'"),
    (b"rows: &a [vae]\ndensities: &a [x]\n", "not YAML: line 2: found duplicate anchor 'a'; first occurrence (line 1)"),
    ("title: x  # a\u2028n_images: 3\n".encode(), "line 1: holds the character U+2028, which editors do not show"),
    ("title: x\n\ufeffn_images: 3\n".encode(), "line 2: holds the character U+FEFF, which editors do not show"),
    (b"title: x\nprotocol: a\0b\n", "line 2: holds the character U+0000, which editors do not show; take it out"),
    (b"title: " + b"9" * 5000 + b"\n", "line 1: 9999999999"),
]  # fmt: skip
TWO_READINGS = [
    # as written, without quotes; as YAML 1.1 and as YAML 1.2 have it (https://yaml.org/type/, chapter 10 of YAML 1.2.2)
    *[(written, "300 or text") for written in ("0b100101100", "0o454", "0x12C", "5:00", "3_00", "3e2", "3.0e2")],
    *[("0454", "300 or 454"), ("-010", "-8 or -10"), ("08", "8 or text"), ("+.5", "0.5 or text")],
    *[("1_000.5", "1000.5 or text"), ("1:30.5", "90.5 or text"), ("1e-7", "1.0e-07 or text")],
    *[(written, "true or text") for written in ("yes", "Yes", "YES", "on", "On")],
    *[(written, "false or text") for written in ("no", "No", "NO", "off", "Off")],
]
REPEATED = [
    # what is put behind a study, and the line of it that repeats; what stands twice, and where first
    ("n_images: 100\n", 1, "the key 'n_images' stands twice, first on line 12"),
    ("# a\n'n_images' : 100\n", 2, "the key 'n_images' stands twice, first on line 12"),
    ("? title\n: 1\n", 1, "the key 'title' stands twice, first on line 1"),
    ("x: {<<: {a: 1,\n  b: 2, a: 3}}\n", 2, "the key 'a' stands twice, first on line 26"),
    ("x:\n  <<: {a: 1}\n  b: 2\n  <<: {a: 3}\n", 4, "the key '<<' stands twice, first on line 27; write one, <<: [*a"),
]
NESTED = [f"&a{i} {'[' * 28}{f'*a{i - 1}' if i else 1}{']' * 28}" for i in range(60)]
"""Sixty lists of thirty levels, each inside the next: what Python cannot show, though few values."""
WRONG = [
    # file, what stands there (nothing: at the end; None: all of it), what stands there instead, what the message says
    *SPELLING,
    *[(SMOKE, None, content, re.escape(told)) for content, told in NOT_A_MAPPING],
    *[
        (SMOKE, found, f"{key}: {written}", re.escape(f"line {line}: {written} could be {readings};"))
        for found, key, line in ((TITLE, "title", 1), ("n_images: 300", "n_images", 12))
        for written, readings in TWO_READINGS
    ],
    *[
        (SMOKE, "train_seeds: [0, 1]", f"train_seeds: {seeds}", r"line \d+: .* could be ")
        for seeds in ("[010, 1]", "[1, 010]", "[1, 5:00]")
    ],
    *[
        (SMOKE, "n_images: 300", f"n_images: {written}", r"n_images: expected a whole number, found (None|-?inf|nan)")
        for written in ("~", "null", "Null", "", ".inf", "-.INF", ".nan", "1.0e+400")
    ],
    *[(SMOKE, TITLE, f"title: {one}", "title: expected text, found .*; quote it$") for one in ("2020", "1.5", "true")],
    *[(SMOKE, "", added, re.escape(f"line {25 + line}: {told}")) for added, line, told in REPEATED],
    (SMOKE, TITLE, f"title: [{', '.join(NESTED)}]", "line 1: is nested more than 32 levels deep, aliases followed"),
]


def _with(folder, found, written, file=SMOKE):
    """Put `written` for `found` in a file, at its end for nothing."""
    text = (folder / file).read_text()
    assert found in text
    (folder / file).write_text(text.replace(found, written) if found else text + written)


@pytest.mark.parametrize(("file", "found", "written", "expected"), WRONG, ids=lambda part: str(part)[:40])
def test_a_text_that_is_no_study_is_refused_in_one_line(folder, file, found, written, expected):
    if found is None:
        (folder / file).write_bytes(written)
    else:
        _with(folder, found, written, file)
    with pytest.raises(ConfigError, match=rf"^{re.escape(file)}(: |\.){expected}") as error:
        load_study("smoke")
    assert "\n" not in str(error.value)


def test_a_pipe_in_place_of_a_study_is_refused_and_not_waited_for(folder):
    (folder / SMOKE).unlink()
    os.mkfifo(folder / SMOKE)
    with pytest.raises(ConfigError, match=r"smoke\.yaml: is no regular file; expected a YAML file$"):
        load_study("smoke")


@pytest.mark.parametrize(
    ("found", "written", "key", "expected"),
    [
        *[
            (TITLE, f"title: {text}", "title", text.strip("'\""))
            for text in ("2001-01-01", "=", "0:30", "y", "N", "'yes'", '"010"', "'5:00'", "'0x10'")
        ],
        (TITLE, "\ufefftitle: x", "title", "x"),  # the mark some editors put first
        *[
            (
                COMPUTE,
                COMPUTE.replace("cpu", "cuda").replace("false", true),
                "compute",
                {"device": "cuda", "threads": 1, "tf32": True, "precision": "float32"},
            )
            for true in ("True", "true", "TRUE")
        ],
        # https://yaml.org/type/merge.html: the first of several mappings counts; a mapping's own keys do before
        (
            COMPUTE,
            "compute: {<<: [{device: cpu, threads: 2}, {threads: 3, tf32: false, precision: float32}],"
            " precision: bfloat16}",
            "compute",
            {"device": "cpu", "threads": 2, "tf32": False, "precision": "bfloat16"},
        ),
        (  # its keys stand there once, though what merges it has copied them
            COMPUTE,
            "compute: {<<: {<<: &c {<<: {device: cpu, threads: 4}, tf32: false}}, precision: float32}",
            "compute",
            {"device": "cpu", "threads": 4, "tf32": False, "precision": "float32"},
        ),
    ],
)
def test_what_all_readers_of_yaml_take_for_the_same_is_that(folder, found, written, key, expected):
    _with(folder, found, written)
    assert to_plain(load_study("smoke").file)[key] == expected


@pytest.mark.parametrize(
    "written", ['"300"', "'3e2'", "3e2", "300.0", "300.", "3.0e+2", '" 300 "', '"0300"', "0x12c", "5:00"]
)
def test_the_advice_about_a_whole_number_can_be_followed(folder, written):
    place = "n_images: 300"
    _with(folder, place, f"n_images: {written}")
    with pytest.raises(ConfigError, match=r"; write 300\b") as error:
        load_study("smoke")
    advice = re.search(r"; write (\S+?)(,| without quotes|$)", str(error.value))[1]
    _with(folder, f"n_images: {written}", f"n_images: {advice}")
    assert load_study("smoke").file.n_images == 300


@pytest.mark.parametrize(
    "written",
    ['"4.0e-3"', "4e-3", "'0.0041234567'", "1.0e-7 ", "'1e-7'", "1e-7", "'1'", "1e3", "1.5e+300", "'1.5e300'"],
)
def test_the_advice_about_a_number_can_be_followed_and_keeps_its_value(folder, written):
    """The value is what Python reads of the text: hints that round would change the study."""
    smoke = (folder / "budgets.yaml").read_text().partition("digits_smoke:")[2].partition("photos_quick:")[0]
    found = f"digits_smoke:{smoke}"
    _with(folder, found, found.replace("4.0e-3", written), "budgets.yaml")
    try:
        study = load_study("smoke")
    except ConfigError as error:
        advice = re.search(r"; write (\S+?)(,| without quotes$)", str(error))[1]
        _with(folder, found.replace("4.0e-3", written), found.replace("4.0e-3", advice), "budgets.yaml")
        study = load_study("smoke")
    assert study.training("digits_mini", "vae").optimisation.learning_rate == float(written.strip("'\""))


# --- names ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *[
            (name, r".*Known: architectures, densities, digits, embedded, ")
            for name in ("../x", "/etc/passwd", "", "studies/smoke")
        ],
        ("smok", r"; did you mean 'smoke'\?"),
    ],
)
def test_a_study_that_does_not_exist_is_refused_with_those_that_do(name, expected):
    with pytest.raises(ConfigError, match=re.escape(f"unknown study {name!r}") + expected) as error:
        load_study(name)
    assert "\n" not in str(error.value)


BAD_NAMES = [
    *("..", ".", "../x", "/x", "x/y", "x/../../y", "~", "~root", "C:", "a:b", "x.y", ".x", "x.lock"),
    *("", " ", "a b", "-x", "--force", "_x", "1x", "A", "raE", "x\n", "x\0y", "\u202ex", "x\u0301"),
    *(
        "r\u0430e",
        "vae\u2215x",
        "\uff0e\uff0e",
        "x\u200b",
        "\u017fmoke",
        "vae\u00b2",
    ),  # look like letters, dots, a slash
    *("$HOME", "`id`", "$(id)", "x;y", "x|y", "x*", "x?", "{x}", "'x'", '"x"', "x&", "x#"),
    *("x" * 41, "x" * 300),
    *("datasets", "references", "logs", "tables", "figures", "con", "nul", "com1", "lpt9"),
]


@pytest.mark.parametrize("name", BAD_NAMES, ids=ascii)
def test_a_name_that_is_no_name_of_a_file_on_every_disk_is_refused(name):
    """Shown in ASCII, where one letter cannot look like another."""
    shown = ascii(name if len(name) <= 60 else f"{name[:60]}...")
    with pytest.raises(ConfigError, match="^" + re.escape(f"here: {shown} ")) as error:
        vocabulary.check_name("here", name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["../x", "/x", "a b", "A", "r\u0430e", "tables", "x_point1"], ids=ascii)
@pytest.mark.parametrize(
    ("file", "like", "use"),
    [
        ("datasets.yaml", "digits_mini", lambda name: (["datasets"], {name: "digits_smoke"})),
        ("densities.yaml", "gaussian", lambda name: (["densities"], ["standard_normal", "gaussian", "gmm10", name])),
        ("models.yaml", "vae", None),
        ("rows.yaml", "two_stage_vae", lambda name: (["rows"], [name])),
        ("budgets.yaml", "digits_smoke", None),
        ("metrics.yaml", "smoke", None),
        ("image_sets.yaml", "standard", None),
        ("protocols.yaml", "clean", None),
    ],
)
def test_a_name_that_would_leave_the_results_folder_is_refused(folder, file, like, use, name):
    """Names become paths; `_point` marks the points of a search."""
    entries = unshared(yaml.safe_load((folder / file).read_text()))
    _edit(folder / file, ([name], entries[like]))
    if use is not None:
        _edit(folder / SMOKE, use(name))
    with pytest.raises(ConfigError, match="^" + re.escape(f"{file}: {name!a} ")):
        load_study("smoke")


@pytest.mark.parametrize(
    "name", [name for name in BAD_NAMES if not set("/\0") & set(name) and len(name) < 250], ids=ascii
)
def test_a_study_of_such_a_name_is_refused(folder, name):
    """No file can hold the others. results/datasets, results/references belong to all studies."""
    shutil.copy(folder / SMOKE, folder / "studies" / f"{name}.yaml")
    with pytest.raises(ConfigError) as error:
        load_study(name)
    assert "\n" not in str(error.value)


def test_the_longest_names_make_names_of_files():
    """Of three names, each perhaps a point of a search, and the largest seed: below the 255 bytes disks allow."""
    name = "x" * 40
    vocabulary.check_name("here", name)
    assert len(f"{name}_point999.{name}_point999.seed{2**63 - 1}.{name}_point999.log") < 200
