"""What a study's jobs ask of Slurm under a profile, and which partitions would refuse them."""

import dataclasses
import json
import math

import pytest
from checkout import ROOT

from rae_bench import cli
from rae_bench.base.plain import ConfigError
from rae_bench.run import requests
from rae_bench.run.requests import Partition, Profile, Request
from rae_bench.study import resources
from rae_bench.study.config import load_study

SMOKE = load_study("smoke")
NOTHING = Profile("profiles/slurm/config.yaml", {}, {})
ASKED = Request("train", 3, 1, 4, 8000, 100, 1200, 40.0, 700.0, True, None)
GPU = Partition("gpu", True, 1440, 64000, 8, True)


def _profile(folder, text):
    (folder / "config.yaml").write_text(text)
    return requests.profile(folder)


# --- a profile --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "default-resources: {slurm_account: x, max_runtime: 60}\nset-resources: {train: {mem_mb: 9, gres: 'gpu:1'}}",
        "default-resources: [slurm_account=x, max_runtime=60]\nset-resources: ['train:mem_mb=9', 'train:gres=gpu:1']",
    ],
)
def test_a_profile_says_it_as_a_mapping_or_as_texts(tmp_path, text):
    found = _profile(tmp_path, text)
    assert found.of("fit") == {"slurm_account": "x", "max_runtime": 60}
    assert found.of("train") == {"slurm_account": "x", "max_runtime": 60, "mem_mb": 9, "gres": "gpu:1"}


def test_the_suites_profile_is_read_and_another_is_one_line(tmp_path):
    assert requests.profile(ROOT / "profiles" / "slurm") == Profile(
        str(ROOT / "profiles" / "slurm" / "config.yaml"), {}, {}
    )
    with pytest.raises(ConfigError, match=r"gone/config.yaml: no such file"):
        requests.profile(tmp_path / "gone")
    found = _profile(tmp_path, "default-resources: {max_runtime: 1d}")
    with pytest.raises(ConfigError, match=r"config.yaml: max_runtime: '1d'; expected a whole number above 0, as 1440"):
        requests.requests(SMOKE, tmp_path, found)


# --- requests ---------------------------------------------------------------------------------------------


def test_requests_are_those_of_the_rules_formulas(tmp_path):
    found = {one.stage: one for one in requests.requests(SMOKE, tmp_path, NOTHING)}
    assert list(found) == ["prepare", "reference", "floor", "train", "fit", "evaluate", "protocols"]
    assert sum(one.jobs for one in found.values()) == 45
    need = resources.train(SMOKE, "digits_mini", "vae")
    train = found["train"]
    assert (train.jobs, train.gpus, train.cpus, train.partition) == (6, 0, 1, None)
    assert (train.mem_mb, train.minutes, train.hours) == (need.mem_mb(1), need.minutes(1), 6 * need.minutes(1) / 60)


def test_a_profile_goes_before_the_formulas(tmp_path):
    text = "default-resources: {max_runtime: 7}\nset-resources: {train: {mem_mb: 9, runtime: 8, slurm_partition: x}}"
    found = {one.stage: one for one in requests.requests(SMOKE, tmp_path, _profile(tmp_path, text))}
    assert (found["train"].mem_mb, found["train"].minutes, found["train"].partition) == (9, 8, "x")
    assert found["fit"].minutes == found["fit"].least == 7
    spelt = requests.requests(SMOKE, tmp_path, _profile(tmp_path, "set-resources: {train: {runtime: 2h}}"))
    assert {one.stage: one.minutes for one in spelt}["train"] == 120


def test_what_is_asked_is_a_table_or_json(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "Snakefile").touch()
    folder = ["--profile", str(ROOT / "profiles" / "slurm")]
    cli.main(["cost", "smoke", "--slurm", *folder])
    said = capsys.readouterr().out
    assert "train          6     0      1    2000 MB              10             1\n" in said
    assert "asked of Slurm: 8 hours, 0 of them with a GPU" in said
    assert max(map(len, said.splitlines())) <= 120
    cli.main(["cost", "smoke", "--slurm", "--json", *folder])
    told = json.loads(capsys.readouterr().out)["requests"]
    assert {one["stage"]: one["jobs"] for one in told}["train"] == 6


# --- partitions -------------------------------------------------------------------------------------------


def test_partitions_are_as_sinfo_tells_them(tmp_path, monkeypatch):
    lines = "cpu*|infinite|16000|4|(null)\ngpu|1-02:03:30|32000+|4|(null)\ngpu|1-02:03:30|16000|8|gpu:a100:2(S:0)\n"
    lines += "short|30:00|100|1|shard:4\nlong|02:30:00|100|1|(null)\n"
    (tmp_path / "sinfo").write_text(f"#!/bin/sh\ncat <<.\n{lines}.\n")
    (tmp_path / "sinfo").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert requests.partitions() == [
        Partition("cpu", True, math.inf, 16000, 4, False),
        Partition("gpu", False, 1563.5, 32000, 8, True),
        Partition("short", False, 30, 100, 1, True),
        Partition("long", False, 150, 100, 1, False),
    ]
    (tmp_path / "sinfo").write_text("#!/bin/sh\nexit 1\n")
    assert requests.partitions() is None
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    assert requests.partitions() is None


@pytest.mark.parametrize(
    ("asked", "partition", "told"),
    [
        ({}, {}, ""),
        ({"partition": "cpu,gpu"}, {}, ""),
        ({"gpus": 0}, {"has_gpus": False}, ""),
        ({}, {"is_default": False}, "no partition is the default; name one, slurm_partition, in profiles/slurm"),
        ({"partition": "gpus"}, {}, "no partition 'gpus'; profiles/slurm/config.yaml may name gpu, cpu"),
        ({}, {"has_gpus": False}, "asks for a GPU, partition gpu has none; name another"),
        ({"cpus": 9}, {}, "asks for 9 cores, nodes of partition gpu have 8; name another, slurm_partition"),
        ({"mem_mb": 64001}, {}, "asks for 64001 MB, nodes of partition gpu have 64000; name another, slurm"),
        ({}, {"minutes": 600}, "asks for 1200 minutes, partition gpu allows 600; state max_runtime: 600 in profiles"),
        ({"resumes": False}, {"minutes": 800}, "state max_runtime: 800 in profiles/slurm/config.yaml: 700 are counted"),
        ({"resumes": False}, {"minutes": 600}, "700 are counted, and it does not go on after its limit; name another"),
        ({"resumes": False, "minutes": 600}, {}, "asks for 600 minutes by profiles/slurm/config.yaml, 700 are counted"),
    ],
)
def test_a_partition_that_would_refuse_is_named_with_what_would_be_right(asked, partition, told):
    known = [dataclasses.replace(GPU, **partition), Partition("cpu", False, 5, 100, 1, False)]
    found = requests.refusals([dataclasses.replace(ASKED, **asked)], known, NOTHING)
    assert bool(found) == bool(told)
    if told:
        assert found[0].startswith("train: ")
        assert told in found[0]


def test_without_slurm_a_profile_that_allows_too_little_is_named():
    cut = dataclasses.replace(ASKED, minutes=600, resumes=False)
    assert requests.refusals([ASKED, dataclasses.replace(ASKED, minutes=600)], None, NOTHING) == []
    assert len(requests.refusals([cut], None, NOTHING)) == 1
