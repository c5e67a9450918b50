"""Calibrations: what is timed, what is kept, and what is made of both."""

import dataclasses
import re
import subprocess
import sys
import time

import pytest

from rae_bench import calibration, specs, work
from rae_bench.calibration import Calibration, Choice, choose
from rae_bench.config import load_study
from rae_bench.plain import ConfigError
from rae_bench.rehearsal import count

STUDY = load_study("smoke")
CPU = STUDY.file.compute
SPEC = STUDY.training("digits_mini", "rae_l2")
DECODE = work.Pass("decode", SPEC.network, SPEC.objective, 32, "float32")
PIECES = [DECODE, work.Images("ssim", 16, 1, 32), work.Start(("json",))]
NOTHING = Choice(calibrate=False, device=None, from_peak=None, utilisation=None)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Results with a calibration of this machine for PIECES."""
    folder = tmp_path_factory.mktemp("results")
    calibration.calibrate(PIECES, CPU, folder)
    return folder


def test_a_device_is_timed_and_kept(results):
    name = calibration.device_name(CPU)
    assert name.endswith(", 1 thread")
    (path,) = calibration.stored(results).values()
    assert path.parent == results / "calibrations"
    found = calibration.load(results, name)
    assert found.device == name
    assert 1e8 < found.product_flops < 1e14
    assert set(found.seconds) == {calibration.key(piece) for piece in PIECES}
    assert all(0 < seconds < 10 for seconds in found.seconds.values())
    assert found.flops[calibration.key(DECODE)] == count(DECODE).flops


def test_what_was_timed_before_is_kept(results):
    before = calibration.load(results, calibration.device_name(CPU))
    more = dataclasses.replace(DECODE, batch=8)
    after = calibration.calibrate([more], CPU, results)
    assert {**after.seconds, **before.seconds} == after.seconds
    assert set(after.seconds) - set(before.seconds) == {calibration.key(more)}


def test_another_number_of_threads_is_another_device(results):
    assert calibration.device_name(dataclasses.replace(CPU, threads=2)) not in calibration.stored(results)


def test_this_machine_is_taken_if_it_was_timed(results, tmp_path):
    name, seconds = choose(PIECES, CPU, results, NOTHING)
    assert name == f"{calibration.device_name(CPU)}, measured"
    assert seconds(DECODE) == calibration.load(results, calibration.device_name(CPU)).seconds[calibration.key(DECODE)]
    name, seconds = choose(PIECES, CPU, tmp_path, NOTHING)
    assert seconds is None
    assert "--calibrate" in name


def test_a_piece_not_timed_is_guessed_from_its_like_and_said_to_be(results):
    larger = dataclasses.replace(DECODE, batch=320)
    name, _ = choose([*PIECES, larger], CPU, results, NOTHING)
    assert "1 of 4 pieces of work not timed there, guessed from their like" in name
    known = Calibration("x", 1.0, {calibration.key(DECODE): 2.0}, {calibration.key(DECODE): count(DECODE).flops})
    assert calibration.seconds_on(known)(larger) == pytest.approx(20.0)
    assert calibration.seconds_on(Calibration("x", 1.0, {"start.1": 3.0}, {"start.1": 0.0}))(PIECES[2]) == 3.0
    with pytest.raises(ConfigError, match=r"no images\.ssim was timed on x; there: cost STUDY --calibrate"):
        calibration.seconds_on(known)(PIECES[1])


def test_a_stated_peak_divides_flops_of_networks_and_says_so(tmp_path):
    name, seconds = choose(PIECES, CPU, tmp_path, dataclasses.replace(NOTHING, from_peak=20.0, utilisation=0.25))
    assert seconds(DECODE) == count(DECODE).flops / 5e12
    assert seconds(PIECES[2]) == 0
    assert "20 TFLOP/s at 25%: from a stated peak, not measured" in name


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"from_peak": 10.0}, "--from-peak and --utilisation need each other"),
        ({"utilisation": 0.3}, "--from-peak and --utilisation need each other"),
        ({"from_peak": 0.0, "utilisation": 0.3}, "--from-peak: 0.0 must be above 0, in TFLOP/s"),
        ({"from_peak": float("nan"), "utilisation": 0.3}, "--from-peak: nan must be above 0"),
        ({"from_peak": 10.0, "utilisation": 1.5}, "--utilisation: 1.5 must lie above 0 and be at most 1"),
        ({"device": "Abacus"}, "--device: unknown device 'Abacus'"),
    ],
)
def test_choices_that_make_no_sense(results, choice, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        choose(PIECES, CPU, results, dataclasses.replace(NOTHING, **choice))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "cannot be read as JSON; expected what cost STUDY --calibrate writes"),
        (b"[1]", "expected a mapping of keys to values"),
        (b'{"device": "x"}', "missing "),
        (b'{"device": "x", "product_flops": 1.0, "seconds": {"a": "b"}, "flops": {}}', "found 'b'"),
    ],
)
def test_a_file_of_another_kind_among_those_copied_there_is_one_line(tmp_path, content, expected):
    path = tmp_path / "calibrations" / "x.json"
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=re.escape(str(path))) as error:
        choose(PIECES, CPU, tmp_path, NOTHING)
    assert expected in str(error.value)
    assert "delete" not in str(error.value)


def test_no_device_at_all_is_said(tmp_path):
    with pytest.raises(ConfigError, match="'Abacus': no device was timed yet"):
        choose(PIECES, CPU, tmp_path, dataclasses.replace(NOTHING, device="Abacus"))


def test_a_gpu_study_is_timed_on_what_there_is():
    gpu = dataclasses.replace(CPU, device="cuda", tf32=True)
    if calibration.torch.cuda.is_available():
        assert calibration.here(gpu) == gpu
    else:
        assert calibration.here(gpu) == dataclasses.replace(CPU, tf32=False)


def test_large_pieces_are_timed_smaller_and_scaled():
    """Ten times what is affordable: a tenth is timed, and counts ten times."""
    piece = dataclasses.replace(DECODE, batch=4000)
    assert work.reduced(piece, 0.1) == dataclasses.replace(DECODE, batch=400)
    scaled = calibration._seconds(piece, CPU, count(piece).flops / 10)
    whole = calibration._seconds(piece, CPU, float("inf"))
    assert whole / 3 < scaled < 3 * whole


def test_one_thread_is_timed_by_the_cpu_it_had():
    """A piece that only sleeps takes none; a process it starts counts."""
    assert calibration._timed(lambda: time.sleep(0.02), CPU) < 0.01
    assert calibration._timed(lambda: time.sleep(0.02), dataclasses.replace(CPU, threads=2)) >= 0.02
    busy = [sys.executable, "-c", "for _ in range(10**7): pass"]
    assert calibration._timed(lambda: subprocess.run(busy, check=True), CPU) > 0.02


def test_what_takes_no_time_is_not_timed_for_ever():
    runs = []
    calibration._timed(lambda: runs.append(1), CPU)
    assert len(runs) == 1 + calibration.MANY


def test_keys_tell_pieces_apart_and_do_not_change():
    pieces = [DECODE, dataclasses.replace(DECODE, batch=1), dataclasses.replace(DECODE, what="encode"), *PIECES[1:]]
    keys = [calibration.key(piece) for piece in pieces]
    assert len(set(keys)) == len(pieces)
    assert keys[0].startswith("pass.decode.")
    assert keys == [calibration.key(dataclasses.replace(piece)) for piece in pieces]
    assert isinstance(SPEC.network, specs.ConvolutionalNetwork)
