"""Several real processes that run one experiment, on this machine."""

import json
import shutil
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from arith_jax import distributed
from arith_jax.training import checkpoint
from arith_jax.training.loop import Clock
from arith_jax.training.state import make_state
from tests.helpers import ENVIRONMENT, ROOT

CONFIG = "--config=configs/abacus_add.py:smoke"
# Steps enough to be cut off in between.
LONG = (CONFIG, "--config.train.steps=150", "--config.train.checkpoint_minutes=0.01")
SECONDS_TO_END = 60


def free_port():
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


def start(folder, count, *arguments):
    """Processes of one run; what process i prints goes to `<folder>/<i>.txt`."""
    port, processes = free_port(), []
    for index in range(count):
        command = [sys.executable, "launch.py", *arguments]
        if count > 1:
            command.append(f"--distributed=localhost:{port},{count},{index}")
        with (folder / f"{index}.txt").open("w") as file:
            process = subprocess.Popen(
                command, cwd=ROOT, env=ENVIRONMENT, stdout=file, stderr=file
            )
        processes.append(process)
    return processes


def finish(folder, count, *arguments):
    """Runs processes to their end and returns what each printed."""
    codes = [process.wait(300) for process in start(folder, count, *arguments)]
    texts = [(folder / f"{index}.txt").read_text() for index in range(count)]
    assert codes == [0] * count, texts
    return texts


def losses_in(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return {record["step"]: record["loss"] for record in map(json.loads, lines)}


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    folder = tmp_path_factory.mktemp("single")
    finish(folder, 1, *LONG, f"--workdir={folder / 'run'}")
    return folder / "run"


def wait_for_checkpoint(workdir, processes):
    until = time.monotonic() + 120
    while not any((workdir / "checkpoints").glob("[0-9]*/commit_success.txt")):
        assert all(process.poll() is None for process in processes), "ended too early"
        assert time.monotonic() < until, "no checkpoint was written"
        time.sleep(0.05)


@pytest.mark.parametrize("victim", [1, pytest.param(0, marks=pytest.mark.slow)])
def test_if_a_process_dies_the_other_says_so_and_one_alone_goes_on(
    tmp_path, single, victim
):
    workdir = tmp_path / "run"
    processes = start(tmp_path, 2, *LONG, f"--workdir={workdir}")
    wait_for_checkpoint(workdir, processes)
    processes[victim].kill()
    processes[victim].wait()
    killed = time.monotonic()
    assert processes[1 - victim].wait(SECONDS_TO_END) != 0
    assert time.monotonic() - killed < SECONDS_TO_END
    text = (tmp_path / f"{1 - victim}.txt").read_text()
    # If it was the first one, JAX itself may be quicker to end the process.
    ours = "cannot go on without the others, one of which has died"
    assert ours in text or (victim == 0 and "another task died" in text)
    printed = finish(tmp_path, 1, *LONG, f"--workdir={workdir}")[0]
    assert "resumed at step" in printed
    result, expected = (
        json.loads((folder / "result.json").read_text()) for folder in (workdir, single)
    )
    assert result["steps"] == expected["steps"] == 150
    losses, unbroken = losses_in(workdir), losses_in(single)
    assert list(losses) == list(unbroken) == list(range(10, 151, 10))
    np.testing.assert_allclose(list(losses.values()), list(unbroken.values()), rtol=0.1)
    # The same examples, sums in another order.
    assert losses[10] == pytest.approx(unbroken[10], rel=1e-4)


@pytest.mark.slow
def test_a_run_saved_by_two_goes_on_with_four(tmp_path):
    short = (CONFIG, f"--workdir={tmp_path / 'run'}")
    finish(tmp_path, 2, *short, "--mode=train")
    assert not (tmp_path / "run" / "result.json").exists()
    texts = finish(tmp_path, 4, *short)
    assert "resumed at step 30" in texts[0]
    assert "exact match" in texts[0]
    assert all("exact match" not in text for text in texts[1:])
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["device"] == "4 x cpu"


@pytest.mark.slow
def test_budgets_in_minutes_and_several_seeds_work_in_two_processes(tmp_path):
    workdir = tmp_path / "run"
    changes = ("--config.train.steps=0", "--config.train.minutes=0.05")
    seeds = "--config.num_seeds=2"
    finish(tmp_path, 2, CONFIG, *changes, seeds, f"--workdir={workdir}")
    summary = json.loads((workdir / "summary.json").read_text())
    assert summary["num_seeds"] == 2
    assert summary["train_seconds"] >= 3
    for seed in (0, 1):
        result = json.loads((workdir / f"seed_{seed}" / "result.json").read_text())
        assert result["seed"] == seed


@pytest.mark.parametrize("how", ["here", "a:1", "a:1,2", "a:1,2,2", "a,2,1", "a:x,2,0"])
def test_addresses_of_another_form_are_refused(how):
    with pytest.raises(ValueError, match=r"allowed: auto, or HOST:PORT,COUNT,INDEX"):
        distributed.parse(how)


def test_an_address_says_who_listens_and_who_this_is():
    assert distributed.parse("10.0.0.1:12355,4,3") == {
        "coordinator_address": "10.0.0.1:12355",
        "num_processes": 4,
        "process_id": 3,
    }


def test_auto_without_a_cluster_is_one_clear_line(tmp_path):
    process = start(tmp_path, 1, CONFIG, "--distributed=auto")[0]
    assert process.wait(120) == 2
    text = (tmp_path / "0.txt").read_text().strip()
    assert text.startswith("error: --distributed=auto: no environment of Slurm")
    assert len(text.splitlines()) == 1


@pytest.mark.parametrize(
    ("error", "is_from_others"),
    [
        (ValueError("UNKNOWN: Gloo AllGather failed: Connection reset"), True),
        (jax.errors.JaxRuntimeError("UNAVAILABLE: Task 1 heartbeat timeout"), True),
        (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory"), False),
        (OSError("INTERNAL: Input/output error"), False),
        (ValueError("batch: got 3"), False),
    ],
)
def test_only_a_lost_connection_means_that_others_have_died(
    monkeypatch, error, is_from_others
):
    assert not distributed.is_from_others(error)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    assert distributed.is_from_others(error) is is_from_others


def test_a_save_that_lost_the_others_is_no_failure_of_the_disk(
    smoke, tmp_path, monkeypatch
):
    def save(self, *_, **__):
        raise ValueError("UNKNOWN: Gloo AllGather failed: Connection reset by peer")

    state = make_state(smoke)
    with checkpoint.open_checkpoints(tmp_path) as checkpoints:
        monkeypatch.setattr(ocp.CheckpointManager, "save", save)
        monkeypatch.setattr(jax, "process_count", lambda: 2)
        with pytest.raises(ValueError, match="UNKNOWN: Gloo AllGather failed"):
            checkpoints.save(1, state, Clock())
        monkeypatch.undo()
