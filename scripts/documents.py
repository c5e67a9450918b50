"""Make what the documents show again: run the studies, then put tables, figures and the commit into the pages.

    python scripts/documents.py docs/densities.md [docs/embedded.md ...] [--cores 2]     whole pages
    python scripts/documents.py docs/densities.md --paste                                from results that are there

Without pages, all of README.md and docs/. A page says itself what it shows:

    <!-- paste FILE -->      FILE's content follows, up to <!-- end -->: a table of a study, or an example's code
    <!-- copy FILE -->       the image that follows links to a copy of FILE, a figure of a study
    <!-- commit NAME -->     the commit follows at which the study NAME was run

Each study that a page shows a file of is run, as far as its results are not there yet, and its tables and figures are
made anew; all of them take most of a day on two cores. The commit is set of a study of which nothing was there before.
How long a run took, and what other programs write (replications, searches, simulations, benchmarks), is put in by hand.
"""

import argparse
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from PIL import Image

from rae_bench.base.storage import write_text

PASTED = re.compile(r"(<!-- paste (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
COPIED = re.compile(r"<!-- copy (\S+) -->\n!\[[^]]*\]\(([^)]+)\)")
COMMIT = re.compile(r"(<!-- commit (\S+) -->)(\w+)")
LANGUAGES = {".py": "python", ".yaml": "yaml"}
RECOGNISED = "recognised.md"
"""What no study makes of itself."""
HEAVY = 2**20
"""The bytes beyond which a figure is kept in 256 colours."""


def content(path: Path) -> str:
    """A table as it is, code in a fence."""
    language = LANGUAGES.get(path.suffix)
    return f"```{language}\n{path.read_text()}```\n" if language else path.read_text()


def shown(page: Path) -> list[Path]:
    """The files of studies that a page shows."""
    text = page.read_text()
    files = [Path(name) for name in [*(found[1] for found in PASTED.findall(text)), *dict(COPIED.findall(text))]]
    return [file for file in files if file.parts[0] == "results"]


def run(files: Iterable[Path], cores: str) -> set[str]:
    """The studies of which nothing was there before, once every study with one of these files has been run whole."""
    files = list(dict.fromkeys(files))
    studies = list(dict.fromkeys(file.parts[1] for file in files))
    new = {study for study in studies if not Path("results", study).exists()}
    snakemake = [sys.executable, "-m", "snakemake", "--cores", cores]
    for study in studies:
        subprocess.run([*snakemake, "--config", f"study={study}", "--forcerun", "tables", "figures"], check=True)
    for file in files:
        if file.name == RECOGNISED:
            out = str(file.with_suffix(".csv"))
            subprocess.run([sys.executable, "scripts/recognise.py", file.parts[1], out], check=True)
    return new


def copy(source: Path, target: Path) -> None:
    """Copy a figure, in fewer colours where it would be too heavy for a repository."""
    if source.stat().st_size <= HEAVY:
        shutil.copyfile(source, target)
    else:
        with Image.open(source) as image:
            image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(target, optimize=True)


def fill(page: Path, commits: Mapping[str, str]) -> None:
    """Put what the files hold into a page, figures beside it, and these studies' commits where the page names them."""
    text = PASTED.sub(lambda found: f"{found[1]}\n{content(Path(found[2]))}\n{found[3]}", page.read_text())
    text = COMMIT.sub(lambda found: found[1] + commits.get(found[2], found[3]), text)
    for source, target in COPIED.findall(text):
        copy(Path(source), page.parent / target)
    write_text(page, text)
    print(f"{page}: {len(PASTED.findall(text))} tables and examples, {len(COPIED.findall(text))} figures")


def head() -> str:
    """The commit of the checkout; nothing may have been changed since, but for documents."""
    changed = subprocess.run(
        ["git", "status", "--porcelain", "--", ".", ":!docs", ":!README.md"], capture_output=True, text=True, check=True
    ).stdout
    if changed:
        sys.exit(f"documents.py: not at a commit, changed since the last one:\n{changed}commit or undo these first")
    found = subprocess.run(["git", "rev-parse", "--short=7", "HEAD"], capture_output=True, text=True, check=True)
    return found.stdout.strip()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what pages show, and fill them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="*", type=Path, metavar="PAGE")
    parser.add_argument("--cores", default="2")
    parser.add_argument("--paste", action="store_true", help="run nothing, and leave the commits that pages name")
    options = parser.parse_args(arguments)
    pages = options.pages or [Path("README.md"), *sorted(Path("docs").glob("*.md"))]
    files = [file for page in pages for file in shown(page)]
    commits: dict[str, str] = {}
    if not options.paste:
        commit = head()
        commits = dict.fromkeys(run(files, options.cores), commit)
    if missing := [str(file) for file in dict.fromkeys(files) if not file.exists()]:
        sys.exit(f"documents.py: no page was changed, since these files are not there: {', '.join(missing)}")
    for page in pages:
        fill(page, commits)


if __name__ == "__main__":
    main()
