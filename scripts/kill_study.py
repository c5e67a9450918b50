"""Does a study survive SIGKILLs? Run with [--kills 50] [--seed 0] [--study smoke] [--cores 2] [--undisturbed CHECKOUT].

In a copy of the repository the study's command is given, and killed at random times: the driver (Snakemake), a random
stage process, or the whole process group. Whenever the command has ended, however it did, the very same one is given
again; nothing else is done by hand. The kills are spread over the study's whole life: each waits for a random number of
jobs to be done, then for a random time. At the end every file that is promised to be the same bytes is compared with
those of an undisturbed run, made here too unless `--undisturbed` names a copy that holds one. Ends with status 1 if
the study does not finish, a byte differs, fewer kills were made than asked for, or a process or temporary file is left.
"""

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]  # beside this script, not an installed copy

from checkout import Checkout, differing  # noqa: E402

from rae_bench.base.checkpoints import INTERVAL  # noqa: E402
from rae_bench.run.jobs import study_jobs  # noqa: E402
from rae_bench.study.config import load_study  # noqa: E402

KINDS = ("driver", "stage", "group")
LONGEST_WAIT = 8.0
"""Seconds: a command's start and the imports of its first stages, or the whole of most stages."""
ATTEMPTS = 3
"""Commands after the last kill: the one that was under way may end in the failure of a killed stage."""


@dataclass(frozen=True)
class Kill:
    """Of what, `wait` seconds after `done` jobs were done; `choice` in [0, 1) picks among the stages at work."""

    kind: str
    done: int
    wait: float
    choice: float


def planned(kills: int, seed: int, jobs: int) -> list[Kill]:
    """So many kills in the order of their progress, the same for the same seed."""
    chance = random.Random(seed)
    points = sorted(chance.randrange(jobs - 1) for _ in range(kills))
    return [Kill(chance.choice(KINDS), done, chance.uniform(0, LONGEST_WAIT), chance.random()) for done in points]


class Victim:
    """A study's command in a copy of the repository, given again whenever it has ended."""

    def __init__(self, checkout: Checkout, study: str, cores: int) -> None:
        self.checkout, self.study, self.cores = checkout, study, cores
        jobs = study_jobs(load_study(study), checkout.results)
        self.outputs = [job.output for job in jobs if job.read_by is None]  # others are removed once they are read
        self.commands = 0
        self.give()

    def give(self) -> None:
        """Give the command."""
        self.driver = self.checkout.start(study=self.study, cores=self.cores, start_new_session=True)
        self.commands += 1

    def is_over(self) -> bool:
        """Whether the command has ended well; one that has not is given again."""
        if self.driver.poll() is None:
            return False
        if self.driver.returncode == 0:
            return True
        self.give()
        return False

    def done(self) -> int:
        """Jobs whose output is there."""
        return sum(output.exists() for output in self.outputs)

    def stages(self) -> dict[int, str]:
        """The stage processes at work: name by process id."""
        found = {}
        for pid, command in self.checkout.processes().items():
            words = command.split()
            if "rae_bench" in words[:4] and "-m" in words[:3] and "python" in Path(words[0]).name:
                found[pid] = words[words.index("rae_bench") + 1]
        return found

    def kill(self, kill: Kill) -> str | None:
        """Carry `kill` out and say what was killed; None if there is no stage to be killed."""
        stages = self.stages()
        at_work = ", ".join(sorted(stages.values())) or "none"
        match kill.kind:
            case "stage":
                if not stages:
                    return None
                pid = sorted(stages)[int(kill.choice * len(stages))]
                os.kill(pid, signal.SIGKILL)
                return f"stage {stages[pid]} ({pid}) of {at_work}"
            case "driver":
                self.driver.kill()
            case "group":
                os.killpg(self.driver.pid, signal.SIGKILL)
        self.driver.wait()
        self.give()
        return f"{kill.kind}; stages at work: {at_work}"


def disturb(victim: Victim, kills: list[Kill]) -> Counter[str]:
    """Make every kill; how many of each kind were made before the study was over."""
    made: Counter[str] = Counter()
    started = time.monotonic()
    for number, kill in enumerate(kills, 1):
        while victim.done() < kill.done and not victim.is_over():
            time.sleep(0.05)
        deadline = time.monotonic() + kill.wait
        while time.monotonic() < deadline and not victim.is_over():
            time.sleep(0.02)
        while not victim.is_over():
            try:
                what = victim.kill(kill)
            except ProcessLookupError:  # it ended between the look and the kill
                what = None
            if what is not None:
                made[kill.kind] += 1
                print(
                    f"{number:3} {time.monotonic() - started:7.1f} s, {victim.done():2} of {len(victim.outputs)} jobs"
                    f" done: {what}",
                    flush=True,
                )
                break
            time.sleep(0.02)
    return made


def finish(victim: Victim) -> bool:
    """Wait for the end of the command under way, and of those given again after it."""
    last = victim.commands + ATTEMPTS
    while not victim.is_over():
        if victim.commands > last:
            return False
        time.sleep(0.1)
    return True


def leftovers(checkout: Checkout) -> list[str]:
    """Processes, temporary files and training states that a finished study must not leave."""
    found = [f"process {pid}: {command[:60]}" for pid, command in checkout.processes().items()]
    files = [*checkout.results.rglob("*.tmp"), *checkout.results.rglob("state"), *checkout.path.rglob("core")]
    return found + [str(path.relative_to(checkout.path)) for path in files]


def main() -> int:
    """Print every kill and a verdict."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--study", default="smoke")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--undisturbed", type=Path, help="a copy of the repository in which the study has run")
    options = parser.parse_args()
    os.environ.setdefault(INTERVAL, "1")  # trainings of seconds: some kills must come upon a state, and upon its write

    folder = Path(tempfile.mkdtemp(prefix="kill_study."))
    print(f"seed {options.seed}, {options.kills} kills of study {options.study}, in {folder}", flush=True)
    undisturbed = options.undisturbed
    if undisturbed is None:
        undisturbed = folder / "undisturbed"
        undisturbed.mkdir()
        began = time.monotonic()
        ended = Checkout(undisturbed).snakemake(study=options.study, cores=options.cores)
        if ended.returncode:
            print(ended.stdout + ended.stderr)
            return 1
        print(f"undisturbed: {time.monotonic() - began:.0f} s", flush=True)

    (folder / "killed").mkdir()
    checkout = Checkout(folder / "killed")
    victim = Victim(checkout, options.study, options.cores)
    try:
        made = disturb(victim, planned(options.kills, options.seed, len(victim.outputs)))
        finished = finish(victim)
    finally:
        if victim.driver.poll() is None:
            victim.driver.kill()
            victim.driver.wait()
    time.sleep(1.0)  # for the last processes to be gone
    different = differing(checkout.results, undisturbed / "results")
    left = leftovers(checkout)
    for line in [*(f"differs: {path}" for path in different), *(f"left: {line}" for line in left)]:
        print(line)
    counts = ", ".join(f"{made[kind]} {kind}" for kind in KINDS)
    print(
        f"{sum(made.values())} kills ({counts}), {victim.commands} commands:"
        f" {'finished' if finished else 'NOT FINISHED'}, {len(different)} files differ, {len(left)} left behind"
    )
    well = finished and not different and not left and sum(made.values()) == options.kills
    if well:
        shutil.rmtree(folder)
    else:
        print((checkout.path / "driver.log").read_text()[-3000:])
    print("verdict: the same bytes" if well else f"verdict: NO; look in {folder}")
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
