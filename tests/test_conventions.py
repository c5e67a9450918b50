"""What others' validators and programs say of the files that the suite ships and writes, where they can be had."""

import shutil
import subprocess

import pytest

pytestmark = pytest.mark.slow


def test_every_table_is_set_by_tex_with_booktabs_alone(smoke, tmp_path):
    if shutil.which("pdflatex") is None:
        pytest.skip("pdflatex is not here")
    tables = sorted((smoke.results / "smoke" / "tables").glob("*.tex"))
    assert tables
    page = tmp_path / "page.tex"
    inputs = [rf"\input{{{table}}}\clearpage" for table in tables]
    opening = [r"\documentclass{article}", r"\usepackage{booktabs}", r"\begin{document}"]
    page.write_text("\n".join([*opening, *inputs, r"\end{document}"]))
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", page.name]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", check=False)
    assert ended.returncode == 0, ended.stdout[-2000:]
