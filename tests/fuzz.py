"""A fuzzer of what users hand to the suite: study files, folders of images, feature files.

    python tests/fuzz.py --minutes 10 --seed 0 [--kind studies|images|features] [--case NUMBER]

Each case is made from its number and run by the real entry points, in a forked process. It must succeed, or be refused
in one line of at most LONGEST characters: a traceback, anything on stderr beside the log, a hang, a crash, or a wrong
result (of each kind, its module says which) is a finding: a folder with the case's files and `finding.json`.

It needs Linux.
"""

import argparse
import contextlib
import dataclasses
import faulthandler
import json
import os
import random
import re
import resource
import shutil
import sys
import time
import traceback
import unicodedata
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":
    for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[_name] = "1"  # threads do not survive a fork
    sys.path.insert(0, str(Path(__file__).parent.parent))  # the package beside these tests, whichever is installed

import fuzz_features
import fuzz_images
import fuzz_studies
from fuzz_cases import Ended

from rae_bench.study import loads

LIBTIFFS = re.compile(r"_?[A-Z]\w*: .*|tempfile\.tif: .*")
"""libtiff says on the process's stderr, from C, what it thinks of a damaged file, before Pillow raises."""
LONG_NAME = re.compile(r"[^/\s]{60,}")
"""A message repeats the path of the file at fault, whatever its length."""
KINDS = {"studies": fuzz_studies, "images": fuzz_images, "features": fuzz_features}
"""Each has `make` and names in `LOADS` what its commands load: before the first fork, so that every case has it."""
LONGEST = 400
"""Characters of a message. A person reads no more."""
ENOUGH = 100
"""Cases of which some succeed."""
LIMIT = 60.0
"""Seconds after which a case hangs; it takes less than one on an idle core."""
MOST_BYTES = 3 * 2**30
"""What a case may hold beyond what it starts with: a file that claims terabytes must not take the machine along."""
LOGGED = re.compile(r"\d\d:\d\d:\d\d rae_bench")


@dataclass(frozen=True)
class Finding:
    """What is wrong with a case: `what` is the same for all cases with the same fault, `detail` is this one's."""

    what: str
    detail: str


# --- running one case -------------------------------------------------------------------------------------


def findings(run, place, limit=LIMIT):
    """Everything wrong with `run`, called in a forked process whose output goes to files in the folder `place`."""
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        _be_the_child(run, place, limit)
    _, status = os.waitpid(child, 0)
    said = (place / "stderr").read_text(errors="replace")
    if (place / "ended.json").exists():
        return list(_wrong(json.loads((place / "ended.json").read_text()), said))
    code = os.waitstatus_to_exitcode(status)
    what = f"crash by signal {-code}" if code < 0 else f"exit {code} on the spot"
    if "Timeout (" in said:
        what = f"hang of more than {limit:g} s"
    return [Finding(f"{what}, {_place_in(said)}", said[-2000:])]


def _be_the_child(run, place, limit):
    """Run, write what came of it, and end this process, whatever happens."""
    with (place / "stdout").open("wb") as out, (place / "stderr").open("wb") as err:
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, (_held() + MOST_BYTES,) * 2)
    sys.stdout, sys.stderr = (open(fd, "w", closefd=False, errors="backslashreplace") for fd in (1, 2))  # noqa: SIM115
    faulthandler.enable(2)
    faulthandler.dump_traceback_later(limit, exit=True, file=2)
    ended, raised, site = Ended(None), None, ""
    try:
        ended = run()
    except BaseException as error:  # what a user would see as a traceback
        raised = "".join(traceback.format_exception(error))
        site = f"{type(error).__name__} in {_site(error)}"
    sys.stderr.flush()
    text = json.dumps({**dataclasses.asdict(ended), "raised": raised, "site": site})
    (place / "ended.json").write_text(text)
    os._exit(0)


def _held():
    """Bytes of data that this process has mapped."""
    found = re.search(r"VmData:\s*(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) * 1024 if found else 0


def _site(error):
    """The innermost function of the suite's own that a traceback goes through."""
    frames = traceback.extract_tb(error.__traceback__)
    innermost = ([frame for frame in frames if "/rae_bench/" in frame.filename] or frames)[-1]
    return f"{Path(innermost.filename).name}, {innermost.name}"


def _place_in(said):
    """The innermost function of the suite's own in a stack that faulthandler wrote, the innermost first."""
    thread = said.partition("Current thread")[2].partition("\n\n")[0] or said
    own = re.search(r'/rae_bench/([\w/]+\.py)", line \d+ in (\w+)', thread)
    return f"in {own[1]}, {own[2]}" if own else "in no function of the suite"


# --- judging it -------------------------------------------------------------------------------------------


def _wrong(ended, said):
    """Everything wrong with how a case ended, and with what it said on stderr."""
    if ended["raised"]:
        yield Finding(f"traceback: {ended['site']}", ended["raised"])
    if (message := ended["refusal"]) is not None:
        if not re.match(r"rae_bench \w+: .", message):
            yield Finding(f"a message without its command: {_likeness(message)}", message)
        if any(unicodedata.category(sign) in ("Cc", "Cs", "Zl", "Zp") for sign in message):  # controls, line ends
            yield Finding(f"a message that is no line of printable text: {_likeness(message)}", ascii(message))
        if len(LONG_NAME.sub("name", message)) > LONGEST:
            yield Finding(f"a message of more than {LONGEST} characters: {_likeness(message)}", message)
    yield from (Finding(_likeness(complaint), complaint) for complaint in ended["complaints"])
    beside = [line for line in said.splitlines() if not (LOGGED.match(line) or LIBTIFFS.match(line))]
    if beside:
        yield Finding(f"on stderr beside the log: {_likeness(beside[0])}", "\n".join(beside)[:2000])


def _likeness(text):
    """What texts about the same fault have in common: no paths, quotations or numbers."""
    for pattern, name in ((r"\S*/[^\s:]+", "PATH"), (r"'[^']*'|\"[^\"]*\"", "TEXT"), (r"[-+]?\d[\w.,+-]*", "N")):
        text = re.sub(pattern, name, text)
    return ascii(text[:110])[1:-1]


# --- many cases -------------------------------------------------------------------------------------------


def fuzz_one(kind, seed, number, out):
    """Make and run one case; its findings, and the folder of its files, which stays only if there are any."""
    folder = out / f"{kind}-{seed}-{number}"
    shutil.rmtree(folder, ignore_errors=True)
    files = folder / "files"
    files.mkdir(parents=True)
    case = KINDS[kind].make(random.Random(f"{kind} {seed} {number}"), files)
    found = findings(case.run, folder)
    if not found:
        refused = json.loads((folder / "ended.json").read_text())["refusal"] is not None
        shutil.rmtree(folder)
        return found, refused
    again = f"python tests/fuzz.py --kind {kind} --seed {seed} --case {number}"
    about = {"again": again, "by_hand": case.repeat, "findings": [dataclasses.asdict(one) for one in found]}
    (folder / "finding.json").write_text(json.dumps(about, indent=1))
    return found, False


def fuzz(kind, seed, seconds, out):
    """Cases one after the other until the time is over: how many there were and were refused; numbers by fault."""
    distinct = {}
    cases = refused = 0
    loads.load(KINDS[kind].LOADS)
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        found, was_refused = fuzz_one(kind, seed, cases, out)
        for one in found:
            distinct.setdefault(one.what, []).append((cases, one.detail))
        cases, refused = cases + 1, refused + was_refused
    if cases > ENOUGH and refused == cases:
        distinct["every case is refused: something beside what was spoilt"] = [(0, "")]
    return cases, refused, distinct


def main():
    """Fuzz as the command line says; exit status 1 if there are findings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="of all kinds together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=KINDS, action="append", help="all of them by default")
    parser.add_argument("--case", type=int, help="this one only, with everything it says")
    parser.add_argument("--out", type=Path, default=Path("fuzzed"), help="where findings go")
    options = parser.parse_args()
    kinds = options.kind or list(KINDS)
    out = options.out.absolute()
    if options.case is not None:
        loads.load(KINDS[kinds[0]].LOADS)
        found, _ = fuzz_one(kinds[0], options.seed, options.case, out)
        print("\n".join(f"{one.what}\n{one.detail}" for one in found) or "nothing wrong")
        sys.exit(bool(found))
    wrong = 0
    for kind in kinds:
        cases, refused, distinct = fuzz(kind, options.seed, 60 * options.minutes / len(kinds), out)
        print(f"{kind}: {cases} cases, {refused} of them refused in one line, {len(distinct)} distinct findings")
        for what, examples in sorted(distinct.items()):
            numbers = ", ".join(str(number) for number, _ in examples[:3])
            print(
                f"  {what}\n    {len(examples)} cases: {numbers}\n    {ascii(examples[0][1][-300:])[1:-1]}", flush=True
            )
        wrong += len(distinct)
    with contextlib.suppress(OSError):
        out.rmdir()
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
