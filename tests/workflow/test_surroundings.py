"""What surrounds a command: terminals of any encoding, no activated environment, folders that cannot be written or are
oddly named. Each is a real process that runs, or ends in one line."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from checkout import ROOT, Checkout, environment, our_lines, put
from test_quoting import HOSTILE, nothing_was_executed

PREPARED = "results/datasets/digits_mini/manifest.json"
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


def prepared(folder, *arguments, **before):
    """Let the workflow prepare the smoke study's data below `folder`; what it said."""
    ended = command(
        *("snakemake", "--cores", "1", "--config", "study=smoke", *arguments, "--", PREPARED),
        cwd=folder, before=before, text=True,
    )  # fmt: skip
    said = ended.stdout + ended.stderr
    assert ended.returncode == 0, said
    assert "Traceback" not in said
    assert (folder / PREPARED).is_file()
    return said


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
PRINTED = (["switches"], ["convert", "--table"], ["score", "-h"])


@pytest.mark.parametrize("arguments", PRINTED, ids=" ".join)
def test_a_terminal_prints_a_question_mark_for_what_it_lacks(arguments, latin1):
    whole = command("rae_bench", *arguments, before={"PYTHONIOENCODING": "utf-8"})
    text = whole.stdout.decode()
    assert not text.isascii() or arguments != PRINTED[0]  # else nothing is tried
    for variables, encoding in (({"PYTHONIOENCODING": "ascii"}, "ascii"), (latin1, "latin-1")):
        ended = command("rae_bench", *arguments, before=variables)
        assert (ended.returncode, ended.stderr) == (0, b"")
        assert ended.stdout == text.encode(encoding, "replace")


def test_a_mistake_with_a_letter_that_the_terminal_lacks_is_one_line(tmp_path):
    for variables in ({"PYTHONIOENCODING": "ascii"}, ASCII_LOCALE):
        ended = command("rae_bench", "score", tmp_path / "größe λ.npy", "b.npy", before=variables)
        assert ended.returncode == 1
        assert ended.stderr.startswith(b"rae_bench score: ")
        assert ended.stderr.endswith(b".npy: no such file\n")
        assert len(ended.stderr.splitlines()) == 1


def test_files_are_the_same_bytes_whatever_the_locale(latin1, tmp_path):
    """Tables of what the paper published, which need no results, and hold more than ASCII."""
    made = {}
    for name, variables in {"utf-8": {"LC_ALL": "C.UTF-8"}, "latin-1": latin1, "ascii": ASCII_LOCALE}.items():
        out = tmp_path / name
        ended = command(
            "rae_bench", "published", "paper_clean", "--out", out, before={**variables, "HOME": "/proc/none"}
        )
        assert ended.returncode == 0, ended.stderr
        made[name] = {path.name: path.read_bytes() for path in (out / "tables").iterdir()}
    assert made["latin-1"] == made["ascii"] == made["utf-8"]
    assert any(not content.isascii() for content in made["utf-8"].values())


def test_the_workflow_runs_in_a_locale_of_ascii_and_takes_any_label_for_text(tmp_path):
    checkout = Checkout(tmp_path / "copy")
    with checkout.edited("datasets.yaml", lambda data: put(data, ["digits_mini", "data", "label"], HOSTILE)):
        prepared(checkout.path, **ASCII_LOCALE)
    record = json.loads((checkout.results / "datasets/digits_mini/manifest.record.json").read_text("utf-8"))
    assert record["settings"]["label"] == HOSTILE
    assert nothing_was_executed(checkout)


@pytest.mark.parametrize("redirect", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_streams_are_no_traceback(redirect, tmp_path):
    script = f"{sys.executable} -m rae_bench switches {redirect}"
    ended = subprocess.run(["bash", "-c", script], env=environment(ROOT), cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 0
    assert ended.stderr == ""


def test_a_full_disk_under_what_is_printed_is_one_line():
    with Path("/dev/full").open("w") as full:
        ended = command("rae_bench", "switches", stdout=full, stderr=subprocess.PIPE, text=True)
    assert ended.returncode == 1
    assert ended.stderr == "rae_bench switches: what it prints cannot be written: No space left on device\n"


# --- the interpreter --------------------------------------------------------------------------------------


def another_python(folder):
    """A folder with a `python` that is not ours."""
    folder.mkdir()
    (folder / "python").write_text("#!/bin/sh\necho another Python >&2\nexit 3\n")
    (folder / "python").chmod(0o755)
    return folder


CONDA = """#!/bin/sh
case "$1" in
  --version) echo "conda 24.11.0" ;;
  info) echo '{{"conda_prefix": "{base}", "root_prefix": "{base}", "platform": "linux-64"}}' ;;
  config) echo '{{"get": {{"channel_priority": "strict"}}}}' ;;
  *) while [ "$1" ]; do case "$1" in --prefix=*) p=${{1#--prefix=}} ;; --prefix|-p) p=$2 ;; esac; shift; done
     mkdir -p "$p/bin" "$p/conda-meta"; touch "$p/conda-meta/history"
     printf '#!/bin/sh\\ntouch {used}\\nexec {python} "$@"\\n' > "$p/bin/python"; chmod +x "$p/bin/python" ;;
esac
"""
ACTIVATE = 'export PATH="${PATH/$CONDA_PREFIX/$1}"; export CONDA_PREFIX="$1"\n'
"""As conda does where an environment is active: the new one takes the place of the old in the path."""


def test_with_conda_rules_use_the_python_of_their_environment(tmp_path):
    """A stand-in for conda, whose base is active, as its installer arranges it."""
    base, used = tmp_path / "conda", tmp_path / "used"
    another_python(base)
    (base / "bin").mkdir()
    for name, content in (("conda", CONDA.format(base=base, used=used, python=sys.executable)), ("activate", ACTIVATE)):
        (base / "bin" / name).write_text(content)
        (base / "bin" / name).chmod(0o755)
    checkout = Checkout(tmp_path / "copy")
    path = f"{base / 'bin'}:{BARE['PATH']}"
    prepared(checkout.path, "--sdm", "conda", PATH=path, CONDA_PREFIX=str(base), CONDA_SHLVL="1")
    assert used.exists()


# --- folders ----------------------------------------------------------------------------------------------


def test_the_workflow_needs_no_activation_no_home_no_plain_path_and_no_wide_umask(tmp_path):
    """The rules, and what follows them, use Snakemake's own interpreter and not the first `python` of the path."""
    decoy = another_python(tmp_path / "bin")
    nowhere = {"PATH": f"{decoy}:{BARE['PATH']}", "HOME": "/proc/none", "TMPDIR": "/proc/none"}
    before = os.umask(0o077)
    try:
        said = prepared(Checkout(tmp_path / "a b é 漢 $x").path, **nowhere)
    finally:
        os.umask(before)
    assert "largest process" in said  # `spent`, at the end
    assert "another Python" not in said


def refused(folder):
    """The one line with which the workflow ends there."""
    ended = command("snakemake", "--cores", "1", "--config", "study=smoke", cwd=folder, text=True)
    assert ended.returncode != 0
    assert "Traceback" not in ended.stdout + ended.stderr
    (line,) = our_lines(ended.stdout + ended.stderr)
    return line


def test_braces_in_the_path_of_a_checkout_are_one_line(tmp_path):
    checkout = Checkout(tmp_path / "a {x} b")
    assert refused(checkout.path).startswith(f"rae_bench: {checkout.path}: the path of the checkout holds a brace")


def test_a_checkout_that_cannot_be_written_is_one_line(mount_disk, tmp_path):
    disk = mount_disk(tmp_path / "disk", "16m")
    checkout = Checkout(disk / "copy")
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    assert refused(checkout.path) == f"rae_bench: {checkout.path}: cannot be written, and results/ goes there; " + (
        "allow writing there"
    )
