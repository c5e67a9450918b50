"""What others' validators and programs say of the files that the suite ships and writes, where they are on the path.

None of them is in the lock: some ask for other versions than it holds.
"""

import shutil
import subprocess
import sys

import pytest
from checkout import ROOT

pytestmark = pytest.mark.slow


def _ended(program, *arguments, cwd=ROOT):
    """Run a program of somebody else's, and skip where it is not installed."""
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    command = [program, *map(str, arguments)]
    ended = subprocess.run(command, cwd=cwd, capture_output=True, text=True, errors="replace", check=False)
    assert ended.returncode == 0, (ended.stdout + ended.stderr)[-2000:]


def test_the_citation_is_valid():
    _ended("cffconvert", "--validate", "--infile", ROOT / "CITATION.cff")


def test_the_workflow_of_ci_is_valid():
    _ended("actionlint", ROOT / ".github/workflows/ci.yml")


def test_the_wheel_has_nothing_amiss(tmp_path):
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", tmp_path]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    _ended("check-wheel-contents", *tmp_path.iterdir())


def test_prepared_images_are_described_in_valid_croissant(smoke):
    (described,) = smoke.results.glob("datasets/*/croissant.json")
    _ended("mlcroissant", "validate", "--jsonld", described)


def test_every_table_is_set_by_tex_with_booktabs_alone(smoke, tmp_path):
    tables = sorted((smoke.results / "smoke" / "tables").glob("*.tex"))
    assert tables
    inputs = [rf"\input{{{table}}}\clearpage" for table in tables]
    opening = [r"\documentclass{article}", r"\usepackage{booktabs}", r"\begin{document}"]
    (tmp_path / "page.tex").write_text("\n".join([*opening, *inputs, r"\end{document}"]))
    _ended("pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex", cwd=tmp_path)
