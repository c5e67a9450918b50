"""The batch job a stage runs in: when it must have ended.

Snakemake reads the Snakefile once more in each of its Slurm jobs. There Slurm is asked when the job will be killed, and
the stages are told through the environment: no setting of theirs, so that it reruns nothing. Asked, because a rule's
`runtime` is not the limit: profiles and administrators change it, and in a job of several runs each knows only its own.
"""

import logging
import os
import subprocess
import time

STOP_AT = "RAE_BENCH_STOP_AT"
"""Environment variable: Unix time by which a stage should have saved its state and ended; unset, there is no limit."""
MARGIN = 120.0
"""Seconds kept before the job is killed, to save and end; at most a quarter of all there are."""
STOPPED = 75
"""Exit status of a run that saved its state and ended: sysexits' "try again"."""
log = logging.getLogger(__name__)


class StoppedError(RuntimeError):
    """The process had to end and has saved its state; the same command carries on."""


class FinishedError(RuntimeError):
    """Nothing to do: another process made the same outputs from the same inputs while this one waited for it."""


def announce(in_job: bool) -> None:
    """Tell the stages started from here when to stop; `in_job`: this process is Snakemake's own in a cluster job."""
    if not in_job:
        os.environ.pop(STOP_AT, None)  # the limit of a job that a driver happens to run in is not its stages'
    elif STOP_AT not in os.environ and (end := _end_of_job()) is not None:
        os.environ[STOP_AT] = str(end - min(MARGIN, (end - time.time()) / 4))


def stop_at() -> float:
    """Unix time by which this stage should have ended; infinity if it may take as long as it wants."""
    return float(os.environ.get(STOP_AT, "inf"))


def _end_of_job() -> float | None:
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        return None
    command = ["squeue", "--noheader", f"--jobs={job}", "--format=%e"]
    try:
        told = subprocess.run(
            command,
            env={**os.environ, "SLURM_TIME_FORMAT": "%s"},  # seconds since 1970, whatever zone a node keeps
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
        return float(told.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        log.warning("Slurm does not say when job %s ends (%s): nothing stops by itself before", job, error)
        return None
