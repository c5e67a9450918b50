"""The commands for people: what a study will cost, what it does and has cost, whether it holds, and scores of features.

Each is a function of what is typed; the command line is made from its signature (`rae_bench.cli`). What loads numpy or
more is imported inside the command that needs it.
"""

import logging
import os
import sys
from dataclasses import replace
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rae_bench.base.plain import ConfigError, parse
from rae_bench.run import stages
from rae_bench.run.process import configure
from rae_bench.scoring.specs import MetricSettings
from rae_bench.study import config, vocabulary
from rae_bench.study.config import load_study, study_names
from rae_bench.study.files import StudyFiles
from rae_bench.study.protocols import described
from rae_bench.study.stated import read

if TYPE_CHECKING:
    from rae_bench.scoring.feature_files import Moments
    from rae_bench.scoring.metrics.reference import Features

RESULTS = Path("results")
Json = Annotated[bool, "print JSON"]


def _results() -> Path:
    """The results folder of the checkout this command was given in; of a fresh one it need not be there.

    Raises:
        ConfigError: the command was given in another folder.
    """
    if RESULTS.is_dir() or Path("Snakefile").is_file():
        return RESULTS
    raise ConfigError(
        f"no {RESULTS}/ in {Path.cwd()}; give this command in the checkout, {config.CONFIG.parent.parent}"
    )


def status(study: str) -> None:
    """What is done, running, failed, and how long is left."""
    from rae_bench.run.status import describe

    print(describe(load_study(study), _results()))


def cost(
    study: str,
    *,
    calibrate: Annotated[bool, "time a short run of each data set on this machine, minutes"] = False,
    device: Annotated[str | None, "a device timed before, by its name in results/calibrations/"] = None,
    from_peak: Annotated[float | None, "a stated peak in TFLOPS: an estimate, not measured"] = None,
    utilisation: Annotated[float | None, "the share of --from-peak that is reached, 0 to 1"] = None,
    at_once: Annotated[int | None, "jobs at once; else as many as there are cores, or one GPU"] = None,
    json: Json = False,
) -> None:
    """What a study will cost, before it runs: jobs, FLOPs, memory, disk and, on a device, hours."""
    from rae_bench.run import cost as costs

    if at_once is not None and at_once < 1:
        raise ConfigError(f"--at-once: {at_once} must be at least 1")
    if calibrate + (device is not None) + (from_peak is not None) > 1:
        raise ConfigError("--calibrate, --device and --from-peak are three ways to know a device; give one of them")
    found, results = load_study(study), _results()
    if from_peak is None and utilisation is None:
        found, named, seconds = costs.on_device(found, results, calibrate, device)
    else:
        named, seconds = costs.from_peak(from_peak, utilisation)
    threads = found.file.compute.threads
    at_once = at_once or (1 if found.gpus else max((os.cpu_count() or 1) // threads, 1))
    told = costs.summary(found, costs.job_frame(found, results, seconds), named, at_once)
    print(_json(told, indent=1) if json else costs.describe(told))


def _json(data: object, indent: int | None = None) -> str:
    return dumps(data, indent=indent, sort_keys=True)


def spent(
    study: str,
    *,
    cores: int | None = None,
    since: Annotated[float | None, "when the command that ran the jobs began, in Unix time"] = None,
) -> None:
    """What a study has cost: every job's time and memory to costs.csv, and how the wall time divides."""
    from rae_bench.run.status import write_costs

    print(write_costs(load_study(study), _results(), cores, since))


def settings(study: str) -> None:
    """A study as it is read: what it extends with what its file lays over it, and its own entries, as YAML."""
    import yaml

    load_study(study)  # what cannot be used is not shown
    found = read(study, config.CONFIG)
    told = {"name": found.name, **found.settings, **({"own": found.entries} if found.entries else {})}
    print(yaml.safe_dump(told, sort_keys=False, allow_unicode=True, width=120), end="")


def switches() -> None:
    """Every named setting of the protocols as a markdown table: what, where, source, expected effect."""
    words = vocabulary.read(config.CONFIG)
    header = ["setting", "what it does", "on", "source", "in protocol", "expected effect"]
    for row in (header, ["---"] * len(header), *described(words.settings, words.protocols)):
        print("| " + " | ".join(row) + " |")


def published(study: str, *, out: Annotated[Path, "folder for tables/ and figures/"]) -> None:
    """What the paper published beside what has finished of a study; needs no results."""
    from rae_bench.report.plots import catalogue as plots
    from rae_bench.report.published.numbers import PublishedError
    from rae_bench.report.tables import catalogue as tables
    from rae_bench.run.status import finished_metrics

    found = load_study(study)
    spec = replace(found.summary(), tables=("published",))
    if not any(spec.published.values()):
        raise PublishedError(f"{study}: none of its data sets is the paper's: {', '.join(found.datasets)}")
    frame = finished_metrics(found, _results())
    tables.write(spec, frame, StudyFiles(RESULTS, found.name), out / "tables" / "index.json")
    plots.write_published(spec, frame, out / "figures" / "index.json")
    runs = len(found.datasets) * len(found.scored) * len(found.train_seeds)
    finished = len(frame[["dataset", "model", "train_seed"]].drop_duplicates())
    print(f"{finished} of {runs} runs have finished; written to {out}")


def convert(
    *,
    dataset: Annotated[str, "mnist, cifar10 or celeba"] = "",
    model: Annotated[str, "as in models.yaml and rows.yaml"] = "",
    rule: Annotated[float | None, "for rae_gp: the Jacobian penalty's weight, too, by the mean square pixel"] = None,
    table: Annotated[bool, "print all official configurations as markdown"] = False,
    json: Json = False,
) -> None:
    """Loss weights of the official code on our scale, step by step."""
    from rae_bench.study import official

    if table:
        print(official.table())
        return
    if not dataset or not model:
        raise official.ConversionError("convert needs --dataset and --model, or --table")
    one = official.configuration(dataset, model)
    print(_json(one.plain(rule)) if json else one.text(rule))


def verify(
    study: str,
    *,
    cell: Annotated[str | None, "recompute DATASET/MODEL/DENSITY/SEED, as in digits/rae_l2/gmm10/seed0"] = None,
) -> None:
    """Hold a finished study against its records, or recompute one cell."""
    found = load_study(study)
    configure(found.file.compute)
    logging.getLogger("rae_bench").setLevel(logging.WARNING)
    from rae_bench.run import cells, verification

    if cell is None:
        verdict = verification.verify(found, _results())
        print(verification.describe(found, verdict))
        if verdict.problems:
            raise verification.VerificationError(f"{study}: {len(verdict.problems)} found wrong")
        if not verdict.is_well:
            raise verification.VerificationError(f"{study}: prepared from other files than those there now")
        return
    made = cells.recompute(found, _results(), cells.parse_cell(found, cell))
    print(cells.describe(made))
    unequal = sum(not one.is_equal for one in made)
    if unequal:
        raise verification.VerificationError(f"{cell}: {unequal} of {len(made)} differ from what is stored")
    print(f"{cell}: all {len(made)} equal")


def export(
    study: str,
    *,
    out: Annotated[Path, "the archive, a zip file"],
    weights: Annotated[bool, "pack models and densities too"] = False,
    codes: Annotated[bool, "pack codes too"] = False,
) -> None:
    """Pack a finished study into one file."""
    from rae_bench.run import archive

    index = archive.pack(load_study(study), _results(), out, weights, codes)
    print(f"{out}: {len(index.members)} files, {out.stat().st_size / 1e6:.1f} MB; {len(index.left_out)} left out")


def import_(file: Path) -> None:
    """Check an archive and restore its study below results/."""
    from rae_bench.run import archive
    from rae_bench.run.jobs import claim
    from rae_bench.run.verification import verify

    with claim(_results()):
        index = archive.unpack(file, RESULTS)
    print(f"{RESULTS / index.study}: {len(index.members)} files restored; {len(index.left_out)} were left out")
    if index.study not in study_names():
        print(f"this checkout has no study {index.study!r}; its settings lie in {RESULTS / index.study / 'settings'}")
    elif problems := verify(load_study(index.study), RESULTS).problems:
        print(f"{len(problems)} files differ from the study as configured here: verify {index.study} lists them")


def rebuild(study: str) -> None:
    """Collect, tables, figures and report again from every run's metrics; trains nothing."""
    from rae_bench.run.jobs import claim

    spec = load_study(study).summary()
    with claim(_results()):
        for stage in (stages.collect, stages.tables, stages.figures, stages.report):
            stage(spec=spec, results=RESULTS)


def score(
    real: Annotated[Path, "features of real images, a row an image: .npy (n, d), or .npz"],
    fake: Annotated[Path, "features of generated images, same extractor"],
    *,
    real_array: Annotated[str | None, "which array, where the .npz holds several"] = None,
    fake_array: Annotated[str | None, "which array, where the .npz holds several"] = None,
    json: Json = False,
    kernel_subsets: int = 100,
    kernel_subset_size: Annotated[int, "at most the images of a set"] = 1000,
    neighbours: Annotated[int, "fewer than the images of a set"] = 3,
    coverage_neighbours: Annotated[int, "likewise"] = 5,
    prd_clusters: Annotated[int, "at most twice the images of a set"] = 20,
    prd_runs: int = 10,
    infinity_sizes: int = 10,
    half_samples: int = 10,
    metric_seed: int = 0,
) -> None:
    """The metrics of two feature matrices; of moments, the Fréchet distance alone."""
    from rae_bench.scoring import feature_files
    from rae_bench.scoring.feature_files import Moments
    from rae_bench.scoring.metrics.measure import measure
    from rae_bench.scoring.metrics.reference import Reference, check_counts, usable

    sides = (real, real_array, "--real-array"), (fake, fake_array, "--fake-array")
    found = [(path, feature_files.read(path, name, option)) for path, name, option in sides]
    reals, fakes = (array if isinstance(array, Moments) else usable(str(path), array, {}) for path, array in found)
    if isinstance(reals, Moments) or isinstance(fakes, Moments):
        _score_moments([(real, reals), (fake, fakes)], json)
        return
    settings: MetricSettings = parse(
        MetricSettings,
        {
            "kernel_subsets": kernel_subsets,
            "kernel_subset_size": min(kernel_subset_size, len(reals), len(fakes)),
            "neighbours": neighbours,
            "coverage_neighbours": coverage_neighbours,
            "prd_clusters": prd_clusters,
            "prd_angles": 1001,
            "prd_runs": prd_runs,
            "infinity_sizes": infinity_sizes,
            "half_samples": half_samples,
            "seed": metric_seed,
        },
        "score",
    )
    for path, array in ((real, reals), (fake, fakes)):
        check_counts(str(path), array.shape, settings.least_images, spelt=lambda name: f"--{name.replace('_', '-')}")
    reference = Reference.of(reals, max(settings.neighbours, settings.coverage_neighbours), str(real))
    values = measure(reference, fakes, settings, is_fid=False, prd_real=reference, name=str(fake), with_errors=True)
    if json:
        counts = {"n_real": len(reals), "n_fake": len(fakes), "kernel_subset_size": settings.kernel_subset_size}
        print(_json({**values, **counts}))
        return
    for name, value in values.items():
        print(f"{name:28} {value:.6g}")
    print(f"{len(reals)} real, {len(fakes)} fake images; kernel subsets of {settings.kernel_subset_size}")


def _score_moments(sides: "list[tuple[Path, Features | Moments]]", json: bool) -> None:
    """Print the one metric there is where one side or both are moments."""
    from rae_bench.scoring.feature_files import Moments

    one, other = (side if isinstance(side, Moments) else Moments.of(side) for _, side in sides)
    value = one.frechet_distance(other)
    print(_json({"frechet_distance": value}) if json else f"{'frechet_distance':28} {value:.6g}")
    named = " and ".join(dict.fromkeys(str(path) for path, side in sides if isinstance(side, Moments)))
    note = f"{named}: moments (mu, sigma) allow the Fréchet distance alone; all other metrics need the features"
    print(note, file=sys.stderr if json else sys.stdout)


ALL = (status, cost, spent, settings, switches, published, convert, verify, export, import_, rebuild, score)
