"""Runs an experiment in a workdir: train, evaluate, write, print."""

import dataclasses
import json
import pathlib
import random
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import rich.console

from arith_jax.config.experiment import Experiment
from arith_jax.evaluation import plots
from arith_jax.evaluation.answers import answers
from arith_jax.evaluation.evaluate import Evaluation, evaluate, summarise
from arith_jax.evaluation.table import print_result
from arith_jax.model.execution import resolve
from arith_jax.model.transformer import num_params
from arith_jax.training import checkpoint
from arith_jax.training.log import RunLog, make_console
from arith_jax.training.loop import Clock, Progress, read_metrics, train
from arith_jax.training.optim import lr_multiplier
from arith_jax.training.record import device_name, run_record, versions, write_json
from arith_jax.training.state import make_state
from arith_jax.training.step import step_flops
from arith_jax.training.workdir import check_workdir

MODES = ("train_and_eval", "train", "eval")


class Trained(NamedTuple):
    """What a finished training leaves.

    Attributes:
        params: The weights to evaluate: the moving average if there is one.
        clock: Seconds spent.
        steps: How many.
    """

    params: Any
    clock: Clock
    steps: int


def run(
    experiment: Experiment,
    workdir: pathlib.Path | str,
    *,
    mode: str = "train_and_eval",
    overrides: Mapping[str, Any] | None = None,
) -> dict[str, Any] | None:
    """Runs an experiment in a workdir; a finished one only shows its result.

    Args:
        experiment: What to run.
        workdir: Receives all files; what it holds already is resumed.
        mode: `train_and_eval`, `train` or `eval`.
        overrides: Config keys given on the command line, for the record.

    Returns:
        The content of `result.json`; None for `train`.

    Raises:
        ValueError: If the workdir does not fit or holds nothing to evaluate.
        FloatingPointError: If the loss is not finite.
    """
    workdir, console = pathlib.Path(workdir), make_console()
    check_workdir(workdir, experiment.to_dict(), mode)
    execution, missing = resolve(experiment.execution)
    console.print(
        f"{experiment.name}: preset :{experiment.preset}, seed {experiment.seed}, "
        f"device {device_name()}, "
        + ", ".join(f"{k} {v}" for k, v in versions().items()),
        soft_wrap=True,
    )
    if missing:
        console.print(missing, soft_wrap=True)
    finished = result_path(workdir, experiment)
    if mode == "train_and_eval" and finished.exists():
        result = json.loads(finished.read_text())
        console.print(f"{workdir} is finished; nothing to train", soft_wrap=True)
        print_result(result, experiment, console)
        return result
    record = run_record(experiment, overrides or {})
    resolved = dataclasses.replace(experiment, execution=execution)
    if mode == "eval":
        trained = Trained(*checkpoint.evaluated_weights(experiment, workdir))
    else:
        workdir.mkdir(parents=True, exist_ok=True)
        write_json(workdir / "config.json", experiment.to_dict())
        trained = run_training(resolved, workdir, console)
    if mode == "train":
        return None
    console.print("evaluating")
    done = evaluate(resolved, trained.params)
    result = record | make_result(resolved, trained, done)
    write_result(workdir, resolved, result)
    print_result(result, experiment, console)
    for line in solved_examples(resolved, trained.params):
        console.print(line, soft_wrap=True)
    console.print(f"results in {workdir}", soft_wrap=True)
    return result


def result_path(workdir: pathlib.Path, experiment: Experiment) -> pathlib.Path:
    """`result.json`, or a file of its own for an evaluation with a name."""
    name = experiment.eval.name
    return workdir / (f"result_{name}.json" if name else "result.json")


def run_training(
    experiment: Experiment, workdir: pathlib.Path, console: rich.console.Console
) -> Trained:
    """Trains until the budget is used up, resuming what the workdir holds."""
    config = experiment.train
    state, clock = make_state(experiment), Clock()
    with checkpoint.open_checkpoints(workdir / "checkpoints") as checkpoints:
        restored = checkpoints.restore(state)
        if restored is not None:
            state, clock = restored
            console.print(f"resumed at step {int(state.step)}")
        first = saved = int(state.step)
        saved_at = clock.train_seconds
        log = RunLog(
            workdir,
            console,
            first_step=first,
            every=config.log_every,
            tensorboard=config.tensorboard,
        )
        with log:
            for progress in train(experiment, state, clock):
                state, clock = progress.state, progress.clock
                log.step(metrics_record(experiment, progress), progress.fraction)
                if clock.train_seconds - saved_at > config.checkpoint_minutes * 60:
                    # Weights after a loss that is not finite must not be the last.
                    read_metrics(progress.unread, progress.step)
                    checkpoints.save(progress.step, state, clock)
                    saved, saved_at = progress.step, clock.train_seconds
        step = int(state.step)
        if config.minutes:
            # A budget by the clock is used up, even if the last step ended just short.
            spent = max(clock.train_seconds, config.minutes * 60)
            clock = clock._replace(train_seconds=spent)
        if step > saved or restored is None:
            checkpoints.save(step, state, clock)
    return Trained(state.evaluated_params, clock, step)


def metrics_record(
    experiment: Experiment, progress: Progress
) -> dict[str, float | int]:
    """What the log keeps of a step."""
    samples = progress.step * experiment.optim.micro_batch_size
    seconds = progress.clock.train_seconds
    record: dict[str, float | int] = {
        "step": progress.step,
        "samples": samples,
        "train_seconds": round(seconds, 3),
        "samples_per_second": round(samples / max(seconds, 1e-9), 1),
    }
    record |= {name: float(value) for name, value in progress.metrics._asdict().items()}
    multiplier = lr_multiplier(experiment.optim, progress.fraction)
    record["learning_rate_multiplier"] = multiplier
    return record


def make_result(
    experiment: Experiment, trained: Trained, done: Evaluation
) -> dict[str, Any]:
    """The content of `result.json`, but for where its numbers come from."""
    task, max_cell = experiment.data.task, experiment.data.max_cell
    as_json = lambda cells: [cell._asdict() for cell in cells]
    result: dict[str, Any] = {
        "num_params": num_params(trained.params),
        "steps": trained.steps,
        "samples": trained.steps * experiment.optim.micro_batch_size,
        "train_seconds": round(trained.clock.train_seconds, 3),
        "compile_seconds": round(trained.clock.compile_seconds, 3),
        "flops": sum(step_flops(experiment, step) for step in range(trained.steps)),
        "eval_seconds": round(done.seconds, 3),
        "exact_match": done.exact_match,
        "cells": as_json(done.cells),
        "sets": {name: as_json(cells) for name, cells in done.sets.items() if cells},
    }
    if task.first_answer:
        result["first_answer"] = done.first_answer
    if done.subtasks:
        regions = lambda cells: summarise(cells, task, max_cell)
        result["parts"] = {
            name: {"exact_match": regions(cells), "cells": as_json(cells)}
            for name, cells in done.subtasks.items()
        }
    return result


def write_result(
    workdir: pathlib.Path, experiment: Experiment, result: Mapping[str, Any]
) -> None:
    """Writes `result.json`, `grid.npz` and the pictures."""
    task, max_cell, cells = (
        experiment.data.task,
        experiment.data.max_cell,
        result["cells"],
    )
    lengths, correct, total = plots.grid_arrays(cells)
    trained = task.cell_label(*max_cell)
    title = f"{experiment.name}: {task.title}, trained to {trained}"
    path = result_path(workdir, experiment)
    named = lambda name: workdir / (path.stem.replace("result", name))
    write_json(path, result)
    grid = named("grid")
    np.savez(grid, lengths=lengths, correct=correct, total=total)
    plots.draw_grid(
        grid.with_suffix(".png"),
        cells,
        max_cell=max_cell,
        title=title,
        labels=task.axes,
    )
    digits = named("digits").with_suffix(".png")
    plots.draw_digits(digits, cells, title=title, label=task.answer_axis)


def solved_examples(experiment: Experiment, params: Any) -> list[str]:
    """A few exercises as the model solves them, by greedy decoding, of growing size."""
    task, max_cell = experiment.data.task, experiment.data.max_cell
    limits = experiment.eval.max_evaluated(task, max_cell)
    rng = random.Random(experiment.eval.seed)
    sizes = {max_cell}
    for factor, cap in ((4, 10**9), (10, 60)):
        a, b = (
            max(n, min(factor * n, limit, cap))
            for n, limit in zip(max_cell, limits, strict=True)
        )
        sizes.add((a, b))
    expressions = task.examples(rng, sorted(sizes))
    lines = []
    given = answers(experiment, params, expressions)
    for expression, answer in zip(expressions, given, strict=True):
        prompt = task.prompt(expression)
        truth = task.read_answer(prompt, task.true_answer(prompt))
        verdict = "right" if answer == truth else f"wrong, it is {truth}"
        lines.append(f"{expression} = {answer}  ({verdict})")
    return lines
