"""Training state on disk, so that a run that was stopped goes on where it was, to the same bytes.

The state lies beside the run's outputs in a folder that is no declared output: Snakemake deletes those of a failed job.
It is written whole or not at all, at an interval, when the process is asked to end (SIGTERM, SIGINT) and when the batch
job it runs in is about to be killed (`rae_bench.base.cluster`). It carries the fingerprint of everything the run
depends on, and is removed once the outputs exist.
"""

import logging
import math
import os
import shutil
import signal
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from rae_bench.base import storage
from rae_bench.base.cluster import StoppedError, stop_at

INTERVAL = "RAE_BENCH_CHECKPOINT_SECONDS"
"""The environment variable with the seconds between states. It changes no result, hence it belongs to no study."""
DEFAULT_INTERVAL = 60.0
LARGEST_SHARE = 0.02
"""The share of a training's time that its states may take: where saving is slow, they come less often."""
log = logging.getLogger(__name__)


class CheckpointError(ValueError):
    """An interval that is no number of seconds."""


@dataclass
class Checkpoint:
    """The state file of one run; `fingerprint` names all that decides its bytes: a state of another is not used."""

    path: Path
    fingerprint: str
    interval: float
    stop_at: float = math.inf
    _asked: threading.Event = field(default_factory=threading.Event)
    _last: float = field(default_factory=time.monotonic)
    _updates: int = 0
    _pause: float = 0.0

    @classmethod
    def beside(cls, output: Path, fingerprint: str) -> "Checkpoint":
        """The checkpoint of the run writing `output`; SIGTERM, SIGINT and its time limit end that once it is saved."""
        text = os.environ.get(INTERVAL, str(DEFAULT_INTERVAL))
        try:
            interval = float(text)
        except ValueError:
            interval = -1.0
        if not interval >= 0:  # not a number, too
            raise CheckpointError(f"{INTERVAL}: expected seconds, 0 or more, found {text!r}")
        made = cls(output.parent / "state" / f"{output.stem}.safetensors", fingerprint, interval, stop_at())
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, made._ask)
        return made

    def _ask(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002  a signal handler's signature
        self._asked.set()

    def is_due(self) -> bool:
        """Whether the state should be saved now; asked after every update, of which each attempt makes at least one."""
        self._updates += 1
        return self._must_end() or time.monotonic() - self._last >= max(self.interval, self._pause)

    def _must_end(self) -> bool:
        return self._asked.is_set() or time.time() >= self.stop_at

    def save(self, arrays: storage.Arrays, about: dict[str, Any]) -> None:
        """Write the state. One that cannot be written is a warning: a full disk may cost an interval, not the run.

        Raises:
            StoppedError: the process was asked to end, or its time is up; the state is on the disk, or the message says
                why not.
        """
        started = time.monotonic()
        about = {"fingerprint": self.fingerprint, "sha256": storage.arrays_sha256(arrays), **about}
        said = f"state saved in {self.path}"
        try:
            storage.write_arrays(self.path, arrays, about)
        except storage.StorageError as error:
            said = f"state not saved: {error}"
            log.warning("%s", said)
        self._last = time.monotonic()
        if self.interval:  # 0 is every update
            self._pause = (self._last - started) / LARGEST_SHARE
        if not self._must_end():
            return
        why = "asked to end" if self._asked.is_set() else "the job's time limit is near"
        done = f"{self._updates} update{'s' * (self._updates > 1)} in this attempt"
        hint = "" if self._asked.is_set() else "; runtime of train sets the limit, retries the number of attempts"
        raise StoppedError(f"{why}; {done}; {said}; the same command carries on{hint}")

    def load(self) -> tuple[storage.Arrays, dict[str, Any]] | None:
        """The state of this very run, or None: there is none, it is another run's, or not whole."""
        if not self.path.exists():
            return None
        try:
            arrays, about = storage.read_arrays(self.path)
        except storage.StorageError as error:
            log.warning("%s; starting afresh", error)
            return None
        if not isinstance(about, dict) or about.get("fingerprint") != self.fingerprint:
            log.warning("%s: of other settings, data or versions; starting afresh", self.path)
            return None
        if about.get("sha256") != storage.arrays_sha256(arrays):
            log.warning("%s: altered since it was written; starting afresh", self.path)
            return None
        return arrays, about

    def remove(self) -> None:
        """Forget the state, and what killed writers left of it: the outputs exist."""
        shutil.rmtree(self.path.parent, ignore_errors=True)
