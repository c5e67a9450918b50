"""The workflow on a real Slurm: two nodes on this machine, brought up from Debian packages and taken down again."""

import itertools
import re

import pytest
from checkout import Checkout
from clusters import copy_results, finish, running_cluster, submit

from rae_bench.config import load_study
from rae_bench.jobs import read_state, study_jobs

pytestmark = pytest.mark.slow
SEEDS = (0, 1)


@pytest.fixture(scope="module")
def cluster():
    with running_cluster() as cluster:
        yield cluster


# --- the smoke study --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(cluster, tmp_path_factory):  # noqa: ARG001  the cluster must be up
    """A copy in which the smoke study has run through Slurm."""
    checkout = Checkout(tmp_path_factory.mktemp("submitted"))
    finish(checkout, submit(checkout))
    return checkout


def test_the_study_finishes_through_slurm(finished):
    states = {read_state(job)["status"] for job in study_jobs(load_study("smoke"), finished.results)}
    assert states == {"done"}
    assert "has been submitted with SLURM jobid" in (finished.path / "driver.log").read_text()


def test_its_results_are_those_of_one_machine(finished, smoke):
    names = [
        "metrics.parquet",
        "protocols.parquet",
        *(f"tables/{p.name}" for p in (smoke.results / "smoke/tables").glob("*.csv")),
    ]
    assert len(names) > 10
    for name in names:
        assert (finished.results / "smoke" / name).read_bytes() == (smoke.results / "smoke" / name).read_bytes(), name


def test_several_trainings_share_a_job_and_its_gpu(cluster, smoke, tmp_path):
    """profiles/bundled; the trainings of a CPU study do not use the GPU that this one asks for."""
    checkout = Checkout(tmp_path)
    copy_results(smoke, checkout, "datasets")
    runs = [f"smoke/digits_mini/{model}/seed{seed}/model.safetensors" for model in ("vae", "rae_l2") for seed in SEEDS]
    asks = ("--set-resources", "train:gpu=1", "train:slurm_partition=gpu", "--")
    profiles = ("--profile", "profiles/bundled", "--workflow-profile", "profiles/slurm")
    finish(checkout, submit(checkout, *asks, *(f"results/{run}" for run in runs), profiles=profiles))
    for run in runs:
        assert (checkout.results / run).read_bytes() == (smoke.results / run).read_bytes()
    (job,) = cluster.jobs(checkout, "train")
    told = cluster.says("scontrol", "--oneliner", "show", "job", str(job[0]))
    assert "TresPerJob=gres:gpu:1" in told
    trainings = [one for one in study_jobs(load_study("smoke"), checkout.results) if one.stage == "train"]
    ends = {one.output.with_suffix(".job.json").stat().st_mtime: read_state(one)["started"] for one in trainings}
    assert len(ends) == 4
    for (ended, _), (_, started) in itertools.pairwise(sorted(ends.items())):
        assert ended < started  # in turn


# --- what a site writes into the profile ------------------------------------------------------------------

PRINTS = "scontrol --oneliner show job $SLURM_JOB_ID > {output}; echo DEVICES=${{CUDA_VISIBLE_DEVICES:-}} >> {output}"
TOY = (
    "rule all:\n    input: expand('{stage}.txt', stage=['train', 'reference', 'evaluate', 'protocols', 'fit'])\n"
    + "".join(
        f"rule {stage}:\n    output: '{stage}.txt'\n    resources: gpu={gpus}, mem_mb=600, runtime=3\n"
        f"    shell: '{PRINTS}'\n"
        for stage, gpus in (("train", 1), ("reference", 1), ("evaluate", 1), ("protocols", 1), ("fit", 0))
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
    text = text.replace('evaluate: {slurm_partition: "gpu"', f'evaluate: {{slurm_partition: "gpu", {by_name}')
    text = text.replace('protocols: {slurm_partition: "gpu"', f'protocols: {{slurm_partition: "gpu", {by_share}')
    profile.write_text(text.replace("a100", "fake"))
    (folder.path / "Snakefile").write_text(TOY)
    finish(folder, submit(folder))
    return {path.stem: path.read_text() for path in folder.path.glob("*.txt")}


@pytest.mark.parametrize(
    ("stage", "expected", "devices"),
    [
        ("train", "TresPerJob=gres:gpu:1", r"\d"),
        ("reference", "TresPerJob=gres:gpu:fake:1", r"\d"),
        ("evaluate", "TresPerNode=gres:gpu:1", r"\d"),
        ("protocols", "TresPerNode=gres:shard:1", r"\d"),
        ("fit", "Partition=cpu", ""),
    ],
)
def test_the_profiles_examples_get_what_they_say(asked, stage, expected, devices):
    assert expected in asked[stage]
    assert re.search(rf"^DEVICES={devices}$", asked[stage], re.MULTILINE)
    assert ("Partition=gpu" in asked[stage]) == (stage != "fit")
