"""The files of results: what is in them, and the pictures drawn of it."""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from arith_jax.config.experiment import Experiment
from arith_jax.evaluation import plots
from arith_jax.evaluation.evaluate import Evaluation, summarise
from arith_jax.evaluation.summary import over_seeds
from arith_jax.model.transformer import num_params
from arith_jax.training.loop import Clock
from arith_jax.training.record import write_json
from arith_jax.training.step import step_flops
from arith_jax.training.workdir import single_runs


class Trained(NamedTuple):
    """What a finished training leaves.

    Attributes:
        params: The weights to evaluate: the moving average if there is one. Of several
            seeds, `training.state.of_seed` picks one's.
        clock: Seconds spent.
        steps: How many.
    """

    params: Any
    clock: Clock
    steps: int


def named_path(folder: pathlib.Path, experiment: Experiment, kind: str) -> pathlib.Path:
    """`<kind>.json`, or a file of its own for an evaluation with a name.

    Args:
        folder: Of the run, or of one of its seeds.
        experiment: Says how it is evaluated.
        kind: result or summary.
    """
    name = experiment.eval.name
    return folder / (f"{kind}_{name}.json" if name else f"{kind}.json")


def final_path(workdir: pathlib.Path, experiment: Experiment) -> pathlib.Path:
    """The file that is there once a run is finished."""
    kind = "result" if experiment.num_seeds == 1 else "summary"
    return named_path(workdir, experiment, kind)


def record_of_seed(record: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """The record of a run as that of one of its seeds; see `record.run_record`."""
    config = record["config"]
    full = config["full"] | {"seed": seed, "num_seeds": 1}
    return {**record, "seed": seed, "config": config | {"full": full}}


def make_result(
    experiment: Experiment, trained: Trained, done: Evaluation
) -> dict[str, Any]:
    """The content of `result.json`, but for where its numbers come from.

    Args:
        experiment: With one seed.
        trained: Its weights. The seconds are those of all models of the program.
        done: What was counted.
    """
    task, max_cell = experiment.data.task, experiment.data.max_cell
    as_json = lambda cells: [cell._asdict() for cell in cells]
    result: dict[str, Any] = {
        "num_params": num_params(trained.params),
        "steps": trained.steps,
        "samples": trained.steps * experiment.optim.micro_batch_size,
        "train_seconds": round(trained.clock.train_seconds, 3),
        "compile_seconds": round(trained.clock.compile_seconds, 3),
        "trained_together": trained.clock.num_seeds,
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
    path = named_path(workdir, experiment, "result")
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


def make_summary(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The content of `summary.json`, but for where its numbers come from.

    Args:
        results: Of all seeds.
    """
    shared = ("num_params", "train_seconds", "compile_seconds")
    seconds = sum(result["eval_seconds"] for result in results)
    return {
        "num_seeds": len(results),
        **{name: results[0][name] for name in shared},
        "eval_seconds": round(seconds, 3),
        **over_seeds(results),
    }


def write_curves(experiment: Experiment, workdir: pathlib.Path) -> None:
    """Draws `curves.png` from `metrics.jsonl`, of each seed and of all together."""
    singles = single_runs(experiment, workdir)
    curves = [read_curve(folder / "metrics.jsonl") for _, folder in singles]
    for (single, folder), curve in zip(singles, curves, strict=True):
        draw_curves(folder, [curve], f"{single.name}, {single.seeds_text}")
    if len(singles) > 1:
        draw_curves(workdir, curves, f"{experiment.name}, {experiment.seeds_text}")


Curve = dict[int, dict[str, Any]]


def read_curve(path: pathlib.Path) -> Curve:
    """The records of `metrics.jsonl` by step."""
    records = map(json.loads, path.read_text().splitlines())
    return {record["step"]: record for record in records}


def draw_curves(folder: pathlib.Path, curves: Sequence[Curve], title: str) -> None:
    """Draws the steps that all curves have, if there are any."""
    steps = sorted(set.intersection(*map(set, curves)))
    if not steps:
        return
    values = lambda name: np.array([[c[step][name] for step in steps] for c in curves])
    plots.draw_curves(
        folder / "curves.png",
        [curves[0][step]["samples"] for step in steps],
        loss=values("loss"),
        exact_match=values("exact_match"),
        title=title,
    )
