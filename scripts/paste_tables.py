"""Paste tables and examples into documents: FILE's content between `<!-- paste FILE -->` and `<!-- end -->`."""

import re
import sys
from pathlib import Path

from rae_bench.base.storage import write_text

BLOCK = re.compile(r"(<!-- paste (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
LANGUAGES = {".py": "python", ".yaml": "yaml"}


def content(path: Path) -> str:
    """A table as it is, code in a fence."""
    language = LANGUAGES.get(path.suffix)
    return f"```{language}\n{path.read_text()}```\n" if language else path.read_text()


def main(documents: list[Path]) -> None:
    for document in documents:
        text = BLOCK.sub(lambda found: f"{found[1]}\n{content(Path(found[2]))}\n{found[3]}", document.read_text())
        write_text(document, text)
        print(f"{document}: {len(BLOCK.findall(text))} tables")


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:]])
