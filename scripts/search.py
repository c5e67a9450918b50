"""Search for the loss weights of data sets, wider where the best point lies at an edge.

    python scripts/search.py search_digits [--cores 2] [--table] [--beside STUDY]

First the grid of the study, a point of every model at a time, then two points more for every model (`next_point`): one
beyond the edge by a factor of 3 where the best point has the least or the largest weight that was tried, else one
between the best and its better neighbour. Finished points go to docs/search/STUDY.csv with the fingerprints of their
settings; the same command, in a fresh clone, too, takes what stands there and goes on. At the end, or with --table
at any time, STUDY.md beside it lists the points, what was chosen, whether that still lies at an edge, and how the
models compare where reconstructions are good enough; STUDY.png shows reconstruction against generation (of several
models). With --beside both show the points of another search of this data set, too.

A study of several data sets is as many searches, one after the other, whose files are called STUDY_DATASET.
"""

import argparse
import itertools
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import yaml
from matplotlib.ticker import MaxNLocator, NullLocator, StrMethodFormatter

from rae_bench.base import storage
from rae_bench.base.plain import to_plain
from rae_bench.report.plots.catalogue import STYLE
from rae_bench.report.rendering import Table, markdown
from rae_bench.study.config import CONFIG, load_study, resolve_study
from rae_bench.study.study import Study

FOUND = Path("docs/search")
TERMS = ("latent", "regulariser")
MORE = 2
"""Points that every model gets beyond its grid."""
FACTOR = 3.0
FAR = 6.0
GOOD = 1.5
"""A reconstruction is good enough up to so many times the median of the models' least distances."""
ACROSS = 3
"""Panels beside each other, of at most nine rows."""
Weights = dict[str, float]
KNOWN: dict[tuple[str, str, tuple[tuple[str, float], ...]], str] = {}
"""Fingerprints that `settings` has found: each reads the vocabulary."""


def settings(study: Study, row: str, point: tuple[tuple[str, float], ...]) -> str:
    """The fingerprint of all that makes a point's numbers; `point` holds its weights by term."""
    if (study.name, row, point) not in KNOWN:
        KNOWN[study.name, row, point] = _settings(study, row, dict(point))
    return KNOWN[study.name, row, point]


def parts(study: Study) -> list[Study]:
    """A search of one data set as it is; of several, one for each, with its name behind the study's."""
    if len(study.datasets) == 1:
        return [study]
    return [
        resolve_study(f"{study.name}_{dataset}", replace(study.file, datasets={dataset: budget}))
        for dataset, budget in study.file.datasets.items()
    ]


def _settings(study: Study, row: str, point: Weights) -> str:
    (dataset,) = study.datasets
    one = resolve_study(study.name, replace(study.file, rows=(row,), search={row: (point,)} if point else {}))
    return one.summary().evaluations[dataset][next(iter(one.rows.values())).model]


def points_study(study: Study) -> str:
    """The name of the study that a round of points is: its data set's, since names are short and searches long."""
    (dataset,) = study.datasets
    return f"{dataset}_points"


def run(study: Study, points: dict[str, Weights], cores: str) -> pd.DataFrame:
    """Train and score a point of each of these rows; what the search table says of them."""
    (dataset,) = study.datasets
    name = points_study(study)
    stated = to_plain(study.file)
    stated |= {"rows": list(points), "search": {row: [point] for row, point in points.items() if point}}
    (CONFIG / "studies" / f"{name}.yaml").write_text(yaml.safe_dump(stated, sort_keys=False))
    subprocess.run([sys.executable, "-m", "snakemake", "--cores", cores, "--config", f"study={name}"], check=True)
    table = pd.read_csv(Path("results") / name / "tables" / f"search_{dataset}.csv")
    return table.drop(columns="chosen")


def next_point(tried: pd.DataFrame) -> Weights:
    """The weights to try next of a model whose tried points are these: see the module's opening.

    Of two terms the first that lies at an edge counts, else the first.
    """
    terms = [term for term in TERMS if tried[term].notna().all()]
    best = tried.loc[tried["criterion"].idxmin()]
    here = {term: float(best[term]) for term in terms}
    proposed = []
    for term in terms:
        values = sorted(set(tried[term]))
        if edge(tried, term):
            proposed.append({**here, term: here[term] * (FACTOR if here[term] == values[-1] else 1 / FACTOR)})
    for term in terms:
        beside = [value for value in sorted(set(tried[term])) if value != here[term]]
        below, above = [v for v in beside if v < here[term]][-1:], [v for v in beside if v > here[term]][:1]
        neighbours = sorted(below + above, key=lambda v: tried.loc[tried[term] == v, "criterion"].min())
        proposed += [{**here, term: float(np.sqrt(here[term] * value))} for value in neighbours]
    rounded = [{term: float(f"{value:.2g}") for term, value in point.items()} for point in proposed]
    known = [{term: float(one[term]) for term in terms} for _, one in tried.iterrows()]
    return next(point for point in rounded if point not in known)


def edge(tried: pd.DataFrame, term: str) -> bool:
    """Whether the best point's weight of a term is the least or the largest that was tried."""
    values, best = tried[term], tried.loc[tried["criterion"].idxmin(), term]
    return bool(best in (values.min(), values.max()))


def last_step(tried: pd.DataFrame, term: str) -> float:
    """The best point's criterion over that at the next weight of a term, less 1; the other equal, if it can be."""
    best = tried.loc[tried["criterion"].idxmin()]
    beside = tried[tried[term] != best[term]]
    (other,) = (one for one in TERMS if one != term)
    alike = beside[beside[other].fillna(0) == np.nan_to_num(best[other])]
    beside = beside if alike.empty else alike
    distance = np.log(beside[term] / best[term]).abs()
    return float(best["criterion"] / beside.loc[distance == distance.min(), "criterion"].min()) - 1


def read(study: Study) -> pd.DataFrame:
    """The points found so far; none if there is no file, or it does not tell their settings."""
    path = FOUND / f"{study.name}.csv"
    found = pd.read_csv(path) if path.exists() else pd.DataFrame()
    return found if "settings" in found else pd.DataFrame(columns=["row", *TERMS, "criterion", "settings"])


def valid(study: Study, found: pd.DataFrame) -> pd.DataFrame:
    """Those of the points that have the settings of the study as it is now."""
    own = [
        settings(study, one["row"], tuple((term, one[term]) for term in TERMS if not np.isnan(one[term])))
        if one["row"] in study.file.rows
        else ""
        for one in found.to_dict("records")
    ]
    return found[found["settings"] == own]


def missing(study: Study, found: pd.DataFrame) -> dict[str, Weights]:
    """The next point to run of each row that lacks one."""
    todo = {}
    for row in study.file.rows:
        points = [dict(point) for point in study.file.search.get(row, ({},))]
        mine = found[found["row"] == row]
        tried = mine[:0]
        for number in range(len(points) + (MORE if points[0] else 0)):
            point = points[number] if number < len(points) else next_point(tried)
            one = mine[mine["settings"] == settings(study, row, tuple(point.items()))]
            if one.empty:
                todo[row] = point
                break
            tried = pd.concat([tried, one])
    return todo


def of_good_reconstruction(points: pd.DataFrame) -> tuple[float, pd.DataFrame]:
    """The level of Rec. that is `GOOD` enough; and of each row that reaches it the point with the least GMM there."""
    level = GOOD * float(points.groupby("row")["fd_reconstruction"].min().median())
    near = points[points["fd_reconstruction"] <= level]
    return level, near.loc[near.groupby("row", sort=False)["fd_gmm"].idxmin()].sort_values("fd_gmm")


def frontier(points: pd.DataFrame) -> pd.DataFrame:
    """The points that no other has both distances below, by their distance of reconstructions."""
    ranked = points.sort_values(["fd_reconstruction", "fd_gmm"])
    lower = ranked["fd_gmm"].cummin().shift(fill_value=np.inf)
    return ranked[ranked["fd_gmm"] < lower]


def marked(points: pd.DataFrame) -> pd.DataFrame:
    """The points with the one of each row that has the least criterion `chosen`."""
    return points.assign(chosen=points.groupby("row")["criterion"].transform("min") == points["criterion"])


def write(study: Study, points: pd.DataFrame, beside: list[pd.DataFrame]) -> None:
    """The tables and the figure of all `points`; those of other searches, `beside`, are compared with them."""
    (dataset,) = study.datasets
    points = marked(points)
    storage.write_frame(FOUND / f"{study.name}.csv", points)
    label = study.datasets[dataset].data.label
    rows, bold = [], set()
    for row, tried in points.groupby("row", sort=False):
        edges = [term for term in TERMS if tried[term].notna().all() and edge(tried, term)] if len(tried) > 1 else []
        for one in tried.to_dict("records"):
            if one["chosen"]:
                bold.add((len(rows), 6))
            remark = ", ".join(f"edge ({term}); {100 * last_step(tried, term):.1f} % from the next" for term in edges)
            shown = [*(one[term] for term in TERMS), *(one[f"fd_{name}"] for name in ("reconstruction", "n", "gmm"))]
            rows.append(
                [
                    str(row),
                    *("–" if np.isnan(value) else f"{value:.4g}" for value in shown),
                    f"{one['criterion']:.4g}",
                    f"{100 * one['noise']:.1f} %",
                    remark if one["chosen"] else "",
                ]
            )
    header = ["Model", "latent weight", "regulariser weight", "FD Rec.", "FD N", "FD GMM", "criterion", "noise", ""]
    split = study.file.reference_split
    notes = [
        f"Criterion: geometric mean of FD in columns Rec., N and GMM against the {split} split, those of a random"
        f" density the mean of {len(study.file.fit_seeds)} fits; noise: its standard error over them. Bold: the chosen"
        " point. Edge: its weight is the least or the largest that was tried; how far its criterion lies from that of"
        " the weight beside it.",
    ]
    one = Table("points", f"{label}: search for the loss weights", header, rows, bold, notes, points)
    parts = [markdown(one)]
    every = pd.concat([points, *map(marked, beside)], ignore_index=True).dropna(subset=["fd_gmm"])
    if every["row"].nunique() > 1:
        parts += [markdown(good_table(every, label)), f"![Reconstruction against generation]({study.name}.png)\n"]
        draw(every, label, FOUND / f"{study.name}.png")
    storage.write_text(FOUND / f"{study.name}.md", "\n".join(parts))


def good_table(points: pd.DataFrame, label: str) -> Table:
    """The least distance under the mixture of each model, among points whose reconstructions are good enough."""
    level, near = of_good_reconstruction(points)
    beyond = [str(row) for row in dict.fromkeys(points["row"]) if row not in set(near["row"])]
    shown = (*TERMS, "fd_reconstruction", "fd_gmm")
    return Table(
        "good",
        f"{label}: the least distance under the mixture among points of good reconstructions",
        ["Model", "latent weight", "regulariser weight", "FD Rec.", "FD GMM"],
        [
            [str(point["row"]), *("–" if np.isnan(point[key]) else f"{point[key]:.4g}" for key in shown)]
            for point in near.to_dict("records")
        ],
        set(),
        [
            f"FD Rec. at most {level:.4g}, {GOOD:g} times the median of the models' least, which leaves out"
            f" {(points['fd_reconstruction'] > level).sum()} of {len(points)} points."
            + (f" Not reached by {', '.join(beyond)}." if beyond else "")
            + " One training each: no verdicts.",
        ],
        near,
    )


def draw(points: pd.DataFrame, label: str, path: Path) -> None:
    """Distance of reconstructions (horizontal) and of the mixture's samples (vertical) of each point, a panel a row.

    Grey: the points of all rows, and the frontier, beyond which every point has another below it in both. Chosen is
    ringed. Points farther than `FAR` times the least distance are left out, and counted.
    """
    axes_of = ["fd_reconstruction", "fd_gmm"]
    near = points[(points[axes_of] <= FAR * points[axes_of].min()).all(axis=1)]
    reach, front = near[axes_of].max(), frontier(points)[axes_of].to_numpy()
    stairs = np.vstack([[front[0, 0], reach["fd_gmm"]], front, [reach["fd_reconstruction"], front[-1, 1]]])
    rows = list(dict.fromkeys(points["row"]))
    across = 5 if len(rows) > ACROSS**2 else ACROSS
    down = -(-len(rows) // across)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            down, across, sharex=True, sharey=True, figsize=(1.4 * across, 1.35 * down + 0.7), layout="constrained"
        )
        for axis, row in itertools.zip_longest(axes.flat, rows):
            if row is None:
                axis.set_axis_off()
                continue
            tried = near[near["row"] == row].sort_values("fd_reconstruction")
            best = tried[tried["chosen"]]
            axis.plot(*near[axes_of].to_numpy().T, ".", color="0.85", markersize=3)
            axis.plot(*stairs.T, drawstyle="steps-post", color="0.6", linewidth=0.8)
            axis.plot(*tried[axes_of].to_numpy().T, "o-", color="C0", linewidth=0.8, markersize=2.5)
            axis.plot(*best[axes_of].to_numpy().T, "o", color="C0", markersize=7, fillstyle="none")
            axis.set_title(row, fontsize=7)
            axis.tick_params(labelsize=6)
        axis.set(xscale="log", yscale="log")
        for side, ticks in ((axis.xaxis, 2), (axis.yaxis, 3)):  # powers of ten may lie outside
            side.set_major_locator(MaxNLocator(ticks))
            side.set_minor_locator(NullLocator())
            side.set_major_formatter(StrMethodFormatter("{x:g}"))
        left_out = len(points) - len(near)
        far = f"\nNot shown, farther than {FAR:g} times the least distance: {left_out}" if left_out else ""
        figure.suptitle(f"{label}{far}", fontsize=8)
        figure.supxlabel("FD of reconstructions", fontsize=8)
        figure.supylabel("FD of samples, GMM", fontsize=8)
        sns.despine(figure)
        figure.savefig(path, dpi=200, metadata={"Software": None})
        plt.close(figure)


def main(arguments: list[str] | None = None) -> None:
    """Run what is missing, write what there is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", help="one whose tables are [search]")
    parser.add_argument("--cores", default="2")
    parser.add_argument("--table", action="store_true", help="run nothing")
    parser.add_argument("--beside", metavar="STUDY", help="a finished search of the same data set, shown with this one")
    parser.add_argument("--restart", action="store_true", help="leave out points of other settings than the study's")
    options = parser.parse_args(arguments)
    study = load_study(options.study)
    if "search" not in study.file.tables:
        parser.error(
            f"{options.study}: its tables are {list(study.file.tables)}; expected a study with tables: [search]"
        )
    for part in parts(study):
        written = read(part)
        path = FOUND / f"{part.name}.csv"
        if path.exists() and len(valid(part, written)) < max(len(written), 1) and not options.restart:
            parser.error(f"{path}: holds points of other settings than {part.name} has now; --restart leaves them out")
    beside = [other_points(options.beside, study, parser)] if options.beside else []
    for part in parts(study):
        points = searched(part, options.cores, is_run=not options.table)
        if len(points):
            write(part, points, beside)
            print(points.to_string(index=False))
        else:
            print(f"{part.name}: no points yet; without --table the search begins")


def other_points(name: str, study: Study, parser: argparse.ArgumentParser) -> pd.DataFrame:
    """The points that another search has found, which has to be one of the same data set, judged alike."""
    other = load_study(name)
    if len(study.datasets) > 1:
        parser.error(
            f"--beside {name}: {study.name} searches {list(study.datasets)}; expected a search of one data set"
        )
    for key in ("datasets", "reference_split", "n_images", "n_generated", "fit_seeds"):
        mine, theirs = getattr(study.file, key), getattr(other.file, key)
        if mine != theirs:
            parser.error(f"--beside {name}: its {key} are {theirs}; {study.name} has {mine}, and both have to be alike")
    found = valid(other, read(other))
    if found.empty:
        parser.error(f"--beside {name}: {FOUND / name}.csv holds no points of its settings; run that search first")
    return found


def searched(study: Study, cores: str, is_run: bool) -> pd.DataFrame:
    """All points of a search of one data set in the order of its rows, those that are missing run first if asked."""
    found = valid(study, read(study))
    while is_run and (todo := missing(study, found)):
        made = run(study, todo, cores)
        if len(valid(study, made)) < len(made):
            sys.exit(f"{study.name}: ran other settings than it was asked for: {made['settings'].tolist()}")
        storage.write_frame(FOUND / f"{study.name}.csv", pd.concat([found, made], ignore_index=True))
        found = read(study)
    order = [list(study.file.rows).index(row) for row in found["row"]]
    return found.iloc[np.argsort(order, kind="stable")].reset_index(drop=True)


if __name__ == "__main__":
    main()
