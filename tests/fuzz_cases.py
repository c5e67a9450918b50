"""What the kinds of fuzzing share: a case, how a command ends inside this process, damage to bytes."""

import os
from collections.abc import Callable
from dataclasses import dataclass

from rae_bench import cli


@dataclass(frozen=True)
class Ended:
    """How a case ended: the line with which it was refused, or None; and whatever else is wrong with it."""

    refusal: str | None
    complaints: tuple[str, ...] = ()


@dataclass(frozen=True)
class Case:
    """Something a user might do: `run` does it in this process, `repeat` is the same as a line of the shell."""

    run: Callable[[], Ended]
    repeat: str


def refusal(*arguments):
    """The line with which the command line refuses `arguments`; None if it does what it is asked."""
    try:
        cli.main([str(argument) for argument in arguments])
    except SystemExit as end:
        if isinstance(end.code, str):
            return end.code
        if end.code:
            raise AssertionError(f"exit status {end.code} without a message") from end
    return None


def damaged(chance, data):
    """The bytes `data` after an accident of a random kind."""
    whole = bytearray(data or b"\0")
    n = len(whole)
    first, second = sorted((chance.randrange(n), chance.randrange(n)))
    match chance.randrange(11):
        case 0 | 1 | 2:
            for _ in range(chance.choice((1, 1, 1, 2, 8, 64))):
                whole[chance.randrange(n)] ^= 1 << chance.randrange(8)
        case 3:
            del whole[first:]
        case 4:
            del whole[first : min(second, first + 100)]
        case 5:
            whole[first:first] = chance.randbytes(chance.choice((1, 4, 100)))
        case 6:
            whole[first:first] = whole[first:second]
        case 7:
            length = min(n - second, second - first)
            one, other = whole[first : first + length], whole[second : second + length]
            whole[first : first + length], whole[second : second + length] = other, one
        case 8:
            whole[first:second] = chance.choice((bytes(second - first), chance.randbytes(second - first)))
        case 9:
            value = chance.choice((0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**16 - 1))
            whole[first : first + 4] = value.to_bytes(4, chance.choice(("big", "little")))
        case 10:
            whole = bytearray(chance.choice((b"", b"\0", chance.randbytes(n), b"\n", b"\xef\xbb\xbf" + whole)))
    return bytes(whole)


def no_plain_file(chance, path):
    """Put something at a place that is no file, nor ends if it is read."""
    path.unlink(missing_ok=True)
    match chance.randrange(4):
        case 0:
            path.mkdir()
        case 1:
            os.mkfifo(path)
        case _:
            path.symlink_to(chance.choice(("nowhere", path, "/dev/null", "/dev/zero", "/proc/self/mem")))
