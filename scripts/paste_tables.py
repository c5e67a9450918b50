"""Paste generated tables into documents: FILE's content between `<!-- paste FILE -->` and `<!-- end -->`."""

import re
import sys
from pathlib import Path

from rae_bench.base.storage import write_text

BLOCK = re.compile(r"(<!-- paste (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def main(documents: list[Path]) -> None:
    for document in documents:
        text = BLOCK.sub(lambda found: f"{found[1]}\n{Path(found[2]).read_text()}\n{found[3]}", document.read_text())
        write_text(document, text)
        print(f"{document}: {len(BLOCK.findall(text))} tables")


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:]])
