"""One holder at a time: on one host by the kernel's lock, between hosts by signs of life."""

import contextlib
import errno
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from checkout import ROOT, environment

from rae_bench.base import locks
from rae_bench.base.cluster import STOPPED
from rae_bench.base.locks import HOST, HeldError, holder, locked
from rae_bench.base.storage import StorageError

BEAT, STALE = 0.1, 1.0
HOLDER = """
import sys, time
from pathlib import Path
from rae_bench.base import locks

path, locks.HOST, seconds = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
if locks.HOST != "here":
    locks.fcntl.flock = lambda fd, kind: None  # as where each node keeps its own kernel's locks
else:
    import socket
    locks.HOST = socket.gethostname()
with locks.locked(path, beat=0.1, stale=1.0):
    print("held", time.time(), flush=True)
    time.sleep(seconds)
    print("left", time.time(), flush=True)
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.lock"


@contextlib.contextmanager
def _process(path, host, seconds=60):
    """Another process, on this host ("here") or as if on another, that holds or will hold `path`."""
    command = [sys.executable, "-c", HOLDER, str(path), host, str(seconds)]
    with subprocess.Popen(command, env=environment(ROOT), stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@contextlib.contextmanager
def _holding(path, host, seconds=60):
    with _process(path, host, seconds) as process:
        assert process.stdout.readline().startswith("held")
        yield process


def _plant(path, **changes):
    entry = {"host": "elsewhere", "pid": 4711, "since": 0.0, "beat": time.time(), **changes}
    with path.open("r+b" if path.exists() else "wb", buffering=0) as file:
        file.write(json.dumps(entry).encode().ljust(locks.LENGTH))  # at one stroke, as holders do
    return entry


def _take(path, patience=20.0):
    """Seconds it took to hold `path`, and whether another had it."""
    began = time.monotonic()
    with locked(path, patience, STALE, BEAT) as waited:
        return time.monotonic() - began, waited


def test_a_file_that_nobody_holds_is_taken_at_once_and_given_back(path):
    with locked(path) as waited:
        assert not waited
        found = json.loads(path.read_text())
        assert (found["host"], found["pid"]) == (HOST, os.getpid())
        assert abs(found["beat"] - time.time()) < 5
    assert path.read_text() == ""
    assert holder(path) is None


@pytest.mark.parametrize("text", ["", "4711", "not JSON", '{"host": "elsewhere"}'])
def test_a_file_that_names_nobody_is_free(path, text):
    path.write_text(text)
    assert not _take(path)[1]


@pytest.mark.parametrize("host", ["here", "elsewhere"])
def test_a_holder_that_lives_is_named_to_a_second(path, host):
    with _holding(path, host) as process:
        time.sleep(2 * STALE)  # its signs of life are what keeps it
        name = HOST if host == "here" else host
        expected = rf"^held by process {process.pid} on {name} \(last sign of life \d s ago\); wait for it or end it$"
        with pytest.raises(HeldError, match=expected):
            _take(path, patience=0.3)
        assert holder(path, STALE).pid == process.pid


def test_on_one_host_a_killed_holder_is_followed_at_once(path):
    with _holding(path, "here") as process:
        process.kill()
        process.wait()
        assert holder(path) is None
        seconds, waited = _take(path)
    assert not waited
    assert seconds < STALE


def test_a_killed_holder_on_another_host_is_followed_when_its_sign_of_life_is_old(path):
    with _holding(path, "elsewhere") as process:
        process.kill()
        process.wait()
        seconds, waited = _take(path)
    assert waited
    assert STALE - 2 * BEAT < seconds < 10 * STALE
    assert holder(path) is None


def test_a_holder_that_ends_is_followed_at_once_from_any_host(path):
    with _holding(path, "elsewhere", seconds=0.5):
        seconds, waited = _take(path)
    assert waited
    assert seconds < STALE


def test_an_old_sign_is_watched_before_it_is_believed(path):
    """Clocks differ between hosts: what another's clock dates far back may be the sign of a moment ago."""
    _plant(path, beat=time.time() - 3600)
    seconds, waited = _take(path)
    assert waited
    assert 1.5 * BEAT < seconds < STALE

    ended = threading.Event()

    def live():
        while not ended.wait(BEAT / 2):
            _plant(path, beat=time.time() - 3600)

    _plant(path, beat=time.time() - 3600)
    thread = threading.Thread(target=live)
    thread.start()
    try:
        with pytest.raises(HeldError, match="process 4711 on elsewhere"):
            _take(path, patience=2 * STALE)
    finally:
        ended.set()
        thread.join()


@pytest.mark.parametrize("error", [errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK])
def test_without_kernel_locks_signs_of_life_decide_on_one_host_too(path, monkeypatch, error):
    def refuse(fd, kind):  # noqa: ARG001
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(locks.fcntl, "flock", refuse)
    _plant(path, host=HOST)
    assert holder(path, STALE).pid == 4711
    with pytest.raises(HeldError, match=f"process 4711 on {HOST}"):
        _take(path, patience=0.2)
    seconds, waited = _take(path)
    assert waited
    assert seconds < 10 * STALE


def test_a_suspended_holder_that_was_followed_ends_when_it_wakes(path):
    with _holding(path, "elsewhere") as process:
        process.send_signal(signal.SIGSTOP)
        with locked(path, 20.0, STALE, BEAT):
            process.send_signal(signal.SIGCONT)
            assert process.wait(timeout=20) == STOPPED
            assert holder(path, STALE).pid == os.getpid()
    assert holder(path, STALE) is None


def test_of_many_at_once_one_holds_at_a_time(path):
    """Without the kernel's help two may begin within the same moment: then one of them ends before the first beat is
    over, and those that go on to their end have had the file to themselves but for that moment."""
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(_process(path, f"node{i}", seconds=1)) for i in range(5)]
        outputs = [process.communicate(timeout=60)[0].split() for process in processes]
    codes = [process.returncode for process in processes]
    assert set(codes) <= {0, STOPPED}
    assert 0 in codes
    times = sorted((float(out[1]), float(out[3])) for out, code in zip(outputs, codes, strict=True) if code == 0)
    for (_, left), (held, _) in itertools.pairwise(times):
        assert held > left - 2 * BEAT


def test_who_holds_is_told_without_touching_the_file(path):
    assert holder(path) is None
    assert not path.exists()
    planted = _plant(path)
    assert holder(path) == locks.Holder(**planted)
    _plant(path, beat=time.time() - 2 * locks.STALE)
    assert holder(path) is None
    _plant(path, host=HOST)  # nobody has the kernel's lock on this very host
    assert holder(path) is None


def test_a_deleted_file_harms_nobody(path):
    with locked(path, beat=BEAT):
        path.unlink()
        time.sleep(3 * BEAT)
    assert not path.exists()


def test_a_file_that_cannot_be_made_is_an_error_of_the_suite(tmp_path):
    with pytest.raises(StorageError, match=r"run\.lock: cannot be written"), locked(tmp_path / "missing" / "run.lock"):
        pass
