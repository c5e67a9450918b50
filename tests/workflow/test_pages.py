"""The program that puts a study's tables into the documents, in a checkout with a finished study."""

import shutil
import subprocess
import sys

import pytest
from checkout import ROOT, environment

pytestmark = pytest.mark.workflow


def git(checkout, *arguments):
    command = ["git", "-c", "user.name=A", "-c", "user.email=a@example.org", *arguments]
    return subprocess.run(command, cwd=checkout.path, capture_output=True, text=True, check=True).stdout.strip()


def documents(checkout):
    command = [sys.executable, "scripts/documents.py", "docs/page.md", "--cores", "1"]
    return subprocess.run(command, cwd=checkout.path, env=environment(checkout.path), capture_output=True, text=True)


def test_a_page_gets_todays_tables_of_a_study_that_ran_before_and_keeps_its_commit(smoke, tmp_path):
    checkout = smoke.copy(tmp_path / "copy")
    shutil.copytree(ROOT / "scripts", checkout.path / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    (checkout.path / "docs").mkdir(exist_ok=True)
    page = checkout.path / "docs" / "page.md"
    page.write_text(
        "Run at <!-- commit smoke -->0123456.\n<!-- paste results/smoke/tables/claims.md -->\n<!-- end -->\n"
        "<!-- copy results/smoke/figures/samples_digits_mini.png -->\n![Samples](samples.png)\n"
    )
    (checkout.path / ".gitignore").write_text("results/*\n.snakemake\n__pycache__\n")
    git(checkout, "init", "--quiet")
    git(checkout, "add", "--all")
    git(checkout, "commit", "--quiet", "--message", "All")
    table = checkout.results / "smoke" / "tables" / "claims.md"
    expected = table.read_text()
    ended = documents(checkout)
    assert ended.returncode == 0, ended.stderr
    text = page.read_text()
    assert expected in text
    assert "<!-- commit smoke -->0123456." in text
    assert (checkout.path / "docs" / "samples.png").exists()
    (checkout.path / "Snakefile").write_text("# edited\n")
    ended = documents(checkout)
    assert ended.returncode == 1
    assert "documents.py: not at a commit, changed since the last one:\n M Snakefile\n" in ended.stderr
