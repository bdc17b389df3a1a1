"""Runs an experiment in a workdir: train, evaluate, write, print."""

import json
import pathlib
import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import rich.console

from arith_jax import checkpoint, decode, evaluate, plots, runlog, train
from arith_jax.experiment import (
    Experiment,
    check_workdir,
    run_record,
    step_flops,
)
from arith_jax.model import num_params
from arith_jax.optim import lr_multiplier
from arith_jax.train import Clock

MODES = ("train_and_eval", "train", "eval")


def run_training(
    experiment: Experiment, workdir: pathlib.Path, console: rich.console.Console
) -> tuple[Any, Clock, int]:
    """Trains until the budget is used up, resuming what the workdir holds.

    Returns:
        The weights to evaluate (the moving average if there is one), the seconds spent
        and the number of steps.
    """
    config = experiment.train
    state = train.make_state(experiment.model, experiment.optim, experiment.seed)
    clock = Clock()
    with checkpoint.open_checkpoints(workdir / "checkpoints") as checkpoints:
        found = checkpoints.restore(state)
        if found is not None:
            state, clock = found
            console.print(f"resumed at step {int(state.step)}")
        first = saved = int(state.step)
        saved_at = clock.train_seconds
        log = runlog.RunLog(
            workdir, first, config.log_every, config.tensorboard, console
        )
        with log:
            for progress in train.train(
                experiment.train_configs, state, experiment.seed, clock
            ):
                state = progress.state
                clock = Clock(progress.train_seconds, progress.compile_seconds)
                log.step(metrics_record(experiment, progress), progress.fraction)
                if clock.train_seconds - saved_at > config.checkpoint_minutes * 60:
                    # Weights after a loss that is not finite must not be the last.
                    train.read_metrics(progress.unread, progress.step)
                    checkpoints.save(progress.step, state, clock)
                    saved, saved_at = progress.step, clock.train_seconds
        step = int(state.step)
        if config.minutes:
            # A budget by the clock is used up, even if the last step ended just short.
            clock = clock._replace(
                train_seconds=max(clock.train_seconds, config.minutes * 60)
            )
        if step > saved or found is None:
            checkpoints.save(step, state, clock)
    return state.ema if state.ema is not None else state.params, clock, step


def metrics_record(
    experiment: Experiment, progress: train.Progress
) -> dict[str, float | int]:
    """What the log keeps of a step."""
    samples = progress.step * experiment.optim.micro_batch_size
    record: dict[str, float | int] = {
        "step": progress.step,
        "samples": samples,
        "train_seconds": round(progress.train_seconds, 3),
        "samples_per_second": round(samples / max(progress.train_seconds, 1e-9), 1),
    }
    record |= {name: float(value) for name, value in progress.metrics._asdict().items()}
    multiplier = lr_multiplier(experiment.optim, progress.fraction)
    record["learning_rate_multiplier"] = float(multiplier)
    return record


def run_evaluation(
    experiment: Experiment,
    workdir: pathlib.Path,
    weights: Any,
    clock: Clock,
    steps: int,
    overrides: Mapping[str, Any],
    console: rich.console.Console,
) -> dict[str, Any]:
    """Evaluates, writes `result.json`, `grid.npz` and the pictures, prints a table."""
    console.print("evaluating")
    done = evaluate.evaluate(
        experiment.model, experiment.data, experiment.eval, weights
    )
    task, most = experiment.data.make_task(), experiment.data.most
    cells = runlog.cells_json(done.cells)
    result = {
        **run_record(experiment, overrides),
        "num_params": num_params(weights),
        "steps": steps,
        "samples": steps * experiment.optim.micro_batch_size,
        "train_seconds": round(clock.train_seconds, 3),
        "compile_seconds": round(clock.compile_seconds, 3),
        "flops": sum(step_flops(experiment, step) for step in range(steps)),
        "eval_seconds": round(done.seconds, 3),
        "exact_match": done.exact_match,
        "cells": cells,
        "sets": {
            kind: runlog.cells_json(found) for kind, found in done.sets.items() if found
        },
    }
    if task.first_answer:
        result["first_answer"] = done.first_answer
    if done.parts:
        result["parts"] = {
            kind: {
                "exact_match": evaluate.summarise(found, task, most),
                "cells": runlog.cells_json(found),
            }
            for kind, found in done.parts.items()
        }
    lengths, correct, total = plots.grid_arrays(cells)
    np.savez(workdir / "grid.npz", lengths=lengths, correct=correct, total=total)
    title = f"{experiment.name}: {task.title}, trained to {task.cell_label(*most)}"
    plots.draw_grid(workdir / "grid.png", cells, most, title, task.axes)
    plots.draw_digits(workdir / "digits.png", cells, title, task.answer_axis)
    runlog.write_json(workdir / "result.json", result)
    runlog.print_result(result, task, most, console)
    for line in solved_examples(experiment, weights):
        console.print(line, soft_wrap=True)
    console.print(f"results in {workdir}", soft_wrap=True)
    return result


def solved_examples(experiment: Experiment, weights: Any) -> list[str]:
    """A few exercises as the model solves them, by greedy decoding, of growing size."""
    task, most = experiment.data.make_task(), experiment.data.most
    limits = experiment.eval.longest(task, most)
    rng = random.Random(experiment.eval.seed)
    sizes = {most}
    for factor, cap in ((4, 10**9), (10, 60)):
        a, b = (
            max(n, min(factor * n, limit, cap))
            for n, limit in zip(most, limits, strict=True)
        )
        sizes.add((a, b))
    expressions = task.examples(rng, sorted(sizes))
    answers = decode.answers(experiment.model, experiment.data, weights, expressions)
    lines = []
    for expression, answer in zip(expressions, answers, strict=True):
        prompt = task.prompt(expression)
        truth = task.read(prompt, task.truth(prompt))
        verdict = "right" if answer == truth else f"wrong, it is {truth}"
        lines.append(f"{expression} = {answer}  ({verdict})")
    return lines


def run(
    experiment: Experiment,
    workdir: pathlib.Path,
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
    console = runlog.make_console()
    check_workdir(workdir, experiment.full, mode)
    console.print(
        f"{experiment.name}: preset :{experiment.preset}, seed {experiment.seed}, "
        f"device {runlog.device_name()}, "
        + ", ".join(f"{k} {v}" for k, v in runlog.versions().items()),
        soft_wrap=True,
    )
    finished = workdir / "result.json"
    if mode == "train_and_eval" and finished.exists():
        result = json.loads(finished.read_text())
        console.print(f"{workdir} is finished; nothing to train", soft_wrap=True)
        task, most = experiment.data.make_task(), experiment.data.most
        runlog.print_result(result, task, most, console)
        return result
    if mode == "eval":
        weights, clock, steps = checkpoint.evaluated_weights(experiment, workdir)
    else:
        workdir.mkdir(parents=True, exist_ok=True)
        runlog.write_json(workdir / "config.json", experiment.full)
        weights, clock, steps = run_training(experiment, workdir, console)
    if mode == "train":
        return None
    return run_evaluation(
        experiment, workdir, weights, clock, steps, overrides or {}, console
    )
