"""Nothing here talks to anybody without being asked: no data, no weights, no telemetry."""

import os
import shutil
import subprocess
import sys

import pytest
from checkout import ROOT, Checkout, differing, environment

GUARD = """
import os, socket, sys

def hook(event, arguments):
    if event == "socket.getaddrinfo" or (event == "socket.connect" and arguments[0].family != socket.AF_UNIX):
        with open(os.environ["ATTEMPTS"], "a") as file:
            print(event, arguments[1:] if event == "socket.connect" else arguments, file=file)
        raise OSError("no network in this test")

sys.addaudithook(hook)
"""
"""A `sitecustomize` that refuses every Python process a connection, and writes down that it was tried."""

HUBCONF = """
import torch

def dinov2_vitl14():
    return torch.nn.Flatten()
"""
LOAD = "from rae_bench.scoring.features import load_extractor; print(load_extractor('dinov2_vit_l_14').id)"


@pytest.fixture
def guard(tmp_path, monkeypatch):
    """The folder of the guard, and a function that reads what was tried."""
    folder, attempts = tmp_path / "guard", tmp_path / "attempts"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(GUARD)
    monkeypatch.setenv("ATTEMPTS", str(attempts))
    monkeypatch.delenv("RAE_BENCH_DOWNLOAD", raising=False)
    return folder, lambda: attempts.read_text().splitlines() if attempts.exists() else []


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """torch.hub's cache with a stand-in for DINOv2."""
    hub = tmp_path / "torch" / "hub"
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    (hub / "checkpoints").mkdir(parents=True)
    (hub / "checkpoints" / "dinov2_vitl14_pretrain.pth").write_bytes(b"weights")
    (hub / "facebookresearch_dinov2_main").mkdir()
    (hub / "facebookresearch_dinov2_main" / "hubconf.py").write_text(HUBCONF)


def _python(code, folder):
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env=environment(ROOT, folder), capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.usefixtures("cache")
def test_a_cached_network_is_loaded_without_asking_anybody(guard, monkeypatch):
    folder, attempts = guard
    ended = _python(LOAD, folder)
    assert ended.stdout.startswith("dinov2_vit_l_14@224/"), ended.stderr
    assert attempts() == []
    monkeypatch.setenv("RAE_BENCH_DOWNLOAD", "1")  # asked, torch.hub asks GitHub: the guard sees it
    assert _python(LOAD, folder).stdout == ended.stdout
    assert "github.com" in attempts()[0]


@pytest.mark.slow
def test_the_smoke_study_runs_on_one_core_without_a_network_to_the_same_bytes(guard, smoke, tmp_path):
    """Neither Snakemake nor a stage tries; and where a namespace without interfaces may be had, nothing else can."""
    folder, attempts = guard
    checkout = Checkout(tmp_path / "copy")
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--config", "study=smoke"]
    alone = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--net"]
    if shutil.which("unshare") and subprocess.run([*alone, "true"], capture_output=True, check=False).returncode == 0:
        command = [*alone, *command]
    ended = subprocess.run(
        command, cwd=checkout.path, env=environment(checkout.path, folder), capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert attempts() == []
    assert differing(checkout.results, smoke.results) == []
