"""Write what the benchmarks found, benchmarks/found/*.json, into two documents.

docs/speed.md gets, between its two marks, the ratios of which something was asked; benchmarks/found/tables.md the rest.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from records import FOUND

PAGE, DETAILS = Path(__file__).parent.parent / "docs" / "speed.md", FOUND / "tables.md"
BEGIN, END = "<!-- written by benchmarks/table.py: begin -->", "<!-- end -->"
TOP = """# Tables of the benchmarks

`benchmarks/table.py` writes this page. Ratios of which something was asked are in [speed.md](../../docs/speed.md)."""


def main() -> None:
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    page, details = [f"{before}{BEGIN}"], [TOP]
    for found in (json.loads(path.read_text()) for path in sorted(FOUND.glob("*.json"))):
        asked = [ratio for ratio in found["ratios"] if ratio["bar"] is not None]
        others = [ratio for ratio in found["ratios"] if ratio["bar"] is None]
        where = f"{found['title']}\n\n{found['date']}, {found['processor']}"
        versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
        page += section(f"### {where}.", asked, [])
        details += section(f"## {where}; {versions}.", others, found["tables"])
    PAGE.write_text("\n".join([*page, f"{END}{after}"]))
    DETAILS.write_text("\n".join([*details, ""]))


def section(top: str, ratios: list[Any], tables: list[Any]) -> Iterator[str]:
    """The lines of one benchmark: what was measured where, its ratios and tables; none if it has neither."""
    if not ratios and not tables:
        return
    yield f"\n{top}"
    if ratios:
        rows = [
            (
                ratio["what"] + (f" ({ratio['remark']})" if ratio["remark"] else ""),
                f"{ratio['ours']:.4g}",
                f"{ratio['other']:.4g}",
                ratio["unit"],
                f"**{ratio['ratio']:.3g}**",
                "" if ratio["bar"] is None else bar(ratio),
            )
            for ratio in ratios
        ]
        yield ""
        yield from grid(("", "ours", "other", "unit", "ratio", "asked"), rows)
    for table in tables:
        yield f"\n{table['title']}\n"
        yield from grid(table["columns"], table["rows"])


def bar(ratio: dict[str, Any]) -> str:
    """What was asked of a ratio, and whether it was missed."""
    missed = ratio["ratio"] > ratio["bar"] if ratio["at_most"] else ratio["ratio"] < ratio["bar"]
    return f"{'≤' if ratio['at_most'] else '≥'} {ratio['bar']:g}{', missed' if missed else ''}"


def grid(columns: Any, rows: Any) -> Iterator[str]:
    """A Markdown table."""
    yield f"| {' | '.join(columns)} |"
    yield "|" + "---|" * len(columns)
    for row in rows:
        yield f"| {' | '.join(f'{cell:.4g}' if isinstance(cell, float) else str(cell) for cell in row)} |"


if __name__ == "__main__":
    main()
