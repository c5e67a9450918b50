"""One holder of a file at a time, on one machine or on many that share a file system.

Two signs together. The kernel's lock (flock) ends with its holder, however that ends: on one host it alone decides, at
once. Between hosts it cannot be relied on: some network file systems keep it on each node, some refuse it. So a holder
also writes its host, process and the time into the file, anew every BEAT seconds; another host takes over when that is
older than STALE. A holder that finds another's name in its file (it was suspended, or cut off) ends its process at
once: all files here are written whole, so the other is not harmed.

The library `filelock` has each of the two signs alone, without a beat: its kernel's lock knows one host, its lock by
a file's existence outlives a host that died, and neither names the holder to whoever waits.
"""

import contextlib
import errno
import fcntl
import json
import logging
import math
import os
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rae_bench.base.cluster import STOPPED
from rae_bench.base.storage import explained

HOST = socket.gethostname()
BEAT = 15.0
"""Seconds from one sign of life to the next."""
STALE = 120.0
"""Seconds without a sign of life after which a holder on another host is taken for dead: above any cache of attributes
that network file systems keep (60 by default)."""
LENGTH = 512
"""Bytes of a sign of life: a host's name has at most 255."""
NO_FLOCK = (errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK)
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Holder:
    """Who holds a file: `since` and `beat`, its last sign of life, in Unix time."""

    host: str
    pid: int
    since: float
    beat: float

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} (last sign of life {max(time.time() - self.beat, 0):.0f} s ago)"


class HeldError(RuntimeError):
    """Another process holds the file; the message names it."""


@contextlib.contextmanager
def locked(
    path: Path, patience: float = math.inf, stale: float = STALE, beat: float = BEAT, busy: str = "held by"
) -> Iterator[bool]:
    """Hold `path` while the body runs; yields whether another process had it first.

    Raises:
        HeldError: another process still holds it after `patience` seconds; `busy` begins the message that names it.
        StorageError: the file cannot be written.
    """
    with contextlib.ExitStack() as stack:
        with explained(path):
            fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        stack.callback(os.close, fd)
        waited = _acquire(path, fd, patience, stale, beat, busy)
        me = Holder(HOST, os.getpid(), time.time(), time.time())
        with explained(path):
            _write(fd, me)
        ended = threading.Event()
        thread = threading.Thread(target=_stay_alive, args=(path, fd, me, beat, ended), daemon=True)
        thread.start()
        try:
            yield waited
        finally:
            ended.set()
            thread.join()
            if _is_ours(path, me):
                with contextlib.suppress(OSError):  # no disk: then it goes stale
                    os.ftruncate(fd, 0)


def holder(path: Path, stale: float = STALE) -> Holder | None:
    """Who holds `path`, as far as this host can tell; None if nobody does."""
    try:
        with path.open("rb") as handle:
            is_free = _flock(handle.fileno(), fcntl.LOCK_SH)
    except OSError:
        return None
    found = _read(path)
    if is_free is False:
        return found or Holder("?", 0, 0.0, time.time())
    return None if found is None or _is_gone(found, is_free, stale) else found


def _acquire(path: Path, fd: int, patience: float, stale: float, beat: float, busy: str) -> bool:
    """Wait for the file; return whether that was needed."""
    began = since = time.monotonic()
    seen: Holder | None = None
    waited = False
    while True:
        is_free = _flock(fd, fcntl.LOCK_EX)
        found = _read(path)
        if found != seen:
            seen, since = found, time.monotonic()
        # clocks differ: what looks old must also be seen not to move
        is_silent = time.monotonic() - since > 1.5 * beat or (found is not None and found.host == HOST)
        if is_free is not False and (found is None or (_is_gone(found, is_free, stale) and is_silent)):
            return waited
        if is_free:
            fcntl.flock(fd, fcntl.LOCK_UN)
        if time.monotonic() - began >= patience:
            raise HeldError(f"{busy} {found or 'a process that has just begun'}; wait for it or end it")
        if not waited and found is not None and is_free is not False:
            log.info("%s: held by %s; waiting", path, found)
        waited = True
        time.sleep(min(2.0, 0.1 + (time.monotonic() - began) / 10))


def _is_gone(found: Holder, is_free: bool | None, stale: float) -> bool:
    """Whether the holder named in a file that no kernel lock here protects has ended."""
    if is_free and found.host == HOST:
        return True  # its lock would be seen here
    return time.time() - found.beat > stale


def _flock(fd: int, kind: int) -> bool | None:
    """Take the kernel's lock: whether it was free; None where there are no such locks."""
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in NO_FLOCK:
            return None
        raise
    return True


def _stay_alive(path: Path, fd: int, me: Holder, beat: float, ended: threading.Event) -> None:
    while not ended.wait(beat):
        if not _is_ours(path, me):
            log.error("%s: taken over by %s; this process, %d on %s, ends", path, _read(path), me.pid, me.host)
            os._exit(STOPPED)
        try:
            _write(fd, replace(me, beat=time.time()))
        except OSError as error:
            log.warning("%s: no sign of life can be written: %s", path, error.strerror)


def _is_ours(path: Path, me: Holder) -> bool:
    """Whether nobody else has written their name; a file that is gone or empty was deleted, not taken."""
    found = _read(path)
    return found is None or replace(found, beat=me.beat) == me


def _read(path: Path) -> Holder | None:
    """The holder that the file names; opened anew each time, for only then a network file system looks for changes."""
    try:
        return Holder(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def _write(fd: int, me: Holder) -> None:
    """Write in place, as a new file would not carry the kernel's lock, at one stroke, seen whole or not at all."""
    os.pwrite(fd, json.dumps(asdict(me)).encode().ljust(LENGTH), 0)
    os.fsync(fd)
