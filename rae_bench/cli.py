"""The command line: a subcommand per stage of the workflow (`rae_bench.run.stages`), and the commands for people."""

import argparse
import errno
import io
import json
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from rae_bench.base.checkpoints import STOPPED, FinishedError, StoppedError
from rae_bench.base.plain import ConfigError, parse, to_plain, unknown
from rae_bench.base.specs import Seed
from rae_bench.run import stages
from rae_bench.scoring.specs import MetricSettings

if TYPE_CHECKING:
    from rae_bench.scoring.feature_files import Moments
    from rae_bench.scoring.metrics.reference import Features

RESULTS = Path("results")


def main(arguments: list[str] | None = None) -> None:
    """Run one subcommand; a mistake of the user's is one line on stderr and exit status 1."""
    _print_any_text()
    options = _parser().parse_args(arguments)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(name)s: %(message)s", datefmt="%H:%M:%S", stream=sys.stderr
    )
    logging.getLogger("PIL").setLevel(logging.CRITICAL)  # what it has against a file it also raises
    logging.raiseExceptions = False  # a line that a full disk does not take is lost, without a traceback
    try:
        if "seed" in options:
            parse(Seed, options.seed, "--seed")
        options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:
        os._exit(1)
    except OSError as error:
        if error.errno != errno.ENOSPC or error.filename is not None:
            raise
        print(f"rae_bench {options.command}: what it prints cannot be written: {error.strerror}", file=sys.stderr)
        os._exit(1)  # else Python tries again
    except FinishedError as error:
        logging.getLogger(__name__).info("%s: nothing to do: %s", options.command, error)
    except StoppedError as error:
        print(f"rae_bench {options.command}: {error}", file=sys.stderr)
        sys.exit(STOPPED)
    except Exception as error:
        if not _is_expected(error):
            raise
        told = " ".join(str(error).split()) or "the memory is full"  # Python's MemoryError says nothing
        sys.exit(f"rae_bench {options.command}: {told}")


def _print_any_text() -> None:
    """Let stdout put "?" for what its encoding lacks, as a Latin-1 terminal's lacks "λ"; stderr escapes it anyway."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    elif sys.stdout is None:  # closed by whoever called
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  it stays open to the end


def _is_expected(error: Exception) -> bool:
    """Whether the message alone says what is wrong: the suite's own errors, a full memory, a missing package."""
    own = type(error).__module__.startswith("rae_bench.")
    return own or isinstance(error, (MemoryError, ImportError))


def _results() -> Path:
    """The results folder of the checkout this command was given in; of a fresh one it need not be there.

    Raises:
        ConfigError: the command was given in another folder.
    """
    from rae_bench.study.config import CONFIG

    if RESULTS.is_dir() or Path("Snakefile").is_file():
        return RESULTS
    raise ConfigError(f"no {RESULTS}/ in {Path.cwd()}; give this command in the checkout, {CONFIG.parent.parent}")


def status(options: argparse.Namespace) -> None:
    """What is done, running, failed, and how long is left."""
    from rae_bench.run.status import describe
    from rae_bench.study.config import load_study

    print(describe(load_study(options.study), _results()))


def cost(options: argparse.Namespace) -> None:
    """What a study will cost, before it runs: jobs, FLOPs, memory, disk and, on a device, hours."""
    from rae_bench.run import cost as costs
    from rae_bench.study.config import load_study

    study = load_study(options.study)
    if options.at_once is not None and options.at_once < 1:
        raise ConfigError(f"--at-once: {options.at_once} must be at least 1")
    results = _results()
    if options.from_peak is None and options.utilisation is None:
        study, device, seconds = costs.on_device(study, results, options.calibrate, options.device)
    else:
        device, seconds = costs.from_peak(options.from_peak, options.utilisation)
    threads = study.file.compute.threads
    at_once = options.at_once or (1 if study.gpus else max((os.cpu_count() or 1) // threads, 1))
    found = costs.summary(study, costs.job_frame(study, results, seconds), device, at_once)
    print(json.dumps(found, indent=1, sort_keys=True) if options.json else costs.describe(found))


def spent(options: argparse.Namespace) -> None:
    """What a study has cost: every job's time and memory to costs.csv, and how the wall time divides."""
    from rae_bench.run.status import write_costs
    from rae_bench.study.config import load_study

    print(write_costs(load_study(options.study), _results(), options.cores, options.since))


def settings(options: argparse.Namespace) -> None:  # noqa: ARG001  every command takes options
    """Every named setting of the protocols as a markdown table: what, where, source, expected effect."""
    from rae_bench.study import config, vocabulary
    from rae_bench.study.protocols import described

    words = vocabulary.read(config.CONFIG)
    header = ["setting", "what it does", "on", "source", "in protocol", "expected effect"]
    for row in (header, ["---"] * len(header), *described(words.settings, words.protocols)):
        print("| " + " | ".join(row) + " |")


def published(options: argparse.Namespace) -> None:
    """What the paper published beside what has finished of a study; needs no results."""
    from dataclasses import replace

    from rae_bench.report.plots import catalogue as plots
    from rae_bench.report.published.numbers import PublishedError
    from rae_bench.report.tables import catalogue as tables
    from rae_bench.run.status import finished_metrics
    from rae_bench.study.config import load_study

    study = load_study(options.study)
    spec = replace(study.summary(), tables=("published",))
    if not any(spec.published.values()):
        raise PublishedError(f"{study.name}: none of its data sets is the paper's: {', '.join(study.datasets)}")
    frame = finished_metrics(study, _results())
    tables.write(spec, frame, RESULTS / study.name, options.out / "tables" / "index.json")
    plots.write_published(spec, frame, options.out / "figures" / "index.json")
    runs = len(study.datasets) * len(study.models) * len(study.train_seeds)
    finished = len(frame[["dataset", "model", "train_seed"]].drop_duplicates())
    print(f"{finished} of {runs} runs have finished; written to {options.out}")


def convert(options: argparse.Namespace) -> None:
    """Loss weights of the paper, the official code or Pythae on our scale, step by step."""
    from rae_bench.study import conversion

    if options.table:
        print(conversion.table())
        return
    match options.source:
        case "official":
            for name in ("latent", "regulariser"):
                if getattr(options, name) is not None:
                    raise conversion.ConversionError(f"--{name}: the official code's weights are known; name a model")
            found = conversion.from_official(options.dataset, options.model, options.penalty, options.rule)
        case "paper":
            found = conversion.from_paper(options.model, options.latent, options.regulariser)
        case "pythae":
            found = conversion.from_pythae(options.model, options.latent, options.regulariser)
        case _:
            raise conversion.ConversionError(unknown("--from", "source", options.source, conversion.SOURCES))
    print(json.dumps(found.data, sort_keys=True) if options.json else found.text())


def verify(options: argparse.Namespace) -> None:
    """Hold a finished study against its records, or recompute one cell."""
    from rae_bench.run.process import configure
    from rae_bench.study.config import load_study

    study = load_study(options.study)
    configure(study.file.compute)
    logging.getLogger("rae_bench").setLevel(logging.WARNING)
    from rae_bench.run import verification

    if options.cell is None:
        verdict = verification.verify(study, _results())
        print(verification.describe(study, verdict))
        if verdict.problems:
            raise verification.VerificationError(f"{study.name}: {len(verdict.problems)} found wrong")
        if not verdict.is_well:
            raise verification.VerificationError(f"{study.name}: prepared from other files than those there now")
        return
    cell = verification.parse_cell(study, options.cell)
    made = verification.recompute(study, _results(), cell)
    print(verification.describe_cell(made))
    unequal = sum(not one.is_equal for one in made)
    if unequal:
        raise verification.VerificationError(f"{options.cell}: {unequal} of {len(made)} differ from what is stored")
    print(f"{options.cell}: all {len(made)} equal")


def export(options: argparse.Namespace) -> None:
    """Pack a finished study into one file."""
    from rae_bench.run import archive
    from rae_bench.study.config import load_study

    index = archive.pack(load_study(options.study), _results(), options.out, options.weights, options.codes)
    size = options.out.stat().st_size / 1e6
    print(f"{options.out}: {len(index.members)} files, {size:.1f} MB; {len(index.left_out)} left out")


def import_(options: argparse.Namespace) -> None:
    """Check an archive and restore its study below results/."""
    from rae_bench.run import archive
    from rae_bench.run.jobs import claim
    from rae_bench.run.verification import verify
    from rae_bench.study.config import load_study, study_names

    with claim(_results()):
        index = archive.unpack(options.file, RESULTS)
    print(f"{RESULTS / index.study}: {len(index.members)} files restored; {len(index.left_out)} were left out")
    if index.study not in study_names():
        print(f"this checkout has no study {index.study!r}; its settings lie in {RESULTS / index.study / 'settings'}")
    elif problems := verify(load_study(index.study), RESULTS).problems:
        print(f"{len(problems)} files differ from the study as configured here: verify {index.study} lists them")


def rebuild(options: argparse.Namespace) -> None:
    """Collect, tables, figures and report again from every run's metrics; trains nothing."""
    from rae_bench.base.plain import to_json
    from rae_bench.run.jobs import claim, study_jobs
    from rae_bench.study.config import load_study

    study = load_study(options.study)
    outputs: dict[str, list[Path]] = {}
    for job in study_jobs(study, _results()):
        outputs.setdefault(job.stage, []).append(job.output)
    given = {"spec": to_json(study.summary()), "metrics": outputs["collect"][0]}
    with claim(RESULTS):
        stages.collect(argparse.Namespace(runs=outputs["evaluate"], panels=outputs.get("protocols", []), **given))
        for stage in (stages.tables, stages.figures, stages.report):
            stage(argparse.Namespace(out=outputs[stage.__name__][0], **given))


def score(options: argparse.Namespace) -> None:
    """The metrics of two feature matrices; of moments, the Fréchet distance alone."""
    from rae_bench.scoring import feature_files
    from rae_bench.scoring.feature_files import Moments
    from rae_bench.scoring.metrics.measure import measure
    from rae_bench.scoring.metrics.reference import Reference, check_counts, usable

    given = {"real": (options.real, options.real_array), "fake": (options.fake, options.fake_array)}
    found = [(path, feature_files.read(path, name, f"--{side}-array")) for side, (path, name) in given.items()]
    real, fake = (array if isinstance(array, Moments) else usable(str(path), array, {}) for path, array in found)
    if isinstance(real, Moments) or isinstance(fake, Moments):
        _score_moments(real, fake, options)
        return
    settings = MetricSettings(
        kernel_subsets=options.kernel_subsets,
        kernel_subset_size=min(options.kernel_subset_size, len(real), len(fake)),
        neighbours=options.neighbours,
        coverage_neighbours=options.coverage_neighbours,
        prd_clusters=options.prd_clusters,
        prd_angles=1001,
        prd_runs=options.prd_runs,
        infinity_sizes=options.infinity_sizes,
        half_samples=options.half_samples,
        seed=options.metric_seed,
    )
    parse(MetricSettings, to_plain(settings), "score")
    for path, array in ((options.real, real), (options.fake, fake)):
        check_counts(str(path), array.shape, settings.least_images, spelt=lambda name: f"--{name.replace('_', '-')}")
    reference = Reference.of(real, max(settings.neighbours, settings.coverage_neighbours), str(options.real))
    values = measure(
        reference, fake, settings, is_fid=False, prd_real=reference, name=str(options.fake), with_errors=True
    )
    if options.json:
        counts = {"n_real": len(real), "n_fake": len(fake), "kernel_subset_size": settings.kernel_subset_size}
        print(json.dumps({**values, **counts}, sort_keys=True))
        return
    for name, value in values.items():
        print(f"{name:28} {value:.6g}")
    print(f"{len(real)} real, {len(fake)} fake images; kernel subsets of {settings.kernel_subset_size}")


def _score_moments(real: "Features | Moments", fake: "Features | Moments", options: argparse.Namespace) -> None:
    """Print the one metric there is where one side or both are moments."""
    from rae_bench.scoring.feature_files import Moments

    one, other = (side if isinstance(side, Moments) else Moments.of(side) for side in (real, fake))
    value = one.frechet_distance(other)
    print(json.dumps({"frechet_distance": value}) if options.json else f"{'frechet_distance':28} {value:.6g}")
    named = " and ".join(
        str(path) for side, path in ((real, options.real), (fake, options.fake)) if isinstance(side, Moments)
    )
    note = f"{named}: moments (mu, sigma) allow the Fréchet distance alone; all other metrics need the features"
    print(note, file=sys.stderr if options.json else sys.stdout)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="rae_bench", description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(
        run: Callable[[argparse.Namespace], None], *paths: str, seeded: bool = False
    ) -> argparse.ArgumentParser:
        added = commands.add_parser(run.__name__.rstrip("_"), help=(run.__doc__ or "").strip(), allow_abbrev=False)
        added.set_defaults(run=run)
        for path in paths:
            added.add_argument(f"--{path}", type=Path, required=True)
        if paths:
            added.add_argument("--spec", required=True, help="the stage's settings as JSON")
        if seeded:
            added.add_argument("--seed", type=int, required=True)
        return added

    command(stages.prepare, "manifest")
    command(stages.reference, "manifest", "reference")
    command(stages.floor, "manifest", "reference", "other", "training", "floor")
    command(stages.train, "manifest", "model", "codes", "history", seeded=True)
    command(stages.fit, "codes", "density", seeded=True)
    evaluating = command(
        stages.evaluate,
        *("manifest", "model", "densities", "reference", "prd-reference", "training", "floor", "metrics", "sheets"),
        seeded=True,
    )
    evaluating.add_argument("--study", required=True)
    panelling = command(stages.protocols, "model", "densities", "references", "panel", seeded=True)
    for added in (evaluating, panelling):
        for name in ("dataset", "model-name"):
            added.add_argument(f"--{name}", required=True)
    collecting = command(stages.collect, "metrics")
    collecting.add_argument("--runs", type=Path, nargs="+", required=True)
    collecting.add_argument("--panels", type=Path, nargs="*", default=[])
    command(stages.tables, "metrics", "out")
    command(stages.figures, "metrics", "out")
    command(stages.report, "metrics", "out")

    command(status).add_argument("study")
    command(settings)
    comparing = command(published)
    comparing.add_argument("study")
    comparing.add_argument("--out", type=Path, required=True, help="folder for tables/ and figures/")
    verifying = command(verify)
    verifying.add_argument("study")
    verifying.add_argument("--cell", help="recompute DATASET/MODEL/DENSITY/SEED, as in digits/rae_l2/gmm10/seed0")
    exporting = command(export)
    exporting.add_argument("study")
    exporting.add_argument("--out", type=Path, required=True, metavar="FILE", help="the archive, a zip")
    exporting.add_argument("--weights", action="store_true", help="pack models and densities too")
    exporting.add_argument("--codes", action="store_true", help="pack codes too")
    command(import_).add_argument("file", type=Path)
    command(rebuild).add_argument("study")
    costing = command(cost)
    costing.add_argument("study")
    where = costing.add_mutually_exclusive_group()
    where.add_argument(
        "--calibrate", action="store_true", help="time a short run of each data set on this machine, minutes"
    )
    where.add_argument("--device", help="a device timed before, by its name in results/calibrations/")
    where.add_argument("--from-peak", type=float, metavar="TFLOPS", help="a stated peak; an estimate, not measured")
    costing.add_argument("--utilisation", type=float, help="the share of --from-peak that is reached, 0 to 1")
    costing.add_argument("--at-once", type=int, help="jobs at once; else as many as there are cores, or one GPU")
    costing.add_argument("--json", action="store_true", help="print JSON")
    spending = command(spent)
    spending.add_argument("study")
    spending.add_argument("--cores", type=int)
    spending.add_argument("--since", type=float, help="when the command that ran the jobs began, in Unix time")
    converting = command(convert)
    converting.add_argument("--from", dest="source", default="official", help="official (default), paper or pythae")
    converting.add_argument("--dataset", default="", help="of the official code: mnist, cifar10 or celeba")
    converting.add_argument("--model", default="", help="as in models.yaml")
    converting.add_argument("--latent", type=float, help="of paper and pythae: the latent term's weight")
    converting.add_argument("--regulariser", type=float, help="the decoder regulariser's weight, likewise")
    converting.add_argument("--as", dest="penalty", default="", help="gradient_penalty: of rae_gp, that weight instead")
    converting.add_argument("--rule", type=float, metavar="M", help="do so by rule, M the mean square pixel")
    converting.add_argument("--table", action="store_true", help="print all official configurations as markdown")
    converting.add_argument("--json", action="store_true", help="print JSON")
    scoring = command(score)
    scoring.add_argument("real", type=Path, help="features of real images, a row an image: .npy (n, d), or .npz")
    scoring.add_argument("fake", type=Path, help="features of generated images, same extractor")
    for side in ("real", "fake"):
        scoring.add_argument(f"--{side}-array", metavar="NAME", help="of an .npz with several arrays: which")
    scoring.add_argument("--json", action="store_true", help="print JSON")
    scoring.add_argument("--kernel-subsets", type=int, default=100)
    scoring.add_argument("--kernel-subset-size", type=int, default=1000, help="at most the images of a set")
    scoring.add_argument("--neighbours", type=int, default=3, help="fewer than the images of a set")
    scoring.add_argument("--coverage-neighbours", type=int, default=5, help="likewise")
    scoring.add_argument("--prd-clusters", type=int, default=20, help="at most twice the images of a set")
    scoring.add_argument("--prd-runs", type=int, default=10)
    scoring.add_argument("--infinity-sizes", type=int, default=10)
    scoring.add_argument("--half-samples", type=int, default=10)
    scoring.add_argument("--metric-seed", type=int, default=0)
    return parser
