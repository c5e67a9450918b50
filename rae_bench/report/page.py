"""The answer, tables, figures, settings, provenance and costs in one self-contained HTML file, readable on a phone.

`page.html.jinja` is its skeleton, `page.css` its looks, `page.js` sorts and filters Table 1; without it all is there.
"""

import base64
import importlib.metadata
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader

from rae_bench import __version__
from rae_bench.base import storage
from rae_bench.base.plain import fingerprint, to_plain
from rae_bench.data.store import load_manifest
from rae_bench.models.terms.specs import Objective
from rae_bench.report import answer
from rae_bench.report.behind import table1_rows
from rae_bench.report.tables.cells import COLUMNS
from rae_bench.study.files import StudyFiles
from rae_bench.study.specs import SummarySpec

FOLDED = {
    "Every pair of rows, and where the spread comes from": ("comparisons_", "variance_"),
    "Every density, and likelihoods": ("densities_", "likelihood_"),
    "Every other metric": ("table1_", "reconstruction_"),
    "Other ways of scoring (protocols)": ("protocols_",),
    "Search for loss weights": ("search_",),
}
"""What is folded away, and how the names of its tables begin."""
SCREEN = ("answer_", "strip_")
"""How the figures of the first screen begin."""
TABLE = ("name", "title", "header", "rows", "bold", "notes")
Table = dict[str, Any]
HERE = Path(__file__).parent
PACKAGES = ("torch", "torchvision", "torch-fidelity", "numpy", "scikit-learn", "pandas", "snakemake")


def write(spec: SummarySpec, frame: pd.DataFrame, costs: pd.DataFrame, files: StudyFiles, path: Path) -> None:
    """Write the report of a study as the page `path`; `costs` has a row for each of its finished jobs."""
    environment = Environment(loader=FileSystemLoader(HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    figures = [
        figure if "missing" in figure else {**figure, "png": _inline(files.figures.with_name(f"{figure['name']}.png"))}
        for figure in _listed(files.figures, "name", "caption", "alt")
    ]
    tables = {table["name"]: table for table in _listed(files.tables, *TABLE)}
    main = {name: table for name in spec.datasets if (table := tables.get(f"table1_{name}"))}
    folded, others = _folded([table for table in tables.values() if table not in main.values()])
    html = environment.get_template("page.html.jinja").render(
        spec=spec,
        style=(HERE / "page.css").read_text(encoding="utf-8"),
        script=(HERE / "page.js").read_text(encoding="utf-8"),
        question=answer.question(spec),
        answer=answer.sentences(spec, frame),
        surely=answer.SURELY.get(answer.question(spec), ""),
        n_values=len(frame),
        columns=list(COLUMNS.values()),
        main=main,
        rows=table1_rows(spec, frame, files, {name: [table["header"], *table["rows"]] for name, table in main.items()}),
        families=list(dict.fromkeys(row.family for row in spec.ordered_rows.values())),
        tables=others,
        folded=folded,
        screen=[figure for figure in figures if figure["name"].startswith(SCREEN)],
        figures=[figure for figure in figures if not figure["name"].startswith(SCREEN)],
        datasets=[_dataset(name, spec, files) for name in spec.datasets],
        models=_models(spec),
        densities=_densities(spec),
        stages=_stage_costs(costs),
        costs=costs[costs["stage"].isin(["train", "fit", "decode", "evaluate"])].to_dict("records"),
        packages={"rae_bench": __version__, **{name: importlib.metadata.version(name) for name in PACKAGES}},
        machine=f"Python {platform.python_version()}, {platform.system()} {platform.machine()}",
    )
    storage.write_text(path, html)


def _folded(tables: Sequence[Table]) -> tuple[dict[str, list[Table]], list[Table]]:
    """The tables that are folded away, by their heading; and all others, in order."""
    folded = {
        title: [table for table in tables if table["name"].startswith(starts)] for title, starts in FOLDED.items()
    }
    hidden = [table["name"] for found in folded.values() for table in found]
    return {title: found for title, found in folded.items() if found}, [
        table for table in tables if table["name"] not in hidden
    ]


def _inline(path: Path) -> str:
    with storage.reading(path, "png"):
        return base64.b64encode(path.read_bytes()).decode()


def _listed(index: Path, *needed: str) -> list[dict[str, Any]]:
    """The entries of an index, each with the keys of `needed`."""
    entries: list[dict[str, Any]] = storage.read_json(index)
    with storage.reading(index, "index"):
        return [{**entry, **{key: entry[key] for key in needed}} for entry in entries]


def _dataset(name: str, spec: SummarySpec, files: StudyFiles) -> dict[str, Any]:
    manifest = load_manifest(files.data(name))
    return {
        "name": name,
        "label": spec.datasets[name].label,
        "synthetic": manifest.synthetic,
        "counts": ", ".join(f"{count:,} {split}" for split, count in manifest.counts.items()),
        "shape": " x ".join(map(str, manifest.shape[1:])),
        "sha256": manifest.sha256["images"],
        "note": manifest.note,
        "sources": [f"{source['distribution']}: {source['path']} ({source['licence']})" for source in manifest.sources],
        "extractor": spec.extractors[name],
    }


def _terms(objective: Objective | None) -> str:
    if objective is None:
        return "its own loss"
    plain = to_plain(objective)
    texts = []
    for part in plain:
        numbers = ", ".join(f"{key} {value}" for key, value in plain[part].items() if key != "kind")
        texts.append(f"{part} {plain[part]['kind']}" + (f" ({numbers})" if numbers else ""))
    return "; ".join(texts)


def _models(spec: SummarySpec) -> list[dict[str, str]]:
    return [
        {
            "dataset": dataset,
            "model": model,
            "terms": _terms(training.objective),
            "fingerprint": fingerprint(training),
            "evaluation": spec.evaluations[dataset][model],
            "settings": " ".join(str(to_plain(x)) for x in (training.network, training.optimisation, training.compute)),
        }
        for dataset, trainings in spec.trainings.items()
        for model, training in trainings.items()
    ]


def _densities(spec: SummarySpec) -> list[dict[str, str]]:
    return [
        {"dataset": dataset, "density": name, "settings": str(to_plain(density))}
        for dataset, fits in spec.fits.items()
        for name, density in fits.items()
    ] + [
        {"dataset": dataset, "density": f"{name} of {model}", "settings": str(to_plain(density))}
        for dataset, models in spec.changed_fits.items()
        for model, fits in models.items()
        for name, density in fits.items()
    ]


def _stage_costs(costs: pd.DataFrame) -> list[dict[str, Any]]:
    grouped = costs.groupby("stage", sort=False).agg(
        jobs=("job", "size"),
        seconds=("seconds", "sum"),
        cpu_seconds=("cpu_seconds", "sum"),
        import_seconds=("import_seconds", "sum"),
        peak_mib=("peak_mib", "max"),
    )
    return [{str(key): value for key, value in record.items()} for record in grouped.reset_index().to_dict("records")]
