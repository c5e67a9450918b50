"""How often the verdicts of `rae_bench.report.verdicts` are wrong, and what they can see, on planted ratios.

    python scripts/simulate_verdicts.py [--tables 2000] [--out docs/verdicts]

Writes OUT.csv, a row per scenario and number of training seeds, and OUT.png. Values are drawn from the model that the
verdicts suppose (logarithms; a mean, a seed's effect and a residual), their spreads equal or not.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from tqdm import tqdm

from rae_bench.report.comparisons import Compared
from rae_bench.report.verdicts import pairs

WITHIN = 1.25
SD = 0.07
"""Of a cell's logarithm from one training seed to another: that of column GMM on digits."""
SEEDS = (3, 4, 6, 9)


@dataclass(frozen=True)
class Scenario:
    """Nine cells: the ratio of each to the first, and its residual SD over that of the others."""

    ratios: tuple[float, ...]
    spreads: tuple[float, ...]


EQUAL = (1.0,) * 9
LADDER = tuple(1.08**i for i in range(9))
SCENARIOS = {
    "all equal": Scenario(EQUAL, EQUAL),
    "all equal, one spread twice as large": Scenario(EQUAL, (2.0, *EQUAL[1:])),
    "all equal, two spreads twice as large": Scenario(EQUAL, (2.0, 2.0, *EQUAL[2:])),
    "all equal, four spreads twice as large": Scenario(EQUAL, (*(2.0,) * 4, *EQUAL[4:])),
    "all equal, spreads from 1 to 2": Scenario(EQUAL, tuple(np.linspace(1, 2, 9))),
    "half of them at the margin": Scenario((*(1.0,) * 4, *(WITHIN,) * 5), EQUAL),
    "a ladder of steps of 8 %": Scenario(LADDER, EQUAL),
    "a ladder, spreads from 1 to 2": Scenario(LADDER, tuple(np.linspace(1, 2, 9))),
    "all equal, one spread ten times as large": Scenario(EQUAL, (10.0, *EQUAL[1:])),
}


def simulate(scenario: Scenario, seeds: int, tables: int, rng: np.random.Generator) -> pd.DataFrame:
    """Every pair of every simulated table: its true ratio, whether the interval holds it, and its verdict."""
    logs, spreads = np.log(scenario.ratios), SD * np.array(scenario.spreads)
    found = []
    for number in range(tables):
        drawn = logs[:, None] + rng.normal(size=seeds) * SD + rng.normal(size=(len(logs), seeds)) * spreads[:, None]
        table = pairs(Compared.of({i: pd.Series(values) for i, values in enumerate(drawn)}), WITHIN)
        found.append(table.assign(table=number))
    data = pd.concat(found, ignore_index=True)
    true = np.exp(logs[data["a"].astype(int)] - logs[data["b"].astype(int)])
    size = np.maximum(true, 1 / true)
    return data.assign(
        true=true,
        size=size.round(4),
        covered=(data["low"] <= true) & (true <= data["high"]),
        # opposite or from nothing; "equal" is wrong from the margin on
        wrong=((data["verdict"] == "better") & (true > 1 - 1e-9))
        | ((data["verdict"] == "worse") & (true < 1 + 1e-9))
        | ((data["verdict"] == "equal") & (size > WITHIN - 1e-9)),
    )


def summary(name: str, seeds: int, data: pd.DataFrame) -> dict[str, object]:
    """Coverage on the whole and of the worst pair, tables with a wrong call, and what was decided."""
    by_pair = data.groupby(["a", "b"])["covered"].mean()
    worst = by_pair.idxmin()
    return {
        "scenario": name,
        "seeds": seeds,
        "coverage": data["covered"].mean(),
        "lowest_coverage": by_pair.min(),
        "pair": f"{worst[0]}-{worst[1]}",
        "tables_with_a_wrong_call": data.groupby("table")["wrong"].any().mean(),
        "half_width": np.exp((np.log(data["high"]) - np.log(data["low"])) / 2).median() - 1,
        "decided": (data["verdict"] != "undecided").mean(),
        **{word: (data["verdict"] == word).mean() for word in ("equal", "better", "worse")},
    }


def draw(powers: dict[int, pd.DataFrame], coverage: pd.DataFrame, path: Path) -> None:
    """Coverage of every pair by scenario; and of pairs by their true ratio, how often each word is said."""
    figure, axes = plt.subplots(1, 2, figsize=(7.2, 2.9), layout="constrained", width_ratios=(1, 1.2))
    names = list(dict.fromkeys(coverage["scenario"]))
    axes[0].plot(
        coverage["covered"], [names.index(name) for name in coverage["scenario"]], "|", color="0.3", markersize=7
    )
    axes[0].axvspan(0.94, 0.96, color="0.9", zorder=0)
    axes[0].set(yticks=range(len(names)), yticklabels=names, xlabel="coverage of each pair's 95 % interval")
    axes[0].invert_yaxis()
    for seeds, data in powers.items():
        shown = data.groupby("size")["verdict"].value_counts(normalize=True).unstack(fill_value=0)
        shade = {3: "0.75", 4: "0.55", 6: "0.3", 9: "0"}[seeds]
        axes[1].plot(shown.index, shown["equal"], color=shade, linestyle="--", label=f"equal, {seeds} seeds")
        called = shown.get("better", 0) + shown.get("worse", 0)
        axes[1].plot(shown.index, called, color=shade, label=f"better or worse, {seeds} seeds")
    axes[1].axvline(WITHIN, color="0.7", linewidth=0.8)
    axes[1].set(xlabel="true ratio", ylabel="said of so many pairs", xscale="log")
    axes[1].set_xticks([1, 1.1, 1.25, 1.5, 1.85], ["1", "1.1", "1.25", "1.5", "1.85"])
    axes[1].minorticks_off()
    axes[1].legend(frameon=False, fontsize=6)
    figure.savefig(path, dpi=200, metadata={"Software": None})


def main(arguments: Sequence[str] | None = None) -> None:
    """Simulate, write and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=int, default=2000, help="simulated tables of each scenario")
    parser.add_argument("--out", type=Path, default=Path("docs/figures/verdicts"))
    options = parser.parse_args(arguments)
    mpl.use("agg")
    plt.rcParams.update({"font.size": 7})
    rows, powers, coverage = [], {}, []
    for (name, scenario), seeds in tqdm([(item, seeds) for item in SCENARIOS.items() for seeds in SEEDS]):
        data = simulate(scenario, seeds, options.tables, np.random.default_rng([7, seeds, list(SCENARIOS).index(name)]))
        rows.append(summary(name, seeds, data))
        coverage.append(data.groupby(["a", "b"])["covered"].mean().reset_index().assign(scenario=name, seeds=seeds))
        if name == "a ladder of steps of 8 %":
            powers[seeds] = data
    table = pd.DataFrame(rows)
    table.to_csv(options.out.with_suffix(".csv"), index=False, float_format="%.4g")
    draw(powers, pd.concat(coverage), options.out.with_suffix(".png"))
    print(table.to_string(index=False, float_format="%.3f"))


if __name__ == "__main__":
    main()
