"""What a study will cost, told before it runs: jobs, images, FLOPs, memory, disk and, on a device, hours.

All but the hours are sums of formulas (`rae_bench.study.resources`). Hours need a device: `calibrate` runs one run of
each of the study's data sets on this machine, networks for one epoch and for two. A job's seconds are then `fixed`
(imports; of a network all but its epochs) and `rate` times the formula's. One model stands for all: evaluations go by
the formula, trainings by the FLOPs that torch counts in a step. Kept in `results/calibrations/` by the device's name,
outside the promise of equal bytes.
"""

import logging
import math
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from rae_bench.base import devices, storage
from rae_bench.base.plain import ConfigError, parse, to_plain, unknown
from rae_bench.base.specs import Compute
from rae_bench.densities.specs import ITERATIONS
from rae_bench.models.layouts.specs import OwnModel, OwnNetworks
from rae_bench.models.specs import TrainingSpec
from rae_bench.run.jobs import STAGES, SUMMARIES, Job, read_state, study_jobs
from rae_bench.study import resources
from rae_bench.study.gpus import GPUS, UTILISATION
from rae_bench.study.resources import Need
from rae_bench.study.study import Study

FOLDER = "calibrations"
SUMS = ("images", "network_flops", "other_flops", "disk_bytes", "seconds", "gpu_seconds")
PEAKS = ("host_bytes", "device_bytes")
RUNS = ("train", "fit", "decode", "evaluate", "protocols")
NOTES = (
    "FLOPs: products of matrices and convolutions, two a multiply-add. Networks: the autoencoders'."
    " Other: feature networks, densities and metrics, by their leading terms;"
    f" mixtures take {ITERATIONS} iterations a fit, as in a small study.",
    "Memory: of the largest job. Hours without collecting, tables, figures, Snakemake's and a cluster's own time.",
)
log = logging.getLogger(__name__)
Seconds = Callable[[Job, Need], float]
"""How long a job of some need takes on a device."""


@dataclass(frozen=True)
class Calibration:
    """What a calibration's file holds: the device's name and kind, and the `fixed` and `rate` of jobs, by `key`."""

    device: str
    kind: Literal["cpu", "cuda"]
    jobs: dict[str, dict[str, float]]


def about(job: Job) -> list[str]:
    """Data set, model and density, or data set and reference, of a job, as far as it has them."""
    parts = job.name.split("/") if job.stage not in SUMMARIES else []
    return parts[:2] + parts[3:] if job.stage in RUNS else parts  # every seed needs the same


def job_frame(study: Study, results: Path, seconds: Seconds | None) -> pd.DataFrame:
    """One row per job: stage, dataset, run, job, is_done, and the columns SUMS and PEAKS; seconds NaN if not known.

    `gpu_seconds` are those of a job that holds a GPU, whatever it does with it.
    """
    rows = []
    for job in study_jobs(study, results):
        need = resources.of_job(study, job.stage, about(job))
        takes = seconds(job, need) if seconds else math.nan
        rows.append(
            {
                "stage": job.stage,
                "dataset": job.name.split("/")[0],
                "run": "/".join(job.name.split("/")[:3]),
                "job": job.name,
                "is_done": read_state(job)["status"] == "done",
                "images": need.images,
                "network_flops": need.networks,
                "other_flops": need.float32 + need.float64,
                "host_bytes": need.libraries + need.bytes,
                "device_bytes": need.gpu,
                "disk_bytes": need.disk,
                "seconds": takes,
                "gpu_seconds": takes if need.on_gpu else 0.0 * takes,  # what is not known stays so
            }
        )
    return pd.DataFrame(rows)


def wall_seconds(frame: pd.DataFrame, at_once: int, beside: int = 1) -> float:
    """How long the jobs take with so many at once: an equal share of all, but no less than the longest run needs.

    With GPUs, so many of the jobs that hold one, and `beside` them as many of the others. A run: training, the longest
    of its fits, decoding, evaluation, one after the other.
    """
    runs = frame[frame["stage"].isin(RUNS)]
    chains = runs.groupby(["run", "stage"])["seconds"].max().groupby("run").sum(min_count=1)
    all_of_them, on_gpus = (float(frame[name].sum(skipna=False)) for name in ("seconds", "gpu_seconds"))
    shares = [on_gpus / at_once, (all_of_them - on_gpus) / (beside if on_gpus else at_once)]
    return max(*shares, *([float(chains.max())] if len(chains) else []))


def summary(study: Study, frame: pd.DataFrame, device: str, at_once: int, beside: int = 1) -> dict[str, Any]:
    """The forecast as plain data: `stages` and `datasets`, each by name, and `total`; bytes, FLOPs, hours.

    `at_once` and `beside` as for `wall_seconds`. Hours are null where no device is known; `left` are the jobs that are
    not done, and what of the total they need.
    """
    left = frame[~frame["is_done"]]
    return {
        "study": study.name,
        "title": study.file.title,
        "device": device,
        "at_once": at_once,
        "beside": beside,
        "stages": {stage: _totals(frame[frame["stage"] == stage]) for stage in STAGES if stage in set(frame["stage"])},
        "datasets": {name: _totals(frame[frame["dataset"] == name]) for name in study.datasets},
        "total": _totals(frame),
        "left": _totals(left),
        "wall_hours": _hours(wall_seconds(left, at_once, beside)),
        "notes": list(NOTES),
    }


def _totals(frame: pd.DataFrame) -> dict[str, Any]:
    sums = {name: float(frame[name].sum(skipna=False)) for name in SUMS}
    return {
        "jobs": len(frame),
        "left": int((~frame["is_done"]).sum()),
        **{name: int(sums[name]) for name in SUMS if not name.endswith("seconds")},
        **{name: int(frame[name].max()) if len(frame) else 0 for name in PEAKS},
        "hours": _hours(sums["seconds"]),
        "gpu_hours": _hours(sums["gpu_seconds"]),
    }


def _hours(seconds: float) -> float | None:
    return None if math.isnan(seconds) else seconds / 3600


def describe(found: dict[str, Any]) -> str:
    """`summary` as a table to read."""
    header = f"{'':10}{'jobs':>6}{'left':>6}{'images':>9}{'FLOPs networks':>16}"
    lines = [
        f"{found['study']}: {found['title']}",
        header + "".join(f"{name:>10}" for name in ("other", "memory", "GPU", "disk", "hours")),
    ]
    datasets = found["datasets"] if len(found["datasets"]) > 1 else {}
    for name, group in {**found["stages"], **datasets, "total": found["total"]}.items():
        cells = [_short(group["other_flops"]), *(_short(group[key], "B") for key in (*PEAKS, "disk_bytes"))]
        cells.append("-" if group["hours"] is None else f"{group['hours']:.3g}")
        counts = f"{group['jobs']:6}{group['left']:6}{_short(group['images']):>9}{_short(group['network_flops']):>16}"
        lines.append(f"{name:10}{counts}" + "".join(f"{cell:>10}" for cell in cells))
    left = found["left"]
    lines.append(f"left to do: {left['jobs']} of {found['total']['jobs']} jobs")
    if left["hours"] is None:
        lines.append(f"hours: {found['device']}")
    else:
        lines.append(f"hours on {found['device']}")
        with_gpu = f", {left['gpu_hours']:.4g} of them with a GPU" if left["gpu_hours"] else ""
        others = f" and {found['beside']} others" if left["gpu_hours"] else ""
        told = f"with {found['at_once']} at once{others} {found['wall_hours']:.4g}"
        lines.append(f"left: {left['hours']:.4g}{with_gpu}; {told}")
    return "\n".join([*lines, *(part for note in found["notes"] for part in textwrap.wrap(note, 110))])


def _short(value: float, unit: str = "") -> str:
    """Three digits and an SI prefix, 12.3 G."""
    steps = min(max(int(math.log10(value) // 3), 0), 6) if value else 0
    return f"{value / 1000**steps:.3g} {('', 'k', 'M', 'G', 'T', 'P', 'E')[steps]}{unit}".rstrip()


# --- hours of a device --------------------------------------------------------------------------------------


def from_peak(teraflops: float | None, utilisation: float | None) -> tuple[str, Seconds]:
    """Seconds of networks by their FLOPs, and of PCA, at a share of a stated peak; nothing else has any.

    Raises:
        ConfigError: one without the other, a peak not above 0, or a utilisation outside (0, 1].
    """
    if teraflops is None or utilisation is None:
        raise ConfigError("--from-peak and --utilisation need each other: --from-peak 19.5 --utilisation 0.3")
    if not 0 < teraflops < math.inf:
        raise ConfigError(f"--from-peak: {teraflops} must be above 0, in TFLOP/s")
    if not 0 < utilisation <= 1:
        raise ConfigError(f"--utilisation: {utilisation} must lie above 0 and be at most 1, a share of the peak")
    rate = teraflops * 1e12 * utilisation
    name = f"a stated peak of {teraflops:g} TFLOP/s at {utilisation:.0%}: from a stated peak, not measured;"
    return f"{name} networks and PCA alone", lambda _, need: (need.networks + need.float32) / rate


def from_name(name: str) -> tuple[str, Seconds]:
    """Seconds of a GPU's own work by its stated peak, and of all other work by the rates of one slow core.

    Those are what walltimes are asked by, so they are too long rather than too short.
    """
    gpu = GPUS[name]
    rate = gpu.teraflops * 1e12 * UTILISATION

    def seconds(_: Job, need: Need) -> float:
        if not need.on_gpu:
            return need.seconds
        return (need.networks + need.float32) / rate + need.overhead + need.float64 / resources.MATRIX_RATE

    told = f"{gpu.teraflops:g} TFLOP/s ({gpu.source}) at {UTILISATION:.0%}"
    return f"{name}: {told}, all else by a slow core: stated, not measured", seconds


def device_name(compute: Compute) -> str:
    """What this machine's device is called, with the settings that change its speed."""
    threads = f"{compute.threads} thread{'s' if compute.threads > 1 else ''}"
    if compute.device == "cuda":
        import torch

        return f"{torch.cuda.get_device_name()}{', TF32' if compute.tf32 else ''}, {threads}"
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{named[0] if named else platform.processor() or platform.machine()}, {threads}"


def stored(results: Path) -> dict[str, Calibration]:
    """Calibrations that are kept, by the device's name.

    Raises:
        ConfigError: a file there, copied from another machine perhaps, holds none.
    """
    found: dict[str, Calibration] = {}
    for path in sorted((results / FOLDER).glob("*.json")):
        try:
            read = storage.read_json(path)
        except storage.StorageError:
            raise ConfigError(f"{path}: cannot be read as JSON; expected what cost STUDY --calibrate writes") from None
        calibration: Calibration = parse(Calibration, read, str(path))
        found[calibration.device] = calibration
    return found


def key(job: Job) -> str:
    """A job's name in a calibration: seeds take the same time, and fits of the same density."""
    dataset, *rest = about(job)
    return "/".join([job.stage, dataset, *rest[-1:]])


def seconds_on(calibration: Calibration) -> Seconds:
    """Seconds of a job on a calibrated device; of one not timed there, by those of its stage that were.

    Raises:
        ConfigError: none of its stage was timed there.
    """

    def seconds(job: Job, need: Need) -> float:
        if job.stage in SUMMARIES:
            return 0.0
        if (found := calibration.jobs.get(key(job))) is None:
            alike = [timed for name, timed in calibration.jobs.items() if name.startswith(f"{job.stage}/")]
            if not alike:
                told = f"no {job.stage} was timed on {calibration.device}; there: cost STUDY --calibrate"
                raise ConfigError(f"--device: {told}")
            found = {part: statistics.median(timed[part] for timed in alike) for part in ("fixed", "rate")}
        return found["fixed"] + found["rate"] * need.seconds

    return seconds


def on_device(study: Study, results: Path, is_timed: bool, device: str | None) -> tuple[Study, str, Seconds | None]:
    """The study as the device runs it, what to call the device, and a job's seconds there, if they are known.

    A device timed before goes by its name, a GPU that was not by that of its kind (`GPUS`). Without a name it is this
    machine: its GPU, else its CPU; timed now, if so asked.

    Raises:
        ConfigError: an unknown device, or a stage that failed.
    """
    here = placed_here(study)
    known = stored(results)
    named = device or device_name(here.file.compute)
    if is_timed:
        found = calibrate(here, results)
    elif named in known:
        found = known[named]
    elif device is None:
        return study, "unknown; time this machine with --calibrate, or name another with --device or --from-peak", None
    elif device in GPUS:
        return study, *from_name(device)
    else:
        raise ConfigError(unknown("--device", "device", device, [*known, *GPUS]))
    placed = _on_cpu(study) if found.kind == "cpu" else study
    return placed, f"{found.device}, measured", seconds_on(found)


def placed_here(study: Study) -> Study:
    """The study as this machine runs it: on its GPU, if it asks for one and there is one, else on the CPU."""
    return study if not study.gpus or devices.n_gpus() else _on_cpu(study)


def _on_cpu(study: Study) -> Study:
    def placed(compute: Compute) -> Compute:
        return replace(compute, device="cpu", tf32=False)

    trainings = {name: replace(spec, compute=placed(spec.compute)) for name, spec in study.trainings.items()}
    return replace(study, file=replace(study.file, compute=placed(study.file.compute)), trainings=trainings)


# --- timing this machine ------------------------------------------------------------------------------------


def calibrate(study: Study, results: Path) -> Calibration:
    """Time one run of each data set of `study` here, and keep it beside what was timed of this device before.

    Raises:
        ConfigError: a stage failed; the message says why.
    """
    new = Calibration(device_name(study.file.compute), "cuda" if study.gpus else "cpu", {})
    made = stored(results).get(new.device, new)
    for dataset in study.datasets:
        with tempfile.TemporaryDirectory(prefix="rae_bench-cost-") as folder:
            made.jobs.update(_time(study, dataset, Path(folder)))
    slug = re.sub(r"[^a-z0-9]+", "-", made.device.lower()).strip("-")
    storage.write_json(results / FOLDER / f"{slug}.json", to_plain(made))
    return made


def _time(study: Study, dataset: str, folder: Path) -> dict[str, dict[str, float]]:
    """The `fixed` and `rate` of jobs of `dataset`, by key: of the model that has most to do, and of its siblings."""
    once, twice = (_with_epochs(study, epochs) for epochs in (1, 2))
    model = max(study.models, key=lambda name: resources.evaluate(once, dataset, name).seconds)
    run = f"{dataset}/{model}/seed{study.train_seeds[0]}"
    found = {}
    for job, longer in zip(study_jobs(once, folder), study_jobs(twice, folder), strict=True):
        if about(job)[:1] != [dataset] or (job.stage in RUNS and not f"{job.name}/".startswith(f"{run}/")):
            continue
        base = resources.of_job(once, job.stage, about(job)).seconds
        more = resources.of_job(twice, job.stage, about(job)).seconds - base
        again = _run(study, longer)[1] if more else 0.0  # first: what follows belongs to the other's outputs
        imports, work = _run(study, job)
        epoch = max(again - work, 0.0) if more else work
        found[key(job)] = {"fixed": imports + work - epoch, "rate": epoch / (more or base)}
        log.info("%s %s: %.3g s, of it imports %.3g s", job.stage, job.name, imports + work, imports)
    timed, formula = found[f"train/{dataset}/{model}"], resources.train(once, dataset, model).seconds
    trained = {name: study.training(dataset, name) for name in study.models}
    flops = {name: step_flops(spec) for name, spec in trained.items() if spec.network.is_optimised}
    for name in flops:  # as many more seconds as torch counts operations
        slower = flops[name] / flops[model] * formula / resources.train(once, dataset, name).seconds
        found[f"train/{dataset}/{name}"] = {"fixed": timed["fixed"], "rate": timed["rate"] * slower}
    return found


def _with_epochs(study: Study, epochs: int) -> Study:
    """The study with that many epochs of every network."""

    def cut(spec: Any) -> Any:
        return replace(spec, optimisation=replace(spec.optimisation, epochs=epochs))

    fits = {
        name: replace(spec, density=cut(spec.density)) if hasattr(spec.density, "optimisation") else spec
        for name, spec in study.fits.items()
    }
    return replace(study, trainings={name: cut(spec) for name, spec in study.trainings.items()}, fits=fits)


def _run(study: Study, job: Job) -> tuple[float, float]:
    """Seconds that the job's own command takes: for its imports, and for its work.

    A job of one thread on a CPU counts its CPU time: what it takes on an idle core, whatever else runs here.
    """
    command = [sys.executable, "-W", "ignore", "-m", "rae_bench", *job.command()]
    ended = subprocess.run(command, capture_output=True, text=True)
    if ended.returncode:
        raise ConfigError(f"--calibrate: {ended.stderr.strip().rpartition(chr(10))[2]}")
    state = read_state(job)
    clock = "cpu_seconds" if study.file.compute.device == "cpu" and study.file.compute.threads == 1 else "seconds"
    return state["import_seconds"], state[clock] - state["import_seconds"]


def step_flops(spec: TrainingSpec) -> float:
    """The FLOPs of a training step per image, as torch counts them: loss and gradients of a batch, nothing computed."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from rae_bench.base.rng import torch_generator
    from rae_bench.models.catalogue import build
    from rae_bench.models.training import learning

    network, batch, device = spec.network, spec.optimisation.batch_size, "meta"
    if isinstance(network, OwnModel | OwnNetworks):
        batch, device = 2, "cpu"  # a user's code need not run without numbers
    with torch.device(device):
        model, x = build(network, spec.objective, seed=0), torch.rand((batch, *network.sample_shape))
    spec = replace(spec, compute=replace(spec.compute, precision="float32"))
    task = learning(spec, model)
    with FlopCounterMode(display=False) as counter:
        task.loss(x, torch_generator(0, "cost"))[-1].backward()  # type: ignore[no-untyped-call]
    return float(counter.get_total_flops()) / batch
