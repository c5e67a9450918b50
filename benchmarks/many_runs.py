"""Planning a study of many runs, and handing its jobs to a cluster; called as `orchestration.py --runs N`.

The study is `smoke` with two models, three densities and more training seeds: five jobs a run. It is planned by a dry
run. Then trainings are submitted through profiles/slurm to stand-ins for Slurm's commands, which say at once that a job
is done, until so many were taken: what this costs the driver is the price of a job. Nothing is trained.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import records
import yaml

ROOT = Path(__file__).parent.parent
COPIED = ("Snakefile", "environment.yml", "profiles", "workflow", "rae_bench")
DATA, MODELS = "digits_mini", ("rae_l2", "ae")
WARM, COUNTED = 100, 300
"""Submissions that are not counted, which fill the queue, and those after them that are."""
STAND_INS = {
    # a training or a reference, by the wildcards in the command that it wraps, is done as soon as it is submitted
    "sbatch": """
model=$(printf %s "$*" | sed -nE 's/.*train:[^ ]*model=(\\w+).*/\\1/p')
seed=$(printf %s "$*" | sed -nE 's/.*train:[^ ]*seed=([0-9]+).*/\\1/p')
reference=$(printf %s "$*" | sed -nE 's/.*reference:[^ ]*reference=([^, ]+).*/\\1/p')
if [ "$reference" ]; then
  mkdir -p results/references/digits_mini
  touch "results/references/digits_mini/${reference%\\'}.safetensors"
else
  run="results/many/digits_mini/$model/seed$seed"
  mkdir -p "$run"
  touch "$run/model.safetensors" "$run/codes.safetensors" "$run/history.parquet"
fi
echo >> submitted
wc -l < submitted""",
    "squeue": 'for n in $(seq $(wc -l < submitted)); do echo "$n|COMPLETED"; done',
    "sinfo": "echo 'cpu*'",
    "scontrol": "echo 'MinJobAge = 1800 sec'",
    **dict.fromkeys(("sacct", "sacctmgr", "sshare", "scancel"), "true"),
}


def main(runs: int, folder: Path) -> None:
    if runs < WARM + COUNTED:
        sys.exit(f"--runs: {runs} is too few; the price of a job is that of submissions {WARM} to {WARM + COUNTED}")
    for name in COPIED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)  # type: ignore[operator]
    seeds = list(range(-(-runs // len(MODELS))))
    study = yaml.safe_load((ROOT / "workflow/config/studies/smoke.yaml").read_text())
    study |= {"rows": list(MODELS), "train_seeds": seeds, "protocols": {}, "tables": ["table1"]}
    (folder / "workflow/config/studies/many.yaml").write_text(yaml.safe_dump(study))
    (folder / "bin").mkdir()
    for name, text in STAND_INS.items():
        (folder / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / "bin" / name).chmod(0o755)
    (folder / "submitted").touch()
    _, taken, _ = ended(start(folder, "--cores", "1", "--", f"results/datasets/{DATA}/manifest.json"))
    dry, seconds, peak = ended(start(folder, "--cores", "1", "--dry-run", "--quiet", "rules"))
    print(f"prepared in {taken:.0f} core s; planned in {seconds:.0f} core s, {peak / 2**30:.2f} GiB", flush=True)
    total = next(line.split()[1] for line in dry.splitlines() if line.startswith("total"))
    each, wall, largest = submitting(folder)
    print(f"{total} jobs; {each:.2f} core s a submission, {wall:.2f} s on the clock, {largest / 2**30:.2f} GiB")
    ratios = [
        records.Ratio(f"planning {runs:,} runs", seconds, 180, "core s", seconds / 180, bar=1, at_most=True),
        records.Ratio(f"memory of planning {runs:,} runs", peak / 2**30, 4, "GiB", peak / 2**32, bar=1, at_most=True),
        records.Ratio(f"a job submitted, of {runs:,} runs", each, 2, "core s", each / 2, bar=1, at_most=True),
    ]
    rows = [
        ("jobs", int(total)),
        ("planning, core s", round(seconds, 1)),
        ("planning, GiB", round(peak / 2**30, 2)),
        ("a job submitted, core s", round(each, 2)),
        ("a driver that submits, GiB", round(largest / 2**30, 2)),
    ]
    title = f"A study of {runs:,} runs: planning it and submitting its trainings"
    records.write(f"runs_{runs}", title, ratios, tables=[records.Table("", ("", ""), rows)], packages=("snakemake",))


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Snakemake at work there on the study."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    environment["PATH"] = os.pathsep.join([str(folder / "bin"), str(Path(sys.executable).parent), environment["PATH"]])
    command = [sys.executable, "-m", "snakemake", "--config", "study=many", *arguments]
    with (folder / "driver.log").open("w") as log:
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, text=True)


def ended(driver: subprocess.Popen[str]) -> tuple[str, float, int]:
    """What a command said that ends well, the core seconds of its process, and the most bytes it had."""
    folder = Path(f"/proc/{driver.pid}/cwd").readlink()
    _, status, usage = os.wait4(driver.pid, 0)
    said = (folder / "driver.log").read_text()
    if status:
        sys.exit(said[-3000:])
    return said, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024


def submitting(folder: Path) -> tuple[float, float, int]:
    """Of each submission that counts the core seconds, commands for Slurm included, and those on the clock; bytes."""
    quick = ("--slurm-init-seconds-before-status-checks", "1", "--latency-wait", "1", "--retries", "0")
    driver = start(folder, "--workflow-profile", "profiles/slurm", *quick)
    marks = []
    try:
        for count in (WARM, WARM + COUNTED):
            while (folder / "submitted").read_text().count("\n") < count:
                if driver.poll() is not None:
                    sys.exit((folder / "driver.log").read_text()[-3000:])
                time.sleep(0.05)
            marks.append((core_seconds(driver.pid), time.monotonic()))
        status = Path(f"/proc/{driver.pid}/status").read_text()
    finally:
        with contextlib.suppress(ProcessLookupError):
            driver.kill()
        driver.wait()
    (before, began), (after, finished) = marks
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    return (after - before) / COUNTED, (finished - began) / COUNTED, peak * 1024


def core_seconds(process: int) -> float:
    """Of a process and all that it has started and waited for."""
    fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
