"""Write what the benchmarks found, benchmarks/found/*.json, into docs/speed.md between its two marks."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from records import FOUND

PAGE = Path(__file__).parent.parent / "docs" / "speed.md"
BEGIN, END = "<!-- written by benchmarks/table.py: begin -->", "<!-- end -->"


def main() -> None:
    page = PAGE.read_text()
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    found = [json.loads(path.read_text()) for path in sorted(FOUND.glob("*.json"))]
    PAGE.write_text("\n".join([f"{before}{BEGIN}", *(line for one in found for line in section(one)), f"{END}{after}"]))


def section(found: dict[str, Any]) -> Iterator[str]:
    """The lines of one benchmark: what was measured where, its ratios, the figures behind them."""
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    yield f"\n### {found['title']}\n\n{found['date']}, {found['processor']}; {versions}.\n"
    if found["ratios"]:
        rows = [
            (
                ratio["what"] + (f" ({ratio['remark']})" if ratio["remark"] else ""),
                f"{ratio['ours']:.4g}",
                f"{ratio['other']:.4g}",
                ratio["unit"],
                f"**{ratio['ratio']:.3g}**",
                "" if ratio["bar"] is None else f"{'≤' if ratio['at_most'] else '≥'} {ratio['bar']:g}",
            )
            for ratio in found["ratios"]
        ]
        yield from grid(("", "ours", "other", "unit", "ratio", "asked"), rows)
    for table in found["tables"]:
        yield f"\n{table['title']}\n"
        yield from grid(table["columns"], table["rows"])


def grid(columns: Any, rows: Any) -> Iterator[str]:
    """A Markdown table."""
    yield f"| {' | '.join(columns)} |"
    yield "|" + "---|" * len(columns)
    for row in rows:
        yield f"| {' | '.join(f'{cell:.4g}' if isinstance(cell, float) else str(cell) for cell in row)} |"


if __name__ == "__main__":
    main()
