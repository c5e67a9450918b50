"""Run a study's stages one after the other, in this folder, where Snakemake is missing.

What is done is not done again, so the same command goes on. After a change of settings Snakemake knows better what
depends on what; here a stage that reads what no longer belongs together ends with a line that names what to run again.

Run with STUDY.
"""

import subprocess
import sys
from pathlib import Path

from rae_bench.base.locks import HeldError
from rae_bench.base.plain import ConfigError
from rae_bench.base.storage import StorageError, remove
from rae_bench.run.jobs import Job, claim, read_state, study_jobs
from rae_bench.study.config import load_study


def main(name: str) -> None:
    results = Path("results")
    try:
        jobs = in_turn(study_jobs(load_study(name), results))
        stack = claim(results)
    except (ConfigError, HeldError, StorageError) as error:
        sys.exit(f"run_stages: {error}")
    with stack:
        for number, job in enumerate(jobs, start=1):
            if read_state(job)["status"] != "done":
                print(f"{number}/{len(jobs)} {job.stage} {job.name}", flush=True)
                if status := subprocess.run([sys.executable, "-m", "rae_bench", *job.command()]).returncode:
                    sys.exit(f"run_stages: {job.stage} {job.name} ended with status {status}; the same command goes on")
            remove(*(one.output for one in jobs if one.read_by == job.output))


def in_turn(jobs: list[Job]) -> list[Job]:
    """The jobs, each that alone reads what another has made right behind that one: such files are large."""
    by_output = {job.output: job for job in jobs}
    ordered: dict[Path, Job] = {}
    for job in jobs:
        ordered[job.output] = job
        if job.read_by is not None:
            ordered[job.read_by] = by_output[job.read_by]
    return [*ordered.values()]


if __name__ == "__main__":
    main(*sys.argv[1:2] or [sys.exit("run_stages: expected the name of a study")])
