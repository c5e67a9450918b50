"""Curves of measured points: their exponents, measured and counted, as a table and as a figure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MIB, GIGA = 2**20, 1e9
AXES = {
    "images": ("training images", 2000),
    "width": ("width", 16),
    "latent size": ("latent size", 16),
    "models": ("models", 1),
    "seeds": ("seeds", 1),
    "K": ("components K", 10),
    "code size": ("code size d", 16),
    "codes": ("codes", 4000),
    "samples": ("images scored", 1000),
}
"""Every axis: how it is called in the figure, and the point through which the line of the counts goes."""
COLUMNS = ("axis", "what", "at", "seconds", "GFLOP counted", "memory, MiB", "memory counted, MiB")


@dataclass(frozen=True)
class Point:
    """A measurement of `what` at `x` of `axis`: seconds, FLOPs counted, bytes above the imports, bytes counted."""

    axis: str
    what: str
    x: int
    seconds: float
    flops: float
    peak: float
    held: float


@dataclass(frozen=True)
class Slope:
    """An exponent by least squares with its standard error, and the one between the last two points."""

    all: float
    error: float
    last: float
    factor: float

    @classmethod
    def of(cls, x: Sequence[float], y: Sequence[float]) -> "Slope":
        """Of y = factor · x^all."""
        one, two = np.log(x), np.log(y)
        b, a = np.polyfit(one, two, 1)
        scatter = ((two - a - b * one) ** 2).sum() / (len(one) - 2)
        error = np.sqrt(scatter / ((one - one.mean()) ** 2).sum())
        last = (two[-1] - two[-2]) / (one[-1] - one[-2])
        return cls(float(b), float(error), float(last), float(np.exp(a)))


@dataclass(frozen=True)
class Curve:
    """The points of one `what` of an axis."""

    axis: str
    what: str
    points: tuple[Point, ...]

    @property
    def x(self) -> list[float]:
        """Where they were measured."""
        return [point.x for point in self.points]

    def values(self, name: str) -> list[float]:
        """A field of every point."""
        return [getattr(point, name) for point in self.points]

    def slope(self, name: str) -> Slope:
        """The exponent of a field."""
        return Slope.of(self.x, self.values(name))

    @property
    def base(self) -> int:
        """Which point the counts are scaled to."""
        return self.x.index(AXES[self.axis][1])

    def scaled(self, name: str, to: str) -> list[float]:
        """The field `name`, counted, in the units of the measured field `to`: equal at the base point."""
        counted, measured = self.values(name), self.values(to)
        return [value * measured[self.base] / counted[self.base] for value in counted]


def curves(points: Iterable[Point]) -> list[Curve]:
    """One per axis and `what`, in the order they come."""
    grouped: dict[tuple[str, str], list[Point]] = {}
    for point in points:
        grouped.setdefault((point.axis, point.what), []).append(point)
    return [Curve(*names, tuple(members)) for names, members in grouped.items()]


def summary(points: Iterable[Point]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows: every curve's exponents."""
    columns = ["axis", "from, to", "time of", "exponent", "counted", "last step", "counted", "end over counts"]
    columns += ["memory exponent", "counted", "last step", "counted"]
    rows = []
    for curve in curves(points):
        time, flops, peak, held = (curve.slope(name) for name in ("seconds", "flops", "peak", "held"))
        end = curve.values("seconds")[-1] / curve.scaled("flops", "seconds")[-1]
        row = [AXES[curve.axis][0], f"{curve.x[0]:,} to {curve.x[-1]:,}", curve.what, _fitted(time), f"{flops.all:.2f}"]
        row += [f"{time.last:.2f}", f"{flops.last:.2f}", f"{end:.2f}"]
        memory = [_fitted(peak), f"{held.all:.2f}", f"{peak.last:.2f}", f"{held.last:.2f}"]
        is_first = not rows or rows[-1][0] != row[0]  # the memory is that of all curves of an axis
        rows.append([*row, *(memory if is_first else ["", "", "", ""])])
    return columns, rows


def _fitted(slope: Slope) -> str:
    return f"{slope.all:.2f} ± {slope.error:.2f}"


def to_row(points: Iterable[Point]) -> tuple[tuple[str, ...], list[list[str | int | float]]]:
    """Columns and rows: every point."""
    rows: list[list[str | int | float]] = []
    for point in points:
        took, counted = float(f"{point.seconds:.4g}"), float(f"{point.flops / GIGA:.4g}")
        memory = round(point.peak / MIB, 1), round(point.held / MIB, 1)
        rows.append([point.axis, point.what, point.x, took, counted, *memory])
    return COLUMNS, rows


def from_row(row: Sequence[str | int | float]) -> Point:
    """The inverse of a row of `to_row`, to its digits."""
    axis, what, x, seconds, flops, peak, held = row
    return Point(
        str(axis), str(what), int(x), float(seconds), GIGA * float(flops), MIB * float(peak), MIB * float(held)
    )


TOP = ("images", "width", "latent size", "models", "seeds")
BOTTOM = ("K", "code size", "codes", "samples")
DOTTED = (0, (1, 1))
COLOURS = ("tab:blue", "tab:orange", "tab:green")


def draw(points: Iterable[Point], path: Path) -> None:
    """Time and memory along every axis, on the same logarithmic scales so that slopes can be compared."""
    import matplotlib.pyplot as plt
    import seaborn as sns
    from matplotlib.lines import Line2D

    from rae_bench.report.plots.catalogue import STYLE

    every = curves(points)
    with plt.rc_context({**STYLE, "axes.titlesize": 7.5}):
        figure, grid = plt.subplots(4, 5, figsize=(7.4, 7.0), layout="constrained")
        for first, axes in ((0, TOP), (2, BOTTOM)):
            for column, name in enumerate(axes):
                mine = [curve for curve in every if curve.axis == name]
                for number, curve in enumerate(mine):
                    _panel(grid[first, column], curve, "seconds", "flops", COLOURS[number])
                for curve in mine[:1]:  # the memory is that of all of them
                    _panel(grid[first + 1, column], curve, "peak", "held", "0.25")
                _label(grid[first, column], mine, "seconds", "flops")
                _label(grid[first + 1, column], mine[:1], "peak", "held")
                grid[first + 1, column].set_xlabel(AXES[name][0])
            for row, label in ((first, "time, s"), (first + 1, "memory, MiB")):
                _share(grid[row, : len(axes)])
                grid[row, 0].set_ylabel(label)
        for panel in grid[2:, len(BOTTOM) :].flat:
            panel.set_axis_off()
        handles = [
            Line2D([], [], color="0.25", marker="o", linestyle="", markersize=3.5, label="measured"),
            Line2D([], [], color="0.25", linewidth=1.0, label="fitted power"),
            Line2D([], [], color="0.55", linewidth=1.2, linestyle=DOTTED, label="counted"),
        ]
        key = grid[2, 4]
        key.legend(handles=handles, loc="upper left", frameon=False, borderaxespad=0, borderpad=0, labelspacing=0.8)
        note = "Time: counts scaled\nto the base point.\n0.98 (0.98): exponent\nmeasured (counted)."
        key.text(0.0, 0.5, note, transform=key.transAxes, fontsize=7, va="top")
        sns.despine(figure)
        figure.savefig(path, dpi=150, metadata={"Software": None})
        plt.close(figure)


def _panel(panel: "Axes", curve: Curve, measured: str, counted: str, colour: str) -> None:
    """Points, the fitted power, and the counts."""
    unit = MIB if measured == "peak" else 1.0
    x, slope = np.array(curve.x, dtype=float), curve.slope(measured)
    counts = curve.values(counted) if measured == "peak" else curve.scaled(counted, measured)
    panel.plot(x, np.array(counts) / unit, color="0.55", linewidth=1.2, linestyle=DOTTED)
    panel.plot(x, slope.factor * x**slope.all / unit, color=colour, linewidth=1.0)
    panel.plot(x, np.array(curve.values(measured)) / unit, "o", color=colour, markersize=3)


def _label(panel: "Axes", mine: list[Curve], measured: str, counted: str) -> None:
    """Exponents, measured and counted, above the panel; round numbers below it."""
    for number, curve in enumerate(mine):
        name = f"{curve.what}: " if len(mine) > 1 else ""
        line = f"{name}{curve.slope(measured).all:.2f} ({curve.slope(counted).all:.2f})"
        colour, height = COLOURS[number] if measured == "seconds" else "0.25", 1.0 - 0.12 * number
        panel.text(0.04, height, line, transform=panel.transAxes, color=colour, fontsize=7, va="top")
    panel.set(xscale="log", yscale="log")
    ends = mine[0].x if mine else []
    shown = ends if len(ends) < 5 else ends[::2]
    panel.set_xticks(shown, labels=[f"{tick:,}" for tick in shown])
    panel.set_xticks([], minor=True)


def _share(panels: Iterable["Axes"]) -> None:
    """The same scale for all, with room for the exponents above the points."""
    panels = list(panels)
    limits = [panel.get_ylim() for panel in panels if panel.lines]
    low, high = min(limit[0] for limit in limits), max(limit[1] for limit in limits)
    room = 0.16 * max(len(panel.texts) for panel in panels)
    for number, panel in enumerate(panels):
        panel.set_ylim(low, high * (high / low) ** room)
        if number:
            panel.tick_params(labelleft=False, which="both")
