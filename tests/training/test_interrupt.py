"""Signals, in this process and in one whose main thread does not come back."""

import os
import signal
import subprocess
import sys
import time

import jax
import pytest

from arith_jax import run
from arith_jax.training import fit, interrupt, loop
from arith_jax.training.interrupt import Interrupt, noted_signals
from tests.helpers import changed
from tests.training.test_log import steps_in

# The main thread is inside a library, as while XLA compiles: no handler can run.
BUSY = """
import hashlib, os, sys
from arith_jax.training import interrupt
interrupt.GRACE = 1.0
with interrupt.noted_signals("COMMAND") as noted:
    noted.describe = lambda: "saved at step 7 in DIR"
    with noted.held():
        print("ready", flush=True)
        hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)
"""


@pytest.fixture(autouse=True)
def heeded():
    """Signals are not ignored, even if these tests run under `nohup` or behind `&`."""
    usual = {signal.SIGINT: signal.default_int_handler}
    before = {
        number: signal.signal(number, usual.get(number, signal.SIG_DFL))
        for number in interrupt.SIGNALS
    }
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", interrupt.SIGNALS)
def test_a_signal_is_noted_and_ends_what_is_held_afterwards(number, capfd):
    before, done = signal.getsignal(number), []

    def ask():
        with noted_signals("COMMAND") as noted:
            noted.describe = lambda: "saved at step 7 in DIR"
            with noted.held():
                os.kill(os.getpid(), number)
                done.append(noted.is_due(7))

    with pytest.raises(SystemExit) as end:
        ask()
    assert done == [True]
    assert end.value.code == 128 + number
    name = signal.Signals(number).name
    assert capfd.readouterr().err == (
        f"{name}: saved at step 7 in DIR; to go on: COMMAND\n"
    )
    assert signal.getsignal(number) == before


def test_outside_it_ends_at_once(capfd):
    reached = []

    def ask():
        with noted_signals("COMMAND"):
            os.kill(os.getpid(), signal.SIGTERM)
            reached.append(True)

    with pytest.raises(SystemExit) as end:
        ask()
    assert not reached
    assert end.value.code == 143
    assert capfd.readouterr().err.startswith("SIGTERM: nothing was begun; to go on")


def test_ignored_signals_stay_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with noted_signals("COMMAND") as noted:
            os.kill(os.getpid(), signal.SIGHUP)
            assert noted.number is None
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(("signals", "said"), [(1, True), (2, False)])
def test_a_busy_process_ends_in_time_and_at_a_second_signal_at_once(signals, said):
    process = subprocess.Popen(
        [sys.executable, "-c", BUSY],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    asked = time.monotonic()
    for _ in range(signals):
        process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
    _, error = process.communicate(timeout=30)
    assert time.monotonic() - asked < 5
    assert process.returncode == 143
    line = "SIGTERM: no time to save, saved at step 7 in DIR; to go on: COMMAND\n"
    assert error == (line if said else "")


def test_a_signal_in_training_saves_and_a_budget_by_the_clock_goes_on(
    smoke, tmp_path, monkeypatch
):
    experiment = changed(smoke, train__steps=0, train__minutes=0.02, train__log_every=1)
    original = fit.train

    def asked_at_5(*args):
        for progress in original(*args):
            if progress.step == 5:
                os.kill(os.getpid(), signal.SIGTERM)
            yield progress

    monkeypatch.setattr(fit, "train", asked_at_5)
    with pytest.raises(SystemExit) as end, noted_signals("COMMAND") as noted:
        run.run(experiment, tmp_path, mode="train", interrupt=noted)
    assert end.value.code == 143
    assert fit.newest_path(tmp_path) == tmp_path / "checkpoints" / "5"
    assert steps_in(tmp_path) == [1, 2, 3, 4, 5]
    monkeypatch.undo()
    clocks = []
    monkeypatch.setattr(
        fit,
        "train",
        lambda e, state, clock: clocks.append(clock) or original(e, state, clock),
    )
    run.run(experiment, tmp_path, mode="train")
    assert 0 < clocks[0].train_seconds < 1.2
    newest = fit.newest_path(tmp_path)
    assert newest is not None
    last = int(newest.name)
    assert last > 5
    assert steps_in(tmp_path) == list(range(1, last + 1))


def test_a_signal_in_evaluation_ends_it(smoke, tmp_path, monkeypatch, capfd):
    def asked(*args):
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("went on")

    monkeypatch.setattr(run, "evaluate", asked)
    with pytest.raises(SystemExit) as end, noted_signals("COMMAND") as noted:
        run.run(changed(smoke, train__steps=3), tmp_path, interrupt=noted)
    assert end.value.code == 130
    assert f"SIGINT: saved at step 3 in {tmp_path}; to go" in capfd.readouterr().err


def test_weights_that_are_not_finite_are_not_saved_at_a_signal(
    smoke, tmp_path, monkeypatch
):
    noted, compile_step = Interrupt(), loop.compile_step

    def broken_at_3(*args):
        program = compile_step(*args)

        def step(state, inputs):
            number = int(state.step) + 1
            state, metrics = program(state, inputs)
            if number == 3:
                noted.number = signal.SIGTERM
                metrics = metrics._replace(loss=jax.numpy.float32(jax.numpy.nan))
            return state, metrics

        return step

    monkeypatch.setattr(loop, "compile_step", broken_at_3)
    monkeypatch.setattr(loop, "UNREAD_SECONDS", 1e3)
    with pytest.raises(FloatingPointError, match=r"loss is nan at step 3"):
        run.run(changed(smoke, train__log_every=100), tmp_path, interrupt=noted)
    assert fit.newest_path(tmp_path) is None


def test_library_use_leaves_signals_alone(smoke, tmp_path, monkeypatch):
    handlers = []
    original = fit.train

    def look(*args):
        handlers.extend(map(signal.getsignal, interrupt.SIGNALS))
        return original(*args)

    monkeypatch.setattr(fit, "train", look)
    before = list(map(signal.getsignal, interrupt.SIGNALS))
    run.run(changed(smoke, train__steps=2), tmp_path, mode="train")
    assert handlers == before
