"""Code of a user's own: found and hashed without running, loaded once, and its faults told with file and line."""

import sys

import pytest

from rae_bench.base import own
from rae_bench.base.own import OwnCodeError
from rae_bench.base.plain import ConfigError


@pytest.fixture
def write(tmp_path):
    def write(text, name="mine.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return tmp_path

    return write


def found(folder, text="mine.py:Mine", **settings):
    return own.found(text, folder, settings, "study.yaml.own.code")


def test_what_is_found_is_not_run(write):
    folder = write("raise SystemExit('it ran')\nclass Mine: ...\n")
    assert found(folder).name == "Mine"


def test_it_is_made_with_its_settings_and_once_in_a_process(write):
    folder = write(
        "MADE = []\nclass Mine:\n    def __init__(self, a, b):\n        MADE.append(1)\n        self.sum = a + b\n"
    )
    code = found(folder, b=2)
    assert code.make(a=1).sum == 3
    code.make(a=1)
    assert len(sys.modules[type(code.make(a=1)).__module__].MADE) == 3


def test_the_hash_is_of_the_file_and_of_what_it_imports_from_beside_itself(write):
    folder = write("import torch\nfrom helper import f\nimport package.inner\n\nclass Mine: ...\n")
    write("import deeper\ndef f(): ...\n", "helper.py")
    write("X = 1\n", "deeper.py")
    write("", "package/__init__.py")
    write("Y = 1\n", "package/inner.py")
    write("Z = 1\n", "unrelated.py")
    before = found(folder).sha256
    write("Z = 2\n", "unrelated.py")
    assert found(folder).sha256 == before
    for name in ("deeper.py", "helper.py", "package/inner.py", "package/__init__.py", "mine.py"):
        was = found(folder).sha256
        path = folder / name
        path.write_text(path.read_text() + "# edited\n")
        assert found(folder).sha256 != was, name


def test_it_imports_what_lies_beside_it(write):
    folder = write("from beside_it import VALUE\n\ndef mine():\n    return VALUE\n")
    write("VALUE = 7\n", "beside_it.py")
    assert found(folder, "mine.py:mine").make() == 7


@pytest.mark.parametrize(
    ("text", "content", "told"),
    [
        ("mine.py", "", "'mine.py' is not FILE.py:NAME, a Python file and a class or function in it"),
        ("mine:Mine", "", "'mine:Mine' is not FILE.py:NAME"),
        ("mine.py:a b", "", "'mine.py:a b' is not FILE.py:NAME"),
        ("other.py:Mine", "", "other.py: no such file; a relative path starts at the study's file"),
        (
            "mine.py:Mine",
            "class Mien: ...\n",
            "class or function in {folder}/mine.py 'Mine'; did you mean 'Mien'?",
        ),
        ("mine.py:Mine", "x = 1\nclass Mine\n", "{folder}/mine.py:2: no Python: expected ':'"),
        ("mine.py:Mine", "x = '\0'\n", "{folder}/mine.py: no Python: "),
    ],
)
def test_what_names_no_code_is_one_line(text, content, told, write):
    folder = write(content)
    with pytest.raises(ConfigError) as error:
        found(folder, text)
    assert told.format(folder=folder) in str(error.value)
    assert str(error.value).startswith("study.yaml.own.code: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (
            "import no_such_module\nclass Mine: ...\n",
            "{mine}:1: its import fails: ModuleNotFoundError: No module",
        ),
        ("def f():\n    return 1 / 0\nx = f()\nclass Mine: ...\n", "{mine}:2: its import fails: ZeroDivisionError: "),
        ("class Mine:\n    def __init__(self):\n        self.x = undefined\n", "{mine}:3: Mine fails: NameError: "),
        ("class Mine:\n    def __init__(self, width): ...\n", "{mine}: Mine fails: TypeError: "),
        (
            "import helper_with_fault\nclass Mine: ...\n",
            "{folder}/helper_with_fault.py:2: its import fails: KeyError:",
        ),
        ("Mine = 3\n", "{mine}:Mine: expected a class or a function, found int"),
    ],
)
def test_what_fails_is_one_line_with_the_users_file_and_line(content, told, write):
    folder = write(content)
    write("\n{}['a']\n", "helper_with_fault.py")
    with pytest.raises(OwnCodeError) as error:
        found(folder).make()
    assert str(error.value).startswith(told.format(mine=folder / "mine.py", folder=folder))
    assert "\n" not in str(error.value)


def test_code_that_has_changed_since_the_study_was_read_is_refused(write):
    folder = write("class Mine: ...\n")
    code = found(folder)
    write("class Mine:\n    other = 1\n")
    with pytest.raises(
        OwnCodeError, match=r"mine\.py: it, or a file that it imports, has changed since the study was read"
    ):
        code.make()


def test_too_little_memory_stays_what_it_is(write):
    folder = write("def mine():\n    raise MemoryError('much')\n")
    with pytest.raises(MemoryError):
        found(folder, "mine.py:mine").make()
