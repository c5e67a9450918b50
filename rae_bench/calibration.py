"""How long pieces of work take on a device: timed on this machine in a few minutes, kept by the device's name.

Each piece is done for real, with random data; one too large for SECONDS_EACH (guessed from a product of matrices) is
done smaller, and its time grows with its FLOPs. Kept in `results/calibrations/`, outside the promise of equal bytes.
"""

import logging
import math
import platform
import re
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from rae_bench import specs, storage, work
from rae_bench.forecast import Seconds
from rae_bench.plain import ConfigError, fingerprint, parse, to_plain, unknown
from rae_bench.rehearsal import count, prepare

FOLDER = "calibrations"
SECONDS_EACH = 1.0
"""What a piece of work should take at most, once."""
ENOUGH, MANY = 0.3, 100
"""A piece is timed once, and again until ENOUGH seconds have passed or it was timed MANY times."""
SLOW = 5.0
"""Seconds after which one run, the first, is enough."""
PRODUCT = 2048
"""Side of the matrices whose product is timed."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Calibration:
    """`seconds` by `key` of a piece of work; `product_flops` a second of the device, in float32."""

    device: str
    product_flops: float
    seconds: dict[str, float]
    flops: dict[str, float]


@dataclass(frozen=True)
class Choice:
    """Whose hours are asked for: timed now, a device timed before, or a stated peak; else of this one, if timed."""

    calibrate: bool
    device: str | None
    from_peak: float | None
    utilisation: float | None


def choose(
    pieces: list[work.Work], compute: specs.Compute, results: Path, choice: Choice
) -> tuple[str, Seconds | None]:
    """What to call the device, with all that must be known of its hours, and the seconds of a piece on it.

    Raises:
        ConfigError: an unknown device, a peak without utilisation or the other way round, or one that makes no sense.
    """
    if (choice.from_peak is None) != (choice.utilisation is None):
        raise ConfigError("--from-peak and --utilisation need each other: --from-peak 19.5 --utilisation 0.3")
    if choice.from_peak is not None and choice.utilisation is not None:
        seconds = seconds_from_peak(choice.from_peak, choice.utilisation)
        name = f"a stated peak of {choice.from_peak:g} TFLOP/s at {choice.utilisation:.0%}"
        return f"{name}: from a stated peak, not measured; autoencoders and feature networks alone", seconds
    if choice.calibrate:
        found = calibrate(pieces, compute, results)
    elif choice.device is None and device_name(compute) not in stored(results):
        return "unknown; time this machine with --calibrate, or name another with --device or --from-peak", None
    else:
        found = load(results, choice.device or device_name(compute))
    lacking = sum(key(piece) not in found.seconds for piece in pieces)
    guessed = f"; {lacking} of {len(pieces)} pieces of work not timed there, guessed from their like" if lacking else ""
    return f"{found.device}, measured{guessed}", seconds_on(found)


def key(piece: work.Work) -> str:
    """A piece's name in a calibration."""
    what = [str(piece.what)] if hasattr(piece, "what") else []
    return ".".join([type(piece).__name__.lower(), *what, fingerprint(piece)])


def here(compute: specs.Compute) -> specs.Compute:
    """`compute` as far as this machine can: on the CPU where a GPU is asked for and there is none."""
    if compute.device == "cpu" or torch.cuda.is_available():
        return compute
    return replace(compute, device="cpu", tf32=False)


def device_name(compute: specs.Compute) -> str:
    """What this machine's device is called, with the settings that change its speed."""
    tf32 = ", TF32" if compute.tf32 else ""
    threads = f"{compute.threads} thread{'s' if compute.threads > 1 else ''}"
    if compute.device == "cuda":
        return f"{torch.cuda.get_device_name()}{tf32}, {threads}"
    return f"{_processor()}, {threads}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def _path(results: Path, device: str) -> Path:
    slug = re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")
    return results / FOLDER / f"{slug}.json"


def stored(results: Path) -> dict[str, Path]:
    """The devices there are calibrations of, by name."""
    return {_read(path).device: path for path in sorted((results / FOLDER).glob("*.json"))}


def _read(path: Path) -> Calibration:
    """The calibration in a file, which may be copied from another machine.

    Raises:
        ConfigError: it holds no calibration.
    """
    try:
        found = storage.read_json(path)
    except storage.StorageError:
        raise ConfigError(f"{path}: cannot be read as JSON; expected what cost STUDY --calibrate writes") from None
    if isinstance(found, dict):
        found.pop("torch", None)  # its version, for people
    made: Calibration = parse(Calibration, found, str(path))
    return made


def load(results: Path, device: str) -> Calibration:
    """The calibration of a device.

    Raises:
        ConfigError: there is none.
    """
    known = stored(results)
    if not known:
        raise ConfigError(f"--device: {device!r}: no device was timed yet; there, run cost STUDY --calibrate")
    if device not in known:
        raise ConfigError(unknown("--device", "device", device, list(known)))
    return _read(known[device])


def calibrate(pieces: list[work.Work], compute: specs.Compute, results: Path) -> Calibration:
    """Time `pieces` on this machine, and keep it beside what was timed of this device before."""
    device = device_name(compute)
    product = _product_flops(compute)
    log.info("%s: %.3g GFLOP/s in a product of matrices", device, product / 1e9)
    seconds, flops = {}, {}
    for number, piece in enumerate(pieces, 1):
        seconds[key(piece)] = _seconds(piece, compute, SECONDS_EACH * product)
        flops[key(piece)] = count(piece).flops
        log.info("%d of %d: %s, %.3g s", number, len(pieces), _label(piece), seconds[key(piece)])
    path = _path(results, device)
    before = load(results, device) if path.exists() else Calibration(device, product, {}, {})
    made = Calibration(device, product, {**before.seconds, **seconds}, {**before.flops, **flops})
    storage.write_json(path, {**to_plain(made), "torch": torch.__version__})
    return made


def _label(piece: work.Work) -> str:
    data = to_plain(piece)
    named = [data.get("what"), data.get("extractor"), (data.get("density") or {}).get("kind"), *data.get("modules", ())]
    return " ".join([type(piece).__name__.lower(), *(str(name) for name in named if name)])


def _seconds(piece: work.Work, compute: specs.Compute, affordable: float) -> float:
    """How long `piece` takes; one of more FLOPs than affordable is timed smaller."""
    whole = count(piece).flops
    small = work.reduced(piece, affordable / whole) if whole else piece
    ready = prepare(small, compute.device)
    return _timed(ready.run, compute) * (whole / count(small).flops if small != piece else 1.0)


def _timed(run: Callable[[], object], compute: specs.Compute) -> float:
    """The least seconds of a few runs, after one to warm up unless that one is slow: what disturbs a run only adds.

    Of one thread on a CPU, the seconds it had that CPU: those of an idle core, whatever else runs here.
    """
    clock = _cpu_time if compute.device == "cpu" and compute.threads == 1 else time.perf_counter

    def once() -> float:
        started = clock()
        run()
        if compute.device == "cuda":
            torch.cuda.synchronize()
        return clock() - started

    first = once()
    if first > SLOW:
        return first
    taken: list[float] = []
    while sum(taken) < ENOUGH and len(taken) < MANY:
        taken.append(once())
    return min(taken)


def _cpu_time() -> float:
    """CPU seconds of this process and of those it waited for."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def _product_flops(compute: specs.Compute) -> float:
    one, two = torch.rand(2, PRODUCT, PRODUCT, device=compute.device)
    return float(2 * PRODUCT**3 / _timed(lambda: one @ two, compute))


def seconds_on(calibration: Calibration) -> Seconds:
    """Seconds of a piece on a calibrated device; of one not timed there, by the rate of those of its kind that were.

    Raises:
        ConfigError: none of its kind was timed there.
    """

    def seconds(piece: work.Work) -> float:
        name = key(piece)
        if name in calibration.seconds:
            return calibration.seconds[name]
        kind = name.rpartition(".")[0]
        alike = [other for other in calibration.seconds if other.startswith(f"{kind}.")]
        rates = [calibration.flops[other] / calibration.seconds[other] for other in alike if calibration.flops[other]]
        flops = count(piece).flops
        if flops and rates:
            return flops / statistics.median(rates)
        if alike and not flops:
            return statistics.median(calibration.seconds[other] for other in alike)
        raise ConfigError(f"--device: no {kind} was timed on {calibration.device}; there: cost STUDY --calibrate")

    return seconds


def seconds_from_peak(teraflops: float, utilisation: float) -> Seconds:
    """Seconds of autoencoders and feature networks by their FLOPs, at a share of a stated peak; nothing else has any.

    Raises:
        ConfigError: a peak not above 0, or a utilisation outside (0, 1].
    """
    if not 0 < teraflops < math.inf:
        raise ConfigError(f"--from-peak: {teraflops} must be above 0, in TFLOP/s")
    if not 0 < utilisation <= 1:
        raise ConfigError(f"--utilisation: {utilisation} must lie above 0 and be at most 1, a share of the peak")
    return lambda piece: (
        count(piece).flops / (teraflops * 1e12 * utilisation) if isinstance(piece, (work.Pass, work.Reading)) else 0.0
    )
