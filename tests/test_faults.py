"""Real processes that are killed, asked to end, or meet in one workdir."""

import random
import signal
import subprocess
import sys
import time

import pytest

from arith_jax.training.saved import steps_in
from tests.helpers import ENVIRONMENT, ROOT, assert_trees_equal
from tests.test_launch import weights_in
from tests.training.test_log import steps_in as steps_logged

CONFIG = "--config=configs/abacus_add.py:smoke"
LONG = (CONFIG, "--config.train.steps=40000", "--mode=train")
# Saved all the time, so that kills come in the middle of saves, too.
SAVING = (CONFIG, "--config.train.checkpoint_minutes=0.005")
PICTURES = {"grid.png", "digits.png", "curves.png", "grid.npz", "result.json"}
# Becomes the command, with the usual effect of signals, which a shell's background job
# ignores. (A function between fork and exec is unsafe beside JAX's threads.)
WITH_SIGNALS = """
import os, signal, sys
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def start(*arguments):
    """A process of the command, on which signals have their usual effect."""

    return subprocess.Popen(
        [sys.executable, "-c", WITH_SIGNALS, "launch.py", *map(str, arguments)],
        cwd=ROOT,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_until(condition, process, seconds=120):
    until = time.monotonic() + seconds
    while not condition():
        if process.poll() is not None:
            return False
        assert time.monotonic() < until, "nothing happened"
        time.sleep(0.02)
    return True


def holds_lock(workdir, process):
    path = workdir / "lock"
    return lambda: path.exists() and f"process {process.pid} " in path.read_text()


def last_logged(workdir):
    path = workdir / "metrics.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


def test_signals_save_and_a_second_process_is_refused(tmp_path):
    workdir, saved = tmp_path / "run", 0
    arguments = (*LONG, f"--workdir={workdir}")
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        lines = last_logged(workdir)
        process = start(*arguments)
        assert wait_until(lambda n=lines: last_logged(workdir) > n + 2, process)
        if number == signal.SIGTERM:
            second = start(*arguments)
            _, error = second.communicate(timeout=120)
            assert second.returncode == 2
            assert error.startswith(
                f"error: workdir {workdir} is in use by process {process.pid} on "
            )
            assert len(error.splitlines()) == 1
        asked = time.monotonic()
        process.send_signal(number)
        _, error = process.communicate(timeout=60)
        assert time.monotonic() - asked < 10
        assert process.returncode == 128 + number
        (newest, *_) = steps_in(workdir / "checkpoints")
        assert newest > saved
        saved = newest
        command = f"python launch.py {' '.join(arguments)}"
        assert error == (
            f"{signal.Signals(number).name}: saved at step {newest} in {workdir}; "
            f"to go on: {command}\n"
        )
        assert not (workdir / "lock").exists()
    assert steps_logged(workdir) == list(range(10, saved + 1, 10))


def run_unbroken(workdir, steps):
    """A run from beginning to end; returns the seconds from its lock on."""
    process = start(*SAVING, f"--config.train.steps={steps}", f"--workdir={workdir}")
    assert wait_until(holds_lock(workdir, process), process)
    began = time.monotonic()
    _, error = process.communicate(timeout=600)
    assert process.returncode == 0, error
    return time.monotonic() - began


def kill_often(folder, num_kills, steps, seed, seconds):
    """Runs until so many kills at random moments; returns the workdirs and moments.

    Args:
        folder: Of the workdirs.
        num_kills: How many.
        steps: Budget of each run; when one is finished, another begins.
        seed: Of the moments.
        seconds: That an unbroken run takes.
    """
    rng, moments, workdirs = random.Random(seed), [], []
    budget = f"--config.train.steps={steps}"
    while True:
        workdir = folder / str(len(workdirs))
        workdirs.append(workdir)
        is_finished = False
        while not is_finished:
            process = start(*SAVING, budget, f"--workdir={workdir}")
            began = wait_until(holds_lock(workdir, process), process)
            if began and len(moments) < num_kills:
                delay = rng.uniform(0, seconds)
                try:
                    process.wait(delay)
                except subprocess.TimeoutExpired:
                    names = {path.name for path in workdir.iterdir()}
                    stage = "training"
                    if "result.json" in names:
                        stage = "plotting"
                    elif steps in steps_in(workdir / "checkpoints"):
                        stage = "evaluation"
                    elif any((workdir / "checkpoints").glob("*tmp*")):
                        stage = "saving"
                    process.kill()
                    moments.append((stage, round(delay, 2)))
            _, error = process.communicate(timeout=600)
            is_finished = process.returncode == 0
            assert is_finished or process.returncode == -signal.SIGKILL, error
        if len(moments) == num_kills:
            return workdirs, moments


@pytest.mark.parametrize(
    ("num_kills", "steps"), [(1, 40), pytest.param(50, 200, marks=pytest.mark.slow)]
)
def test_kills_at_random_moments_lose_nothing(tmp_path, num_kills, steps):
    seconds = run_unbroken(tmp_path / "unbroken", steps)
    began = time.monotonic()
    workdirs, moments = kill_often(tmp_path, num_kills, steps, 0, seconds)
    print(moments, f"{time.monotonic() - began:.0f} s", len(workdirs), "runs")
    expected = weights_in(tmp_path / "unbroken")
    for workdir in workdirs:
        assert_trees_equal(weights_in(workdir), expected)
        assert steps_logged(workdir) == list(range(10, steps + 1, 10))
        names = {path.name for path in workdir.iterdir()}
        assert names >= PICTURES
        assert not list(workdir.rglob("*tmp*"))
        assert not list(workdir.rglob("damaged_*"))
