"""The files of results: what is in them, and the pictures drawn of it."""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from arith_jax.config.experiment import Experiment
from arith_jax.evaluation import plots
from arith_jax.evaluation.evaluate import Evaluation, summarise
from arith_jax.evaluation.summary import over_seeds
from arith_jax.model.transformer import num_params
from arith_jax.training.fit import Trained
from arith_jax.training.metrics_file import read_records
from arith_jax.training.record import write_json
from arith_jax.training.step import step_flops
from arith_jax.training.workdir import completed, differences, single_runs


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


def finished_content(
    workdir: pathlib.Path, experiment: Experiment
) -> dict[str, Any] | None:
    """What `final_path` holds, if the budget of the experiment was used up for it."""
    path = final_path(workdir, experiment)
    if not path.exists():
        return None
    content, budget = json.loads(path.read_text()), experiment.train
    # Summaries of several seeds had no steps once.
    steps = content.get("steps", content["config"]["full"]["train"]["steps"])
    seconds = content["train_seconds"]
    is_used_up = steps >= budget.steps and seconds >= 60 * budget.minutes - 1e-3
    return content if is_used_up else None


def check_evaluation(workdir: pathlib.Path, experiment: Experiment) -> None:
    """Raises `ValueError` if a result of another evaluation would be overwritten."""
    path = final_path(workdir, experiment)
    if not path.exists():
        return
    saved = completed(json.loads(path.read_text())["config"]["full"])
    differing = differences(saved["eval"], experiment.to_dict()["eval"], "eval.")
    if differing:
        name = experiment.eval.name
        raise ValueError(
            f"{path} is the result of another evaluation; differing: "
            f"{', '.join(differing.values())}; name this one: --config.eval.name="
            f"{name + '_2' if name else 'NAME'}"
        )


def is_drawn(workdir: pathlib.Path, experiment: Experiment) -> bool:
    """Whether a finished run has all its pictures."""
    singles = single_runs(experiment, workdir)
    paths = [path for one, folder in singles for path in picture_paths(folder, one)]
    folders = {workdir, *(folder for _, folder in singles)}
    # Without a log, as in a run whose files were copied in part, there is no curve.
    if all((folder / "metrics.jsonl").exists() for _, folder in singles):
        paths += [folder / "curves.png" for folder in folders]
    return all(path.exists() for path in paths)


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
    """Writes `result.json`."""
    write_json(named_path(workdir, experiment, "result"), result)


def picture_paths(workdir: pathlib.Path, experiment: Experiment) -> list[pathlib.Path]:
    """`grid.npz`, `grid.png` and `digits.png` of a result."""
    stem = named_path(workdir, experiment, "result").stem
    names = ("grid.npz", "grid.png", "digits.png")
    return [
        workdir / f"{stem.replace('result', name[:-4])}{name[-4:]}" for name in names
    ]


def write_pictures(
    workdir: pathlib.Path, experiment: Experiment, result: Mapping[str, Any]
) -> None:
    """Draws the pictures of a result, and writes `grid.npz`."""
    task, max_cell = experiment.data.task, experiment.data.max_cell
    cells = result["cells"]
    lengths, correct, total = plots.grid_arrays(cells)
    trained = task.cell_label(*max_cell)
    title = f"{experiment.name}: {task.title}, trained to {trained}"
    arrays, grid, digits = picture_paths(workdir, experiment)
    temporary = arrays.with_suffix(".tmp")
    with temporary.open("wb") as file:
        np.savez(file, lengths=lengths, correct=correct, total=total)
    temporary.replace(arrays)
    plots.draw_grid(
        grid,
        cells,
        max_cell=max_cell,
        title=title,
        labels=task.axes,
    )
    plots.draw_digits(digits, cells, title=title, label=task.answer_axis)


def make_summary(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The content of `summary.json`, but for where its numbers come from.

    Args:
        results: Of all seeds.
    """
    shared = ("num_params", "steps", "train_seconds", "compile_seconds")
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
    records, _ = read_records(path)
    return {record["step"]: record for record in records}


def draw_curves(folder: pathlib.Path, curves: Sequence[Curve], title: str) -> None:
    """Draws the steps that all curves have, if there are any."""
    steps = sorted(set.intersection(*map(set, curves)))
    if not steps:
        return

    def values(name: str, kind: type = float) -> np.ndarray:
        # What was not finite is null in the file.
        return np.array([[c[s].get(name) for s in steps] for c in curves], dtype=kind)

    plots.draw_curves(
        folder / "curves.png",
        [curves[0][step]["samples"] for step in steps],
        loss=values("loss"),
        exact_match=values("exact_match"),
        spikes=values("spike", bool),
        title=title,
    )
