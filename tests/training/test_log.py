import io
import json

import numpy as np
import pytest
import rich.console

from arith_jax import run
from arith_jax.config.experiment import Experiment
from arith_jax.training import checkpoint, fit, loop
from arith_jax.training.log import RunLog
from configs import abacus_add
from tests.helpers import assert_trees_equal

RECORD = {
    "train_seconds": 1.0,
    "samples_per_second": 16.0,
    "loss": 0.5,
    "exact_match": 0.25,
}


def log_steps(folder, first, last):
    console = rich.console.Console(file=io.StringIO())
    with RunLog([folder], console, first_step=first, every=2) as log:
        for step in range(first + 1, last + 1):
            log.step({"step": step, **RECORD}, step / 10)
    return console.file.getvalue()


def steps_in(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["step"] for line in lines]


@pytest.mark.parametrize(("fraction", "left"), [(0.0, ""), (0.25, "  3 s left")])
def test_time_left_is_shown_once_there_is_an_estimate(tmp_path, fraction, left):
    console = rich.console.Console(file=io.StringIO())
    with RunLog([tmp_path], console, first_step=0, every=2) as log:
        log.step({"step": 1, **RECORD}, fraction)
    assert console.file.getvalue().endswith(f"exact match 0.250{left}\n")


def test_metrics_of_a_resumed_run_read_like_an_unbroken_one(tmp_path):
    shown = log_steps(tmp_path, 0, 7)
    assert "step 1" in shown
    assert "loss 0.5000" in shown
    assert "exact match 0.250" in shown
    assert steps_in(tmp_path) == [2, 4, 6]
    log_steps(tmp_path, 4, 10)
    assert steps_in(tmp_path) == [2, 4, 6, 8, 10]


@pytest.mark.parametrize("terminal", [True, False])
def test_a_terminal_shows_the_last_step_at_the_end(tmp_path, terminal):
    console = rich.console.Console(file=io.StringIO(), force_terminal=terminal)
    with RunLog([tmp_path], console, first_step=0, every=2) as log:
        for step in range(1, 8):
            log.step({"step": step, **RECORD}, step / 10)
    shown = console.file.getvalue()
    assert ("step 7 " in shown) == terminal
    assert ("step 1 " in shown) != terminal


def test_several_models_have_a_file_each_and_one_line_together(tmp_path):
    folders = [tmp_path / name for name in "abc"]
    for folder in folders:
        folder.mkdir()
    console = rich.console.Console(file=io.StringIO(), width=200)
    metrics = {"loss": [0.5, 0.125, 4.0], "exact_match": [0.25, 0.5, 1.0]}
    with RunLog(folders, console, first_step=0, every=2) as log:
        for step in (1, 2):
            log.step({"step": step, **RECORD, **metrics}, 0.0)
    assert console.file.getvalue() == (
        "step 1  16 x 3 samples/s  loss 0.5000 (0.1250 to 4.0000)  "
        "in-distribution exact match 0.500 (0.250 to 1.000)\n"
    )
    for index, folder in enumerate(folders):
        (line,) = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
        own = {name: values[index] for name, values in metrics.items()}
        assert line == {"step": 2, **RECORD, **own}


@pytest.mark.slow
def test_interrupted_run_goes_on_to_the_same_end(tmp_path, monkeypatch):
    config = abacus_add.get_config("smoke")
    config.train.steps, config.train.log_every = 8, 1
    config.train.checkpoint_minutes = 0.0
    built = Experiment.from_dict(config)
    run.run(built, tmp_path / "whole", mode="train")
    original = fit.train

    def interrupted(*args):
        for progress in original(*args):
            yield progress
            if progress.step == 5:
                raise KeyboardInterrupt

    monkeypatch.setattr(fit, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run.run(built, tmp_path / "broken", mode="train")
    monkeypatch.setattr(fit, "train", original)
    run.run(built, tmp_path / "broken", mode="train")
    weights = [
        checkpoint.evaluated_weights(built, tmp_path / name)[0]
        for name in ("whole", "broken")
    ]
    assert_trees_equal(*weights)
    assert steps_in(tmp_path / "broken") == list(range(1, 9))


def test_weights_after_a_loss_that_is_not_finite_are_not_saved(tmp_path, monkeypatch):
    config = abacus_add.get_config("smoke")
    config.train.steps, config.train.log_every = 8, 100
    config.train.checkpoint_minutes = 0.0
    built = Experiment.from_dict(config)
    original = loop.compile_step

    def broken_at_3(*args):
        program = original(*args)

        def step(state, *numbers):
            number = int(state.step) + 1
            state, metrics = program(state, *numbers)
            return state, metrics._replace(
                loss=np.float32(np.nan)
            ) if number == 3 else metrics

        return step

    monkeypatch.setattr(loop, "compile_step", broken_at_3)
    monkeypatch.setattr(loop, "UNREAD_SECONDS", 1e3)
    with pytest.raises(FloatingPointError, match="loss is nan at step 3: lower"):
        run.run(built, tmp_path, mode="train")
    saved = {int(path.name) for path in (tmp_path / "checkpoints").iterdir()}
    assert max(saved) == 2
