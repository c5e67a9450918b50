"""What surrounds a command: terminals of any encoding. Each is a real process that runs, or ends in one line."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from checkout import ROOT, Checkout, environment, put

BARE = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/root"}
"""The environment of a shell in which nothing is set up."""


def command(*arguments, cwd=None, before=None, **options):
    """Run `python -m ARGUMENTS` of this interpreter, not activated, in the environment `before`."""
    return subprocess.run(
        [sys.executable, "-m", *map(str, arguments)],
        cwd=cwd,
        env={**BARE, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(cwd or ROOT), **(before or {})},
        capture_output="stdout" not in options,
        timeout=300,
        **options,
    )


# --- the terminal -----------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def latin1(tmp_path_factory):
    """The variables of a Latin-1 locale."""
    folder = tmp_path_factory.mktemp("locales")
    made = ["localedef", "-i", "de_DE", "-f", "ISO-8859-1", str(folder / "de_DE.ISO-8859-1")]
    if shutil.which("localedef") is None or subprocess.run(made, capture_output=True).returncode:
        pytest.skip("localedef or its sources are not here")
    return {"LOCPATH": str(folder), "LC_ALL": "de_DE.ISO-8859-1"}


ASCII_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
"""Python then reads and writes files as ASCII, too, unless told otherwise."""
PRINTED = (
    ["settings"],
    ["convert", "--dataset", "mnist", "--model", "rae_l2"],
    ["convert", "--table"],
    ["score", "-h"],
)


@pytest.mark.parametrize("arguments", PRINTED, ids=" ".join)
def test_a_terminal_prints_a_question_mark_for_what_it_lacks(arguments, latin1):
    whole = command("rae_bench", *arguments, before={"PYTHONIOENCODING": "utf-8"})
    text = whole.stdout.decode()
    for variables, encoding in (({"PYTHONIOENCODING": "ascii"}, "ascii"), (latin1, "latin-1")):
        ended = command("rae_bench", *arguments, before=variables)
        assert (ended.returncode, ended.stderr) == (0, b"")
        assert ended.stdout == text.encode(encoding, "replace")


def test_those_commands_print_what_such_terminals_lack():
    """Else the test above would say nothing."""
    assert not command("rae_bench", *PRINTED[0], before={"PYTHONIOENCODING": "utf-8"}).stdout.isascii()


def test_a_mistake_with_a_letter_that_the_terminal_lacks_is_one_line(tmp_path):
    for variables in ({"PYTHONIOENCODING": "ascii"}, ASCII_LOCALE):
        ended = command("rae_bench", "score", tmp_path / "größe λ.npy", "b.npy", before=variables)
        assert ended.returncode == 1
        assert ended.stderr.startswith(b"rae_bench score: ")
        assert ended.stderr.endswith(b".npy: no such file\n")
        assert len(ended.stderr.splitlines()) == 1


def test_files_are_utf_8_whatever_the_locale(smoke, tmp_path):
    """The finished study is summarised again under a title beyond ASCII."""
    checkout = Checkout(tmp_path / "copy")
    shutil.rmtree(checkout.path)
    shutil.copytree(smoke.path, checkout.path, symlinks=True)
    with checkout.edited("studies/smoke.yaml", lambda data: put(data, ["title"], "Größe λ 漢")):
        ended = command(
            *("snakemake", "--cores", "1", "--config", "study=smoke"), cwd=checkout.path, before=ASCII_LOCALE
        )
    assert ended.returncode == 0, ended.stderr
    assert "<h1>Größe λ 漢</h1>" in (checkout.results / "smoke" / "report.html").read_text("utf-8")
    for name in ("table1_digits_mini.md", "table1_digits_mini.tex"):
        made, before = ((root / "smoke" / "tables" / name).read_bytes() for root in (checkout.results, smoke.results))
        assert made == before


@pytest.mark.parametrize("redirect", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_streams_are_no_traceback(redirect, tmp_path):
    script = f"{sys.executable} -m rae_bench settings {redirect}"
    ended = subprocess.run(["bash", "-c", script], env=environment(ROOT), cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 0
    assert ended.stderr == ""


def test_a_full_disk_under_what_is_printed_is_one_line():
    with Path("/dev/full").open("w") as full:
        ended = command("rae_bench", "settings", stdout=full, stderr=subprocess.PIPE, text=True)
    assert ended.returncode == 1
    assert ended.stderr == "rae_bench settings: what it prints cannot be written: No space left on device\n"
