"""What stages ask a scheduler for: counted from the shapes as torch counts them, growing with the study, and enough."""

import dataclasses
import itertools
import re

import numpy as np
import pytest
import small
import torch
from checkout import our_lines, put
from torch.utils.flop_counter import FlopCounterMode

from rae_bench.densities.specs import SelectedMixture
from rae_bench.models import optimisation, pca
from rae_bench.models.autoencoder import build
from rae_bench.models.networks import weighted_layers
from rae_bench.models.terms.specs import ImportanceWeighted
from rae_bench.run import requests
from rae_bench.run.cost import about
from rae_bench.run.jobs import read_state, study_jobs
from rae_bench.scoring import evaluation, features, generation, likelihood
from rae_bench.scoring.catalogue import load_extractor
from rae_bench.scoring.metrics import pairs, reference
from rae_bench.scoring.specs import Extractor
from rae_bench.study import resources
from rae_bench.study.config import load_study
from rae_bench.study.resources import Need

STUDY = load_study("smoke")
DATASET, MODEL = "digits_mini", "vae"
STAGES = {
    "prepare": (resources.prepare, ()),
    "reference": (resources.reference, (STUDY.reference(DATASET).name,)),
    "floor": (resources.floor, ()),
    "train": (resources.train, (MODEL,)),
    "fit": (resources.fit, (MODEL, "gmm10")),
    "decode": (resources.decode, (MODEL,)),
    "evaluate": (resources.evaluate, (MODEL,)),
    "protocols": (resources.protocols, (MODEL,)),
}
ON_A_CPU = [stage for stage in STAGES if stage != "decode"]
GPU_STAGES = {"train", "reference", "decode", "protocols"}


def _need(stage, study=STUDY, names=None):
    function, rest = STAGES[stage]
    return function(study, DATASET, *(rest if names is None else names))


def test_a_selected_mixture_works_for_each_number_of_components_and_keeps_one():
    grid = SelectedMixture("selected_mixture", "mean", 1, 500, 1e-3, 1e-6, (1, 10, 100))
    parts, whole = [one.work(3000, 1000, 16) for one in grid.candidates], grid.work(3000, 1000, 16)
    judged = 1000 * (1 + 10 + 100) * 2 * 16**2  # a triangular solve of each code by each component's factor
    assert whole.operations >= sum(part.operations for part in parts) + judged
    assert (whole.held, whole.disk, whole.slack) == (parts[-1].held, parts[-1].disk, parts[-1].slack)


# --- counted as they are ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "kernel", "channels", "start"),
    [(32, 4, 1, 64), (64, 5, 3, 48), (16, 4, 3, 64), (24, 5, 1, 48), (128, 4, 3, 64), (136, 5, 3, 48), (256, 5, 1, 16)],
)
def test_a_networks_arithmetic_and_parameters_are_those_that_torch_counts(size, kernel, channels, start):
    training = load_study("digits").training("digits", "rae")
    network = dataclasses.replace(
        training.network, size=size, kernel=kernel, channels=channels, width=8, start_width=start, latent_dim=5
    )
    model = build(network, training.objective, 0).eval()
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model.decode(model.encode(torch.zeros(1, channels, size, size)).mean)
    counted = network.counts
    one_head = model.mean.weight.numel()  # of two; a VAE has both
    layers = [layer.weight.numel() for layer in weighted_layers(model)]
    assert counted.parameters == sum(layers) + one_head
    assert counted.arithmetic == pytest.approx(counter.get_total_flops() + 2 * one_head, rel=0.02)


@pytest.mark.parametrize("kind", small.FAMILIES)
@pytest.mark.parametrize(("size", "channels"), [(32, 1), (24, 3), (136, 1)])
def test_a_family_says_of_itself_what_torch_counts(kind, size, channels):
    """Operations and weights as they are; floats that a step keeps, within a factor of two."""
    network = small.FAMILIES[kind](channels=channels, size=size)
    with torch.device("meta"):
        model = build(network, small.objective(small.GAUSSIAN), 0)
        x, z = torch.zeros(1, channels, size, size), torch.zeros(1, 5, requires_grad=True)
    kept, weights = {}, {weight.untyped_storage()._cdata for weight in model.parameters()}

    def keep(tensor):
        if (storage := tensor.untyped_storage())._cdata not in weights:
            kept[storage._cdata] = storage.nbytes() / 4
        return tensor

    for part, counted, given in ((model.encode, network.counts.encoder, x), (model.decode, network.counts.decoder, z)):
        with FlopCounterMode(display=False) as counter, torch.autograd.graph.saved_tensors_hooks(keep, lambda one: one):
            held = part(given)
        assert counted == pytest.approx(counter.get_total_flops(), rel=0.02), held
    assert network.counts.parameters == sum(layer.weight.numel() for layer in weighted_layers(model))
    assert sum(kept.values()) / 2 < network.counts.floats < 2 * sum(kept.values())


def test_a_penalty_on_a_derivative_is_counted_several_times():
    study = load_study("digits")
    assert resources.train(study, "digits", "rae_gp").seconds > 3.43 * resources.train(study, "digits", "rae").seconds


def test_a_loss_of_several_codes_decodes_each():
    study, spec = load_study("digits"), load_study("digits").training("digits", "vae")
    iwae = dataclasses.replace(
        spec,
        objective=dataclasses.replace(
            spec.objective, latent=ImportanceWeighted("importance_weighted", 0.03, samples=5)
        ),
    )
    size = spec.network.counts
    assert resources.update_operations(iwae, resources.of_a_loss(iwae, size)) == 3 * (size.encoder + 5 * size.decoder)
    with_it = dataclasses.replace(study, trainings={**study.trainings, ("digits", "vae"): iwae})
    needs = [resources.train(one, "digits", "vae") for one in (study, with_it)]
    assert 1.5 < needs[1].networks / needs[0].networks < 5
    assert needs[1].bytes > needs[0].bytes


# --- growing ----------------------------------------------------------------------------------------------


def _edited(study, **changes):
    """The study with other images, another budget or another file; what stages are told follows."""
    data = {key: value for key, value in changes.items() if key in ("n_train", "n_test")}
    network = {key: value for key, value in changes.items() if key in ("width", "latent_dim", "size")}
    entry = study.datasets[DATASET]
    entry = dataclasses.replace(entry, data=dataclasses.replace(entry.data, **data))
    budget = study.budgets[DATASET]
    budget = dataclasses.replace(budget, latent_dim=changes.get("latent_dim", budget.latent_dim))
    trainings = {}
    for key, spec in study.trainings.items():
        epochs = changes.get("epochs", spec.optimisation.epochs)
        batch = changes.get("batch_size", spec.optimisation.batch_size)
        trainings[key] = dataclasses.replace(
            spec,
            network=spec.network if key[1] == "linear" else dataclasses.replace(spec.network, **network),
            optimisation=dataclasses.replace(spec.optimisation, epochs=epochs, batch_size=batch),
        )
    of_file = ("n_images", "n_generated", "importance_samples", "sample_seeds")
    file = {key: value for key, value in changes.items() if key in of_file}
    file["n_generated"] = max(file.get("n_generated", study.file.n_generated), file.get("n_images", 0))
    return dataclasses.replace(
        study,
        datasets={**study.datasets, DATASET: entry},
        budgets={**study.budgets, DATASET: budget},
        trainings=trainings,
        file=dataclasses.replace(study.file, **file),
    )


GROWING = [
    *[(stage, "n_train", [600, 60_000, 6_000_000]) for stage in ("prepare", "floor", "train", "fit", "evaluate")],
    *[("train", "epochs", [10, 1000, 10_000]), ("train", "width", [4, 128, 512]), ("train", "size", [16, 32, 64, 256])],
    *[("train", "batch_size", [32, 4096]), ("fit", "latent_dim", [8, 512, 2048])],
    *[(stage, "n_images", [300, 10_000, 50_000]) for stage in ("reference", "floor", "evaluate")],
    *[("evaluate", "importance_samples", [0, 50, 5000]), ("evaluate", "sample_seeds", [(0,), tuple(range(3000))])],
    *[
        ("evaluate", "n_generated", [600, 50_000]),
        ("evaluate", "width", [4, 128, 512]),
        ("protocols", "width", [4, 512]),
    ],
]


@pytest.mark.parametrize(("stage", "what", "values"), GROWING)
def test_a_larger_study_asks_for_no_less_and_a_much_larger_one_for_more(stage, what, values):
    needs = []
    for value in values:
        study = _edited(STUDY, **{what: value})
        names = (study.reference(DATASET).name,) if stage == "reference" else None
        needs.append(_need(stage, study, names))
    for smaller, larger in itertools.pairwise(needs):
        assert larger.bytes >= smaller.bytes
        if what != "batch_size":  # the last batch is left out where it is not whole
            assert larger.seconds >= smaller.seconds
    first, last = needs[0], needs[-1]
    assert last.bytes > first.bytes or last.seconds > first.seconds
    if what != "size":  # twice the side is not much larger
        assert (last.mem_mb(1), last.minutes(1)) > (first.mem_mb(1), first.minutes(1))


@pytest.mark.parametrize("stage", STAGES)
def test_each_attempt_asks_for_more_up_to_the_third(stage):
    need = _need(stage)
    memory, minutes = ([ask(attempt) for attempt in range(1, 6)] for ask in (need.mem_mb, need.minutes))
    for asks in (memory, minutes):
        assert asks == [asks[0], 2 * asks[0], *3 * [3 * asks[0]]]


@pytest.mark.parametrize("model", ["vae", "rae_l2", "training_images"])
def test_on_a_gpu_two_stages_share_what_one_does_on_the_cpu(model):
    """Networks with the GPU, metrics without; neither needs the memory of both."""
    on_gpu = dataclasses.replace(STUDY.file, compute=dataclasses.replace(STUDY.file.compute, device="cuda"))
    on_gpu, whole = dataclasses.replace(STUDY, file=on_gpu), resources.evaluate(STUDY, DATASET, model)
    decoding, measuring = (stage(on_gpu, DATASET, model) for stage in (resources.decode, resources.evaluate))
    for name in ("networks", "float32", "float64", "samples", "overhead", "images", "disk"):
        assert getattr(decoding, name) + getattr(measuring, name) == getattr(whole, name), name
    assert (decoding.float64, decoding.on_gpu, measuring.on_gpu, measuring.gpu) == (0, True, False, 0)
    assert measuring.networks == measuring.float32 == 0
    assert measuring.bytes < whole.bytes


def test_asks_are_whole_steps_with_room():
    assert (Need().mem_mb(1), Need().minutes(1)) == (500, 5)
    assert Need(bytes=1e9, libraries=1e9).mem_mb(1) == 3500
    assert Need(overhead=3600).minutes(1) == 125
    assert Need(on_gpu=True).mem_mb(1) == 3500


def test_what_goes_on_where_it_was_stopped_asks_for_a_day_at_most():
    for hours, resumes, asked in ((20, False, [2405, 4810]), (20, True, [1440, 1440]), (1, True, [125, 250])):
        need = Need(overhead=3600 * hours, resumes=resumes)
        assert [need.minutes(attempt) for attempt in (1, 2)] == asked


def test_the_papers_studies_ask_for_no_more_than_twice_what_they_are_told_to_take(tmp_path):
    """A GPU at the rate of docs/paper.md; a day's limit holds them all but the metrics of the model with most sets."""
    study = load_study("paper_as_released")
    needs = [(job, resources.of_job(study, job.stage, about(job))) for job in study_jobs(study, tmp_path)]
    trainings = [need for job, need in needs if job.stage == "train"]
    asked = sum(need.minutes(1) for need in trainings) / 60
    assert asked < 2.1 * sum(need.seconds for need in trainings) / 3600
    assert asked < 600  # 1,944 when each asked for a day
    over = {(job.stage, job.name.split("/")[0]) for job, need in needs if need.minutes(1) > 24 * 60}
    assert over <= {("evaluate", "celeba")}


@pytest.mark.parametrize(("limit", "asked"), [(None, [1440, 1440]), (600, [600, 600]), (2000, [1205, 2000])])
def test_a_profiles_limit_cuts_what_is_asked_for(limit, asked):
    """Trainings may then ask for more than a day; what goes on nowhere is cut as well: Slurm would refuse it."""
    training = Need(overhead=10 * 3600, resumes=True)
    assert [training.minutes(attempt, limit) for attempt in (1, 2)] == ([1205, 1440] if limit is None else asked)
    assert Need(overhead=10 * 3600).minutes(2, limit) == (2410 if limit is None else min(limit, 2410))


# --- enough -----------------------------------------------------------------------------------------------


def test_the_smoke_study_stays_within_what_it_asks_for(smoke):
    checked = 0
    for job in study_jobs(STUDY, smoke.results):
        if job.stage not in STAGES:
            continue  # a summary runs where the command does
        state = read_state(job)
        names = job.name.split("/")
        rest = {"reference": names[1:], "fit": [*names[1:2], names[-1]]}.get(job.stage, names[1:2])
        need = STAGES[job.stage][0](STUDY, names[0], *(rest if job.stage not in ("prepare", "floor") else ()))
        assert state["peak_mib"] * 1.048576 + 3 * 142 < need.mem_mb(1), job
        assert state["seconds"] < 60 * need.minutes(1), job
        checked += 1
    assert checked == 45


# --- in the workflow --------------------------------------------------------------------------------------


def _resources(checkout, *options):
    """What the dry run says each rule's jobs ask for."""
    dry = checkout.snakemake("--dry-run", "--forceall", "--quiet", "progress", *options)
    assert dry.returncode == 0, dry.stdout + dry.stderr
    found = {}
    for rule, body in re.findall(r"^(?:local)?rule (\w+):\n((?:    .*\n)*)", dry.stdout, re.MULTILINE):
        (line,) = re.findall(r"^    resources: (.*)$", body, re.MULTILINE) or [""]
        found.setdefault(rule, []).append(dict(pair.split("=") for pair in line.split(", ") if "=" in pair))
    return found


def test_the_rules_ask_for_what_is_counted(planned):
    found = _resources(planned)
    for stage in ON_A_CPU:
        asked = {(int(one["mem_mb"]), int(one["runtime"])) for one in found[stage]}
        need = _need(stage)
        assert (need.mem_mb(1), need.minutes(1)) in asked
        assert not any("gpu" in one and one["gpu"] != "0" for one in found[stage])


def test_a_profile_may_state_other_defaults_alone(planned):
    """As every Slurm job is told, max_runtime or not."""
    assert planned.plan(arguments=["--default-resources", "slurm_account=x"]) == {}


def test_a_profiles_max_runtime_caps_every_ask(planned):
    found = _resources(planned, "--default-resources", "max_runtime=7", "tmpdir='/tmp'")
    assert {one["runtime"] for stage in ON_A_CPU for one in found[stage]} == {"7"}
    ended = planned.snakemake("--dry-run", "--default-resources", "max_runtime=1d")
    assert our_lines(ended.stdout + ended.stderr) == [
        "rae_bench: default-resources: max_runtime: '1d': expected minutes, as 1440"
    ]


def test_on_a_gpu_four_stages_ask_for_one_each_and_no_other(fresh):
    device = {"device": "cuda", "threads": 1, "tf32": False, "precision": "float32"}
    with fresh.edited("studies/smoke.yaml", lambda data: put(data, ["compute"], device)):
        found = _resources(fresh)
    asking = {rule for rule, jobs in found.items() if any(one.get("gpu") == "1" for one in jobs)}
    assert asking == GPU_STAGES == {*requests.GPU_STAGES} - {"tryout"}  # smoke has no code of a user's own
    assert all(one.get("gpu") == "1" for rule in GPU_STAGES for one in found[rule])


def test_other_asks_rerun_nothing(planned):
    path = planned.path / "rae_bench" / "study" / "resources.py"
    before = path.read_text()
    try:
        path.write_text(before.replace("BASE_MB = 500", "BASE_MB = 9000").replace("ROOM = 2.0", "ROOM = 400.0"))
        assert {one["mem_mb"] for one in _resources(planned)["train"]} != {str(_need("train").mem_mb(1))}
        assert planned.plan() == {}
    finally:
        path.write_text(before)


def test_what_is_held_at_a_time_is_what_the_stages_hold():
    assert (resources.COMPARED, resources.PCA_VALUES) == (evaluation.COMPARED, pca.BLOCK)
    assert (resources.MOMENT_VALUES, resources.NEAREST) == (reference.BLOCK, pairs.AMONG)
    assert (resources.ENCODED, resources.DECODED) == (optimisation.VALIDATION_BATCH, generation.BATCH)
    assert (resources.EXPECTED, resources.PIXEL_BLOCK) == (likelihood.BATCH, features.PIXEL_BLOCK)
    assert (resources.BOUND_CODES, resources.EXPANSIONS) == (likelihood.BOUND_CODES, likelihood.STEPS + 1)
    assert (resources.SHOWN, resources.PLOTTED) == (evaluation.SHOWN, evaluation.PLOTTED)
    assert resources.STRIP_IMAGES == evaluation.STRIPS * evaluation.STEPS


def test_every_extractor_has_its_figures():
    assert set(resources.EXTRACTION) == {*resources.FEATURES, "pixels"} == set(Extractor.__args__)
    assert set(resources.EXTRACTOR_BYTES) == set(resources.FEATURES) - {"digit_classifier", "face_features"}


@pytest.mark.parametrize("size", [16, 32, 128, 256])
@pytest.mark.parametrize("extractor", ["pixels", "efficientnet_lite0"])
def test_features_of_images_of_any_size_are_as_many_as_counted(extractor, size):
    data = dataclasses.replace(load_study("embedded").preparation("faces"), size=size)
    images = np.random.default_rng(0).integers(0, 256, (2, 3, size, size), dtype=np.uint8)
    assert load_extractor(extractor)(images).shape == (2, resources.feature_length(extractor, data))
