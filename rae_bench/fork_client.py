"""Asking a process that has loaded the libraries already to be the stage: the light half of `rae_bench.fork_server`.

Loading torch, scikit-learn and pandas took 1 to 3 s of a core in each of 150 processes of `digits`, a sixth of the
study. The Snakefile therefore starts one process, the fork server, that loads what a stage imports when it is first
asked for, and forks: the fork is the stage, with its own locks, state and memory. `python -m rae_bench STAGE` passes on
its arguments, environment, folder and streams, waits, and ends as the stage ends. Where there is no fork server, or one
of another environment or checkout, it is the stage itself, as on a cluster.
"""

import contextlib
import json
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

ADDRESS = "RAE_BENCH_FORK_SERVER"
"""Environment variable: path of the socket at which the fork server of this Snakemake listens."""
STAGES = ("reference", "floor", "train", "fit", "evaluate", "protocols")
"""What it may be: stages that say with how many threads the libraries are to be loaded."""
KILLED = 128 + signal.SIGKILL
"""Exit status, as a shell's, of a stage that ended without saying how."""
LENGTH = 2**20
"""Bytes of a request at most: the settings of a study's stage take a few thousand."""


def identity() -> list[str]:
    """What must be the same for a fork to be the process that was asked for: interpreter, environment, package."""
    return [sys.version, sys.prefix, *sys.path, __file__]


def hand_over(arguments: list[str]) -> None:
    """Let the fork server run the stage of `arguments` and end this process as it ended; return where it cannot."""
    address = os.environ.get(ADDRESS)
    if address is None or not arguments or arguments[0] not in STAGES:
        return
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(address)
            child = _ask(connection, arguments)
            if child is None:
                return
        except OSError:
            return
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, _passing_on(child))
        try:
            said = connection.recv(1)
        except OSError:
            said = b""
        os._exit(said[0] if said else KILLED)


def _ask(connection: socket.socket, arguments: list[str]) -> int | None:
    """The process that is the stage; None if the fork server declines."""
    request = {
        "arguments": arguments,
        "environment": dict(os.environ),
        "folder": str(Path.cwd()),
        "identity": identity(),
        "cpu": time.process_time(),
    }
    data = json.dumps(request).encode()
    if len(data) > LENGTH:
        return None
    socket.send_fds(connection, [len(data).to_bytes(4, "big")], [0, 1, 2])
    connection.sendall(data)
    answer = connection.recv(4)
    return int.from_bytes(answer, "big") or None


def _passing_on(child: int) -> Callable[[int, FrameType | None], None]:
    def pass_on(number: int, frame: FrameType | None) -> None:  # noqa: ARG001  a signal handler's signature
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number)

    return pass_on


def start(compute: str) -> None:
    """Start the fork server of this process, which is Snakemake: it ends with it. `compute`: the study's, as JSON."""
    import subprocess

    folder = Path(tempfile.mkdtemp(prefix="rae_bench-"))  # nobody else may enter
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "socket"))
        listening.listen(64)
        driver = os.pidfd_open(os.getpid())  # here, where this process is still alive
        handles = [listening.fileno(), driver]
        command = [sys.executable, "-m", "rae_bench.fork_server", *map(str, handles), compute]
        subprocess.Popen(command, pass_fds=handles, stdin=subprocess.DEVNULL)
        os.close(driver)
    os.environ[ADDRESS] = str(folder / "socket")
