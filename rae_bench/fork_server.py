"""The process that has loaded the libraries and forks to be each stage: the heavy half of `rae_bench.fork_client`.

`python -m rae_bench.fork_server SOCKET DRIVER COMPUTE`, started by the Snakefile with two open files: the socket it
listens at and the driver's process. It ends when that does. It runs no numerical code and opens none of the files of a
study: what a fork inherits is code. A stage's modules are loaded when that stage is first asked for, before the fork,
and their core time is added to that stage's imports, as is that of forking: nothing that a study costs goes uncounted.
"""

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import sys
import threading
import time
import traceback
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from rae_bench import cli, fork_client, jobs, loads, specs
from rae_bench.plain import parse
from rae_bench.process import configure


def main(handle: int, ended: int, compute: specs.Compute) -> NoReturn:
    """Serve the socket that is open as `handle` until the process that is open as `ended` has ended."""
    configure(compute)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # stages may have to save their state; the driver's end is the sign
    signal.signal(signal.SIGCHLD, _reap)  # stages tell their status themselves
    listening = socket.socket(fileno=handle)
    counted = 0.0
    while ended not in select.select([listening.fileno(), ended], [], [])[0]:
        connection, _ = listening.accept()
        with connection:
            connection.settimeout(10)
            try:
                counted = _serve(connection, listening, ended, counted)
            except (OSError, ValueError) as error:
                print(f"rae_bench.fork_server: {error}", file=sys.stderr)  # the process that asked is the stage itself
    shutil.rmtree(Path(listening.getsockname()).parent, ignore_errors=True)
    with contextlib.suppress(ChildProcessError):
        while True:  # stages that save their state
            os.waitpid(-1, 0)
    os._exit(0)  # as `rae_bench.__main__` does


def _reap(number: int, frame: FrameType | None) -> None:  # noqa: ARG001  a signal handler's signature
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _serve(connection: socket.socket, listening: socket.socket, ended: int, counted: float) -> float:
    """Be the stage that is asked for, in a fork; the core time of this process that stages have been charged with."""
    length, streams, _, _ = socket.recv_fds(connection, 4, 3)
    try:
        data = b""
        while len(data) < int.from_bytes(length, "big") and (part := connection.recv(fork_client.LENGTH)):
            data += part
        request = json.loads(data)
        if request["identity"] != fork_client.identity() or not _load(request["arguments"]):
            connection.sendall(bytes(4))
            return counted
        spent = time.process_time()
        child = os.fork()
        if child == 0:
            listening.close()
            os.close(ended)
            _be(request, connection, streams, spent - counted)
        connection.sendall(child.to_bytes(4, "big"))
        return spent
    finally:
        for stream in streams:
            os.close(stream)


def _load(arguments: list[str]) -> bool:
    """Import what the stage will; False if that fails, which the stage itself will say better."""
    try:
        options = cli.parse_arguments(arguments)
        if arguments[0] == "fit":
            loads.load(loads.of_density(parse(specs.FitSpec, json.loads(options.spec), "--spec").density))
        else:
            loads.load(loads.STAGES[arguments[0]])
    except (Exception, SystemExit):
        return False
    return True


def _be(request: dict[str, Any], connection: socket.socket, streams: list[int], spent: float) -> NoReturn:
    """Run the stage in this fork as its process would have, and tell how it ended."""
    status = 1
    try:
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.environ.clear()
        os.environ.update(request["environment"])
        os.chdir(request["folder"])
        for place, stream in enumerate(streams):
            os.dup2(stream, place)
            os.close(stream)
        connection.settimeout(None)
        threading.Thread(target=_end_with, args=(connection,), daemon=True).start()
        jobs.charge(spent + request["cpu"])
        cli.main(request["arguments"])
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        if status and not isinstance(end.code, int):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        connection.sendall(bytes([status]))
        os._exit(status)


def _end_with(connection: socket.socket) -> None:
    """End when the process that asked was killed: who kills a stage's process means the stage."""
    if not connection.recv(1):
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), parse(specs.Compute, json.loads(sys.argv[3]), "compute"))
