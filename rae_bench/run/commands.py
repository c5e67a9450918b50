"""The commands for people: what a study will cost, what it does and has cost, whether it holds; scores of your own.

Each is a function of what is typed; the command line is made from its signature (`rae_bench.cli`). What loads numpy or
more is imported inside the command that needs it.
"""

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast, get_args

from rae_bench.base.plain import ConfigError, parse, to_plain
from rae_bench.base.specs import Compute, CountOrZero
from rae_bench.run import stages
from rae_bench.run.process import begin, configure
from rae_bench.scoring.specs import DEFAULT_EXTRACTOR, DEFAULT_ID, Extractor, MetricSettings, is_fid
from rae_bench.study import config, loads, vocabulary
from rae_bench.study.config import load_study, study_names
from rae_bench.study.files import StudyFiles
from rae_bench.study.protocols import described
from rae_bench.study.stated import read
from rae_bench.study.study import DatasetEntry, Study

if TYPE_CHECKING:
    from rae_bench.scoring.sides import Side

RESULTS = Path("results")
PROFILE = Path("profiles/slurm")
Json = Annotated[bool, "print JSON"]
IMAGES = (
    "a folder or a zip file of images, an .npy or .npz of uint8 images (n, C, H, W) or (n, H, W, C), or a split of a"
    " prepared data set, as digits:test"
)
FEATURES = "an .npy or .npz of features (n, d), or moments as pytorch-fid saves them (.npz with mu, sigma)"
NETWORK = (
    f"the feature network, one of {', '.join(get_args(Extractor))}; default: the data set's own for a split of one,"
    f" else {DEFAULT_EXTRACTOR}, whose id is {DEFAULT_ID}; inception_v3_compat, for FID and KID, and dinov2_vit_l_14"
    " need weights that do not come with the packages (docs/methods.md)"
)


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
    device: Annotated[
        str | None, "a device timed before, by its name in results/calibrations/, or a GPU, as A100"
    ] = None,
    from_peak: Annotated[float | None, "a stated peak in TFLOPS: an estimate, not measured"] = None,
    utilisation: Annotated[float | None, "the share of --from-peak that is reached, 0 to 1"] = None,
    at_once: Annotated[
        int | None, "jobs at once, with GPUs those that hold one; else as many as there are cores, or one GPU"
    ] = None,
    precisions: Annotated[bool, "only whether bfloat16 pays on this machine: ten seconds of updates in all"] = False,
    slurm: Annotated[bool, "what the jobs left ask of Slurm, too"] = False,
    profile: Annotated[Path, "the profile that --slurm goes by"] = PROFILE,
    json: Json = False,
) -> None:
    """What a study will cost, before it runs: jobs, FLOPs, memory, disk and, on a device, hours."""
    from rae_bench.run import checking, requests
    from rae_bench.run import cost as costs

    if at_once is not None and at_once < 1:
        raise ConfigError(f"--at-once: {at_once} must be at least 1")
    if calibrate + (device is not None) + (from_peak is not None) > 1:
        raise ConfigError("--calibrate, --device and --from-peak are three ways to know a device; give one of them")
    found, results = load_study(study), _results()
    if precisions:
        given = {"--calibrate": calibrate, "--device": device, "--from-peak": from_peak, "--at-once": at_once}
        if others := [name for name, value in {**given, "--slurm": slurm, "--json": json}.items() if value]:
            raise ConfigError(f"--precisions: prints the two speeds and nothing else; leave out {', '.join(others)}")
        _try_precisions(costs.placed_here(found))
        return
    if lacks := checking.lacking(found, results):
        print(f"rae_bench: {lacks}", file=sys.stderr)
    if from_peak is None and utilisation is None:
        found, named, seconds = costs.on_device(found, results, calibrate, device)
    else:
        named, seconds = costs.from_peak(from_peak, utilisation)
    threads = found.file.compute.threads
    cores = max((os.cpu_count() or 1) // threads, 1)
    at_once = at_once or (1 if found.gpus else cores)
    told = costs.summary(found, costs.job_frame(found, results, seconds), named, at_once, cores)
    asked = requests.requests(found, results, requests.profile(profile)) if slurm else []
    if slurm:
        told["requests"] = [to_plain(one) for one in asked]
    print(_json(told, indent=1) if json else costs.describe(told))
    if slurm and not json:
        print(requests.describe(asked))


def _try_precisions(study: Study) -> None:
    """Print a line for each data set; on stderr where the study asks for bfloat16 and it is slower."""
    begin(study.file.compute, loads.LEARNING)
    from rae_bench.run.trials import trials

    for one in trials(study):
        if study.file.compute.precision == "bfloat16" and one.is_slower:
            print(f"rae_bench: {one}; precision: float32 would save time, and is another study", file=sys.stderr)
        else:
            print(one)


def check(
    study: str,
    *,
    fetch: Annotated[bool, "get what is missing and may be fetched: published data sets, weights"] = False,
    profile: Annotated[Path, "the profile whose requests are held against Slurm's partitions"] = PROFILE,
) -> None:
    """What a study needs before it runs, on the login node: images, weights, disk, packages, a GPU, limits of jobs."""
    from rae_bench.run import checking

    missing = 0
    for finding in checking.check(load_study(study), _results(), profile, fetch):
        print(finding, flush=True)
        missing += not finding.is_well
    if missing:
        more = "" if fetch else "; --fetch gets images and weights from the network"
        raise checking.CheckError(f"{study}: {missing} missing{more}")


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
    told = {"name": found.name, **found.settings, **found.as_written}
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
    real: Annotated[str, f"the real set: {IMAGES}; or, on both sides, {FEATURES}"],
    fake: Annotated[str, "the generated set, likewise"],
    *,
    features: Annotated[str | None, NETWORK] = None,
    metrics: Annotated[str, "settings, an entry of workflow/config/metrics.yaml (default: standard)"] = "standard",
    real_array: Annotated[str | None, "which array, where the .npz holds several"] = None,
    fake_array: Annotated[str | None, "which array, where the .npz holds several"] = None,
    json: Json = False,
    csv: Annotated[Path | None, "write the values to this file, too"] = None,
    kernel_subsets: Annotated[int | None, "another than in the settings (standard: 10)"] = None,
    kernel_subset_size: Annotated[int | None, "likewise (standard: 500); at most the images of a set"] = None,
    neighbours: Annotated[int | None, "likewise (standard: 3); fewer than the images of a set"] = None,
    coverage_neighbours: Annotated[int | None, "likewise (standard: 5); fewer than the images of a set"] = None,
    prd_clusters: Annotated[int | None, "likewise (standard: 20); at most twice the images of a set"] = None,
    prd_runs: Annotated[int | None, "likewise (standard: 10)"] = None,
    infinity_sizes: Annotated[int | None, "likewise (standard: 10)"] = None,
    half_samples: Annotated[int | None, "likewise (standard: 20)"] = None,
    metric_seed: Annotated[int | None, "of the metrics' random choices and the floor's halves (standard: 0)"] = None,
) -> None:
    """Every metric between two sets of images, or of features, and its floor: half of the real set against the rest."""
    from rae_bench.base import memory, storage
    from rae_bench.report.tables.wording import distance_name
    from rae_bench.scoring import two_sets
    from rae_bench.scoring.catalogue import load_extractor

    if csv is not None and csv.suffix != ".csv":
        raise ConfigError(f"--csv: {csv}: expected a name that ends in .csv")
    typed = {
        "kernel_subsets": kernel_subsets,
        "kernel_subset_size": kernel_subset_size,
        "neighbours": neighbours,
        "coverage_neighbours": coverage_neighbours,
        "prd_clusters": prd_clusters,
        "prd_runs": prd_runs,
        "infinity_sizes": infinity_sizes,
        "half_samples": half_samples,
        "seed": metric_seed,
    }
    changed = {name: value for name, value in typed.items() if value is not None}
    words = vocabulary.read(config.CONFIG)
    vocabulary.known("--metrics", "settings of metrics", words.metrics, metrics)
    chosen: MetricSettings = parse(MetricSettings, {**to_plain(words.metrics[metrics]), **changed}, "score")
    sides = (_side(real, real_array, "--real-array"), _side(fake, fake_array, "--fake-array"))
    network, why = _network(features, sides, words.datasets)
    extractor = None if network is None else load_extractor(network)
    with memory.explained("the features of all images, and their metrics", "fewer images"):
        found = two_sets.score(*sides, extractor, chosen, is_fid=network is not None and is_fid(network))
    notes = found.notes(*sides)
    notes += [f"settings: {', '.join([metrics, *(f'{name} {value}' for name, value in to_plain(chosen).items())])}"]
    if extractor is not None:
        called = distance_name("FD", extractor.label)
        other = "" if called == "FID" else ", not comparable with FID"
        notes += [f"features: {extractor.id}, {why}; their Fréchet distance is called {called}{other}"]
    about: dict[str, int | str | None] = {"n_real": found.n_real, "n_fake": found.n_fake, "n_floor": found.n_floor}
    about["extractor"] = None if extractor is None else extractor.id
    if json:
        told = {"values": found.values, "floor": found.floor, "settings": to_plain(chosen), "notes": notes}
        print(_json({**told, **about}))
    else:
        print("\n".join([found.table(), *notes]))
    if csv is not None:
        storage.write_frame(csv, found.frame().assign(**about))


def features(
    images: Annotated[str, IMAGES],
    *,
    out: Annotated[Path, "the .npy file to write, float32 (n, d): a row an image, files in the order of their names"],
    features: Annotated[str | None, NETWORK] = None,
    array: Annotated[str | None, "which array, where the .npz holds several"] = None,
) -> None:
    """The features of images, for metrics of your own."""
    from rae_bench.base import memory, storage
    from rae_bench.scoring.catalogue import load_extractor
    from rae_bench.scoring.two_sets import features_of

    if out.suffix != ".npy":
        raise ConfigError(f"--out: {out}: expected a name that ends in .npy")
    if out.exists():
        raise ConfigError(f"--out: {out}: is there already; give another name")
    side = _side(images, array, "--array")
    if side.kind != "images":
        raise ConfigError(f"{images}: holds {side.kind} already; expected images")
    network, why = _network(features, [side], vocabulary.read(config.CONFIG).datasets)
    assert network is not None
    extractor = load_extractor(network)
    with memory.explained("the features of all images", "fewer images"):
        found = features_of(side, extractor)
        storage.write_npy(out, found)
    print(f"{out}: float32 {found.shape}, of {extractor.id}, {why}")


def expost(
    *,
    data: Annotated[
        str, "a prepared data set, as digits, or a folder of images (with train, validation, test, or split)"
    ],
    densities: Annotated[str, "entries of workflow/config/densities.yaml, as gaussian,gmm10,flow_matching"],
    out: Annotated[Path, "the folder to write, which is empty or not there"],
    model: Annotated[
        str | None, "FILE.py:NAME, a function of --file that gives a module with encode and decode"
    ] = None,
    file: Annotated[Path | None, "the file or folder that --model is given"] = None,
    encoder: Annotated[Path | None, "an archive of torch.export.save, of images to codes"] = None,
    decoder: Annotated[Path | None, "likewise, of codes to images"] = None,
    pythae: Annotated[Path | None, "a folder as Pythae saves a model with its default networks"] = None,
    codes: Annotated[
        str | None, "TRAIN.npy,VALIDATION.npy, codes (n, d) for --decoder where there is no encoder"
    ] = None,
    n_generated: Annotated[int | None, "samples of each density; as many as test images, or more"] = None,
    pngs: Annotated[int, "how many of them are written as PNG files (default: 100)"] = 100,
    features: Annotated[str | None, NETWORK] = None,
    metrics: Annotated[str, "settings, an entry of workflow/config/metrics.yaml (default: standard)"] = "standard",
    threads: Annotated[int, "more are faster, and change last digits (default: 1, as studies on the CPU)"] = 1,
) -> None:
    """Densities fitted to the codes of a model trained elsewhere: samples, scores against test images, a table."""
    stated = {"device": "cpu", "threads": threads, "tf32": False, "precision": "float32"}
    compute: Compute = parse(Compute, stated, "--threads")
    begin(compute, loads.STAGES["evaluate"])
    from rae_bench import __version__
    from rae_bench.base import memory
    from rae_bench.run import expost as work
    from rae_bench.run import expost_output
    from rae_bench.scoring import ex_post
    from rae_bench.scoring.catalogue import load_extractor

    parse(CountOrZero, pngs, "--pngs")
    named = work.Named(model, file, encoder, decoder, pythae, codes)
    work.check_empty(out)
    words = vocabulary.read(config.CONFIG)
    vocabulary.known("--metrics", "settings of metrics", words.metrics, metrics)
    images = work.read_data(data, RESULTS / "datasets")
    chosen = work.densities_of(words, densities, images.dataset)
    network, why = _network(features, [images.test], words.datasets)
    assert network is not None
    extractor = load_extractor(network)
    spec = work.evaluation(words, images, chosen, network, metrics, n_generated, compute)
    with (
        memory.explained("all images, and their features", "fewer images"),
        work.seldom("rae_bench.models.optimisation"),
    ):
        trained = work.adopt(named, images, chosen)
        about = {
            "version": __version__,
            "data": {"name": data, "sha256": images.sha256, "about": images.about},
            "model": {"name": named.label, "sha256": named.hashes()},
            "densities": to_plain(chosen),
            "extractor": {"id": extractor.id, "label": extractor.label},
            "metrics": to_plain(spec.metrics),
            "n_generated": spec.n_generated,
            "seed": ex_post.SEED,
        }
        notes = [images.about, f"{spec.n_generated:,} samples of each density", f"features: {extractor.id}, {why}"]
        found = ex_post.score(trained, chosen, spec, extractor)
        title = f"{named.label}, its codes under {len(chosen)} densities"
        print(expost_output.write(out, found, images, pngs, title, about, notes))
    print(f"written to {out}: table.md, metrics.csv, index.json, samples/, sheets/")


def _side(given: str, array: str | None, option: str) -> "Side":
    from rae_bench.scoring import sides

    return sides.read(given, array, option, RESULTS / "datasets")


def _network(
    named: str | None, sides: "Sequence[Side]", datasets: Mapping[str, DatasetEntry]
) -> tuple[Extractor | None, str]:
    """The feature network of these sides, None where there are no images, and why it is this one.

    Raises:
        ConfigError: there is no such network, no use for one, or no telling which one moments are of.
    """
    kinds, names = {side.kind for side in sides}, " and ".join(side.name for side in sides)
    if named is not None:
        vocabulary.known("--features", "feature network", get_args(Extractor), named)
    if "images" not in kinds:
        if named is not None:
            raise ConfigError(f"--features: {named!r} is for images, and {names} hold none; leave it out")
        return None, ""
    if named is not None:
        return cast(Extractor, named), "named by --features"
    if "moments" in kinds:
        raise ConfigError(f"{names}: moments do not say of which network they are; name it with --features")
    for side in sides:
        if side.dataset in datasets:
            return datasets[side.dataset].extractor, f"the network of data set {side.dataset!r}"
    return DEFAULT_EXTRACTOR, "the default"


ALL = (
    status,
    cost,
    check,
    spent,
    settings,
    switches,
    published,
    convert,
    verify,
    export,
    import_,
    rebuild,
    score,
    features,
    expost,
)
