"""The workflow on a real Slurm: two nodes on this machine, brought up from Debian packages and taken down again.

Whatever happens to its jobs, nodes and driver, a study ends with the bytes of an undisturbed run on one machine.
"""

import itertools
import math
import os
import re
import shutil
import signal

import pytest
import yaml
from checkout import ROOT, Checkout, put
from clusters import copy_results, driven, finish, run, running_cluster, submitted, until

from rae_bench.run.jobs import read_state, study_jobs
from rae_bench.study.config import load_study

LONG = "long"
TRAIN_SECONDS = 50
"""Of a core, for each of the two trainings of the study `long`: beyond a limit of a minute with its margin."""
SEEDS = (0, 1)
MODELS = [f"results/{LONG}/digits_mini/rae_l2/seed{seed}/model.safetensors" for seed in SEEDS]
"""What is asked for where faults hit: trainings. That all other jobs go through Slurm, the smoke study shows."""


@pytest.fixture(scope="module")
def cluster():
    with running_cluster() as cluster:
        yield cluster


# --- the smoke study --------------------------------------------------------------------------------------


def test_the_study_finishes_through_slurm_with_the_results_of_one_machine(cluster, smoke, tmp_path):
    """The driver is a job, too, which its limit ends before anything has run, and which goes on by itself.

    All but one run is there already: training, three fits, and what scores it. Summaries run beside the driver.
    """
    checkout = Checkout(tmp_path)
    there = ("vae", "linear", "training_images", "rae_l2/seed1", "floor*")
    copy_results(smoke, checkout, "datasets", "references", *(f"smoke/digits_mini/{name}" for name in there))
    with driven(cluster, checkout, options=("--time=30", "--signal=B:USR1@60")) as driver:
        until(lambda: driver.state() == "RUNNING", driver)
        cluster.says("scontrol", "update", "PartitionName=cpu", "State=DOWN")  # what is submitted now waits
        try:
            until(lambda: cluster.jobs(checkout, "train"), driver)
            driver.allow(minutes=2)
            until(driver.restarts, driver)
            driver.allow(minutes=30)
        finally:
            cluster.says("scontrol", "update", "PartitionName=cpu", "State=UP")
        said = finish(checkout, driver)
    assert driver.restarts() == 1
    assert said.count("has been submitted with SLURM jobid") == 1 + 6
    assert [state for _, state, _ in cluster.jobs(checkout, "train")] == ["CANCELLED", "COMPLETED"]
    states = {read_state(job)["status"] for job in study_jobs(load_study("smoke"), checkout.results)}
    assert states == {"done"}
    names = [
        "metrics.parquet",
        "protocols.parquet",
        *(f"tables/{path.name}" for path in (smoke.results / "smoke/tables").glob("*.csv")),
    ]
    assert len(names) > 10
    for name in names:
        assert (checkout.results / "smoke" / name).read_bytes() == (smoke.results / "smoke" / name).read_bytes(), name


def test_several_trainings_share_a_job_and_its_gpu(cluster, smoke, tmp_path):
    """profiles/bundled; the trainings of a CPU study do not use the GPU that this one asks for."""
    checkout = Checkout(tmp_path)
    copy_results(smoke, checkout, "datasets")
    models = [f"smoke/digits_mini/{name}/seed{seed}/model.safetensors" for name in ("vae", "rae_l2") for seed in SEEDS]
    asks = ("--set-resources", "train:gpu=1", "train:slurm_partition=gpu", "--")
    profiles = ("--profile", "profiles/bundled", "--workflow-profile", "profiles/slurm")
    run(checkout, *asks, *(f"results/{model}" for model in models), profiles=profiles)
    for model in models:
        assert (checkout.results / model).read_bytes() == (smoke.results / model).read_bytes()
    (job,) = cluster.jobs(checkout, "train")
    told = cluster.says("scontrol", "--oneliner", "show", "job", str(job[0]))
    assert "TresPerJob=gres:gpu:1" in told
    jobs = study_jobs(load_study("smoke"), checkout.results)
    trainings = [one for one in jobs if one.stage == "train" and "/linear/" not in one.name]
    ends = {one.output.with_suffix(".job.json").stat().st_mtime: read_state(one)["started"] for one in trainings}
    assert len(ends) == 4
    for (ended, _), (_, started) in itertools.pairwise(sorted(ends.items())):
        assert ended < started  # in turn


# --- faults -----------------------------------------------------------------------------------------------


def _with_long_study(checkout, epochs):
    """Add a study of one row and two seeds, whose trainings take long enough to be hit."""
    budgets = yaml.safe_load((checkout.config / "budgets.yaml").read_text())
    put(budgets, ["digits_smoke", "optimisation", "epochs"], epochs)
    (checkout.config / "budgets.yaml").write_text(yaml.safe_dump(budgets))
    study = yaml.safe_load((checkout.config / "studies/smoke.yaml").read_text())
    study |= {"rows": ["rae_l2"], "protocols": {}, "tables": ["table1"]}
    (checkout.config / f"studies/{LONG}.yaml").write_text(yaml.safe_dump(study))
    return checkout


@pytest.fixture(scope="module")
def epochs(smoke):
    """As many as fill the time, by what the smoke study's trainings took of a core."""
    jobs = [job for job in study_jobs(load_study("smoke"), smoke.results) if job.stage == "train"]
    states = [read_state(job) for job in jobs if "/rae_l2/" in job.name]
    work = min(state["cpu_seconds"] - state["import_seconds"] for state in states)
    done = load_study("smoke").training("digits_mini", "rae_l2").optimisation.epochs
    return math.ceil(TRAIN_SECONDS * done / work)


@pytest.fixture(scope="module")
def undisturbed(epochs, tmp_path_factory):
    """The long study on this machine alone."""
    checkout = _with_long_study(Checkout(tmp_path_factory.mktemp("undisturbed")), epochs)
    ended = checkout.snakemake("--", *MODELS, study=LONG)
    assert ended.returncode == 0, ended.stderr
    return checkout


@pytest.fixture
def checkout(undisturbed, epochs, tmp_path):
    """A copy with the long study, its images ready."""
    made = _with_long_study(Checkout(tmp_path), epochs)
    copy_results(undisturbed, made, "datasets")
    return made


def _state(checkout, seed):
    return checkout.results / LONG / "digits_mini/rae_l2" / f"seed{seed}" / "model.job.json"


def _training(checkout, seed, process=None):
    """The process id of a seed's training, once another than `process` has finished an epoch."""

    def found():
        path = _state(checkout, seed)
        state = yaml.safe_load(path.read_text()) if path.exists() else {}
        is_at_work = state.get("status") == "running" and "done" in state
        return state["pid"] if is_at_work and state["pid"] != process else None

    return found


def _slurm_jobs(cluster, checkout, seed):
    """States of a seed's trainings, in the order of their submission, by Slurm's number."""
    return {number: state for number, state, comment in cluster.jobs(checkout, "train") if comment.endswith(f"_{seed}")}


def _ends_undisturbed(checkout, undisturbed, driver):
    """Wait for the driver's end and compare the weights' bytes; what it said."""
    said = finish(checkout, driver)
    for model in MODELS:
        assert (checkout.path / model).read_bytes() == (undisturbed.path / model).read_bytes()
    return said


def test_time_limits_and_cancelled_jobs(cluster, checkout, undisturbed):
    """A limit of a minute; one training is cancelled besides, the other hangs until Slurm kills it."""
    limit = ("--set-resources", "train:runtime=1", "--retries", "9")
    with submitted(checkout, *limit, "--", *MODELS, study=LONG, RAE_BENCH_CHECKPOINT_SECONDS="1") as driver:
        os.kill(until(_training(checkout, 1), driver), signal.SIGSTOP)
        first = until(_training(checkout, 0), driver)
        until(_training(checkout, 0, first), driver)  # it has stopped by itself, and gone on
        cancelled = max(_slurm_jobs(cluster, checkout, 0))
        cluster.says("scancel", str(cancelled))
        said = _ends_undisturbed(checkout, undisturbed, driver)
    assert "rae_bench train: the job's time limit is near; " in said
    assert _slurm_jobs(cluster, checkout, 0)[cancelled] == "CANCELLED"
    assert next(iter(_slurm_jobs(cluster, checkout, 0).values())) == "FAILED"
    assert next(iter(_slurm_jobs(cluster, checkout, 1).values())) == "TIMEOUT"


def _starts(cluster, checkout, seed):
    """How often Slurm has given a seed's trainings a node: once a job, and once more for each requeue."""
    told = [
        cluster.says("scontrol", "--oneliner", "show", "job", str(number))
        for number in _slurm_jobs(cluster, checkout, seed)
    ]
    return sum(1 + int(re.search(r"Restarts=(\d+)", text)[1]) for text in told)


def test_pre_emption_and_a_dead_node(cluster, checkout, undisturbed):
    """Whether Slurm puts a job back or Snakemake submits another is a race; either goes on where the first was."""
    asks = ("--set-resources", "train:slurm_partition=gpu-low", "--retries", "9", "--", *MODELS)
    higher = ("--partition=gpu", "--cpus-per-task=2", "--mem=100", "--output=/dev/null", "--wrap=true", "--wait")
    with submitted(checkout, *asks, study=LONG, RAE_BENCH_CHECKPOINT_SECONDS="1") as driver:
        first = {seed: until(_training(checkout, seed), driver) for seed in SEEDS}
        cluster.says("sbatch", *higher)  # it has both cores of the node that both trainings were on
        second = {seed: until(_training(checkout, seed, first[seed]), driver) for seed in SEEDS}
        starts = {seed: _starts(cluster, checkout, seed) for seed in SEEDS}
        assert min(starts.values()) > 1

        cluster.node("kill", "node2")
        until(lambda: "down" in cluster.says("sinfo", "--noheader", "--nodes=node2", "--format=%T"), driver)
        status = checkout.run("rae_bench", "status", LONG).stdout
        assert re.search(r"^train +0 +0 +0 +2 +0$", status, re.MULTILINE), status
        cluster.node("start", "node2")
        _ends_undisturbed(checkout, undisturbed, driver)
    for seed in SEEDS:
        assert _starts(cluster, checkout, seed) > starts[seed]
        assert yaml.safe_load(_state(checkout, seed).read_text())["pid"] not in (first[seed], second[seed])


def test_a_driver_that_is_killed_and_started_again(cluster, checkout, undisturbed):
    """Its jobs go on; those that the second submits beside them wait, and find the work done."""
    with submitted(checkout, "--", *MODELS, study=LONG) as driver:
        first = {seed: until(_training(checkout, seed), driver) for seed in SEEDS}
    status = checkout.run("rae_bench", "status", LONG).stdout
    assert re.search(r"^train +0 +2 +0 +0 +0$", status, re.MULTILINE), status
    with submitted(checkout, "--", *MODELS, study=LONG) as driver:
        _ends_undisturbed(checkout, undisturbed, driver)
    for seed in SEEDS:
        assert list(_slurm_jobs(cluster, checkout, seed).values()) == ["COMPLETED", "COMPLETED"]
        assert yaml.safe_load(_state(checkout, seed).read_text())["pid"] == first[seed]
        log = checkout.results / LONG / "logs/train" / f"digits_mini.rae_l2.seed{seed}.log"
        assert "nothing to do" in log.read_text()


# --- what is missing --------------------------------------------------------------------------------------


def test_check_names_each_missing_piece_before_anything_is_submitted(cluster, tmp_path, monkeypatch):
    """Data and weights; then a partition's limit, below what trainings and evaluations of a study on a GPU ask for."""
    monkeypatch.setenv("RAE_BENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    checkout = Checkout(tmp_path / "checkout")
    for name in ("requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, checkout.path)
    text = "extends: search_mnist\nname: mine\ncompute: {threads: 1}\n"  # nodes here have two cores
    (checkout.path / "mine.yaml").write_text(text)

    def missing():
        ended = checkout.run("rae_bench", "check", "mine.yaml")
        assert ended.returncode == 1
        return re.findall(r"^missing (.*?): (.*)$", ended.stdout, re.MULTILINE)

    pieces = ["images of mnist", "weights of inception_v3_compat"]
    assert [what for what, _ in missing()] == pieces
    cluster.says("scontrol", "update", "PartitionName=cpu", "MaxTime=60")
    try:
        found = missing()
    finally:
        cluster.says("scontrol", "update", "PartitionName=cpu", "MaxTime=1-00:00:00")
    assert [what for what, _ in found] == [*pieces, "limits", "limits"]
    (_, training), (_, evaluation) = found[2:]
    allowed = r" asks for \d+ minutes, partition cpu allows 60"
    where = re.escape("profiles/slurm/config.yaml")
    assert re.fullmatch(
        rf"train:{allowed}; state max_runtime: 60 in {where}: trainings go on in the next job", training
    )
    assert re.match(rf"evaluate:{allowed}, \d+ are counted, and it does not go on after its limit; ", evaluation)
    assert str(checkout.path) not in cluster.says("squeue", "--states=all", "--noheader", "--format=%Z")
    assert not checkout.results.exists()


# --- what a site writes into the profile ------------------------------------------------------------------

PRINTS = "scontrol --oneliner show job $SLURM_JOB_ID > {output}; echo DEVICES=${{CUDA_VISIBLE_DEVICES:-}} >> {output}"
TOY = (
    "rule all:\n    input: expand('{stage}.txt', stage=['train', 'reference', 'decode', 'protocols', 'fit'])\n"
    + "".join(
        f"rule {stage}:\n    output: '{stage}.txt'\n    resources: gpu={gpus}, mem_mb=600, runtime=3\n"
        f"    shell: '{PRINTS}'\n"
        for stage, gpus in (("train", 1), ("reference", 1), ("decode", 1), ("protocols", 1), ("fit", 0))
    )
)


@pytest.fixture(scope="module")
def asked(cluster, tmp_path_factory):  # noqa: ARG001  the cluster must be up
    """What Slurm gave five rules, under the profile's own examples with this cluster's names; by stage."""
    folder = Checkout(tmp_path_factory.mktemp("asked"))
    profile = folder.path / "profiles/slurm/config.yaml"
    text = re.sub(r"(?m)^#(set-resources:|  \w+: \{)", r"\1", profile.read_text())
    by_model, by_name, by_share = re.findall(r"\{slurm_partition: \"gpu\", (gpu_model: [^}]*|gpu: 0[^}]*)\}", text)
    text = text.replace('reference: {slurm_partition: "gpu"', f'reference: {{slurm_partition: "gpu", {by_model}')
    text = text.replace('decode: {slurm_partition: "gpu"', f'decode: {{slurm_partition: "gpu", {by_name}')
    text = text.replace('protocols: {slurm_partition: "gpu"', f'protocols: {{slurm_partition: "gpu", {by_share}')
    profile.write_text(text.replace("a100", "fake"))
    (folder.path / "Snakefile").write_text(TOY)
    run(folder)
    return {path.stem: path.read_text() for path in folder.path.glob("*.txt")}


@pytest.mark.parametrize(
    ("stage", "expected", "devices"),
    [
        ("train", "TresPerJob=gres:gpu:1", r"\d"),
        ("reference", "TresPerJob=gres:gpu:fake:1", r"\d"),
        ("decode", "TresPerNode=gres:gpu:1", r"\d"),
        ("protocols", "TresPerNode=gres:shard:1", r"\d"),
        ("fit", "Partition=cpu", ""),
    ],
)
def test_the_profiles_examples_get_what_they_say(asked, stage, expected, devices):
    assert expected in asked[stage]
    assert re.search(rf"^DEVICES={devices}$", asked[stage], re.MULTILINE)
    assert ("Partition=gpu" in asked[stage]) == (stage != "fit")
