"""Runs an experiment in a workdir: train, evaluate, write, print."""

import dataclasses
import json
import pathlib
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import rich.console

from arith_jax.config.experiment import Experiment
from arith_jax.distributed import is_first, leave_if_others_died
from arith_jax.evaluation.answers import solved_examples
from arith_jax.evaluation.evaluate import evaluate
from arith_jax.evaluation.table import print_result, print_summary
from arith_jax.model.execution import resolve
from arith_jax.results import (
    check_evaluation,
    final_path,
    finished_content,
    is_drawn,
    make_result,
    make_summary,
    named_path,
    picture_paths,
    record_of_seed,
    write_curves,
    write_pictures,
    write_result,
)
from arith_jax.training import checkpoint
from arith_jax.training.boards import check_boards, open_boards
from arith_jax.training.fit import Trained, run_training
from arith_jax.training.interrupt import Interrupt
from arith_jax.training.log import make_console
from arith_jax.training.record import device_name, run_record, versions, write_json
from arith_jax.training.saved import saved_text
from arith_jax.training.state import of_seed
from arith_jax.training.workdir import (
    Single,
    check_workdir,
    local_path,
    opened,
    single_runs,
)

MODES = ("train_and_eval", "train", "eval")
# Commands that open a picture; elsewhere xdg-open.
OPENERS = {"darwin": "open", "win32": "start"}


def run(
    experiment: Experiment,
    workdir: pathlib.Path | str,
    *,
    mode: str = "train_and_eval",
    overrides: Mapping[str, Any] | None = None,
    interrupt: Interrupt | None = None,
) -> dict[str, Any] | None:
    """Runs an experiment in a workdir; a finished one only shows its result.

    Of several processes (`distributed.start`), all call this; the first one writes.

    Args:
        experiment: What to run.
        workdir: Receives all files; what it holds already is resumed.
        mode: `train_and_eval`, `train` or `eval`.
        overrides: Config keys given on the command line, for the record.
        interrupt: Notes signals, from `interrupt.noted_signals`; None: they do what
            they do anyway.

    Returns:
        The content of `result.json`, or of `summary.json` if there are several seeds;
        None for `train`.

    Raises:
        ValueError: If the workdir does not fit, is in use, or holds nothing to
            evaluate.
        OSError: If something cannot be written.
        FloatingPointError: If a loss or gradient is not finite.
        SystemExit: If a signal has come.
    """
    started = time.perf_counter()
    workdir, console = local_path(workdir), make_console(quiet=not is_first())
    interrupt = interrupt or Interrupt()
    interrupt.describe = lambda: saved_text(workdir)
    check_boards(experiment.train)
    notes = check_workdir(workdir, experiment.to_dict(), mode)
    if mode != "train":
        check_evaluation(workdir, experiment)
    execution, missing = resolve(experiment.execution)
    console.print(
        f"{experiment.name}: preset :{experiment.preset}, {experiment.seeds_text}, "
        f"device {device_name()}, "
        + ", ".join(f"{k} {v}" for k, v in versions().items()),
        soft_wrap=True,
    )
    for note in [*notes, missing]:
        if note:
            console.print(note, soft_wrap=True)
    content = finished_content(workdir, experiment)
    if mode == "train_and_eval" and content is not None:
        console.print(f"{workdir} is finished; nothing to train", soft_wrap=True)
        print_content(content, experiment, console)
        if is_first() and not is_drawn(workdir, experiment):
            with opened(workdir, mode):
                draw(experiment, workdir, mode)
        return content
    record = run_record(experiment, overrides or {})
    resolved = dataclasses.replace(experiment, execution=execution)
    with opened(workdir, mode) as unwritable, leave_if_others_died():
        if mode == "eval":
            trained = Trained(*checkpoint.evaluated_weights(experiment, workdir))
        else:
            trained = run_training(resolved, workdir, console, interrupt)
            seconds, compiling, _ = trained.clock
            console.print(f"trained in {seconds:.1f} s, compiled in {compiling:.1f} s")
        num_seeds = experiment.num_seeds
        models = [
            trained._replace(params=of_seed(trained.params, index, num_seeds))
            for index in range(num_seeds)
        ]
        writes = is_first() and not unwritable
        if num_seeds > 1 and writes:
            write_weights(experiment, workdir, models)
        content = None
        if mode != "train":
            content = run_evaluation(
                resolved, workdir, models, record, console, writes=writes
            )
        if writes:
            draw(experiment, workdir, mode)
    if unwritable:
        console.print(
            f"{workdir} cannot be written ({unwritable}): the result is not saved",
            soft_wrap=True,
        )
    elif mode != "train":
        _, grid, _ = picture_paths(workdir, experiment)
        picture = workdir / "curves.png" if num_seeds > 1 else grid
        seconds = time.perf_counter() - started
        opener = OPENERS.get(sys.platform, "xdg-open")
        console.print(
            f"results in {workdir}, {seconds:.1f} s in all; to see them: "
            f"{opener} {picture}",
            soft_wrap=True,
        )
    return content


def draw(experiment: Experiment, workdir: pathlib.Path, mode: str) -> None:
    """Draws the pictures of what a run was asked to do."""
    if mode != "train":
        for single, folder in single_runs(experiment, workdir):
            result = json.loads(named_path(folder, single, "result").read_text())
            write_pictures(folder, single, result)
            show_result(folder, single, result)
    if mode != "eval":
        write_curves(experiment, workdir)


def show_result(
    folder: pathlib.Path, experiment: Experiment, result: Mapping[str, Any]
) -> None:
    """Shows the result of one seed on the boards that are asked for."""
    name, step = experiment.eval.name, result["steps"]
    _, picture, _ = picture_paths(folder, experiment)
    scores = {
        "/".join(filter(None, ("eval", name, part))): count["correct"] / count["total"]
        for part, count in result["exact_match"].items()
    }
    for board in open_boards(experiment, folder, step):
        board.write_result(scores, picture, step)
        board.close()


def print_content(
    content: Mapping[str, Any], experiment: Experiment, console: rich.console.Console
) -> None:
    """Prints the table of a result, or of the summary of several seeds."""
    print_table = print_result if experiment.num_seeds == 1 else print_summary
    print_table(content, experiment, console)


def write_weights(
    experiment: Experiment, workdir: pathlib.Path, models: Sequence[Trained]
) -> None:
    """Writes the weights of each seed into its folder, as those of released models."""
    singles = single_runs(experiment, workdir)
    for (_, folder), model in zip(singles, models, strict=True):
        checkpoint.write_released(folder / checkpoint.RELEASED, *model)


def run_evaluation(
    experiment: Experiment,
    workdir: pathlib.Path,
    models: Sequence[Trained],
    record: Mapping[str, Any],
    console: rich.console.Console,
    *,
    writes: bool,
) -> dict[str, Any]:
    """Evaluates every model, prints and writes; returns what `run` does.

    Of an evaluation that was interrupted, only what is missing is done; one that is
    finished is done again.

    Args:
        experiment: Of all models, and how they compute.
        workdir: Of the run.
        models: One for each seed.
        record: From `run_record`.
        console: Where to print.
        writes: Whether to write results.

    Raises:
        OSError: If they cannot be written; they are printed then, too.
    """
    unwritten = None
    finished, results = final_path(workdir, experiment), []
    again = finished.exists()
    for single, model in zip(single_runs(experiment, workdir), models, strict=True):
        one, folder = single
        origin = record_of_seed(record, one.seed)
        result = None if again else saved_result(single, origin, model.steps)
        if result is None:
            several = f" seed {one.seed}" if len(models) > 1 else ""
            console.print(f"evaluating{several}")
            done = evaluate(one, model.params)
            console.print(f"evaluated in {done.seconds:.1f} s")
            result = origin | make_result(one, model, done)
            try:
                if writes:
                    write_result(folder, one, result)
            except OSError as error:
                unwritten = error
        results.append(result)
    content = results[0]
    if len(models) > 1:
        content = {**record, **make_summary(results)}
        if writes and not unwritten:
            write_json(finished, content)
    print_content(content, experiment, console)
    if unwritten:
        raise unwritten
    if len(models) == 1 and is_first():
        for line in solved_examples(experiment, models[0].params):
            console.print(line, soft_wrap=True)
    return content


def saved_result(
    single: Single, record: Mapping[str, Any], steps: int
) -> dict[str, Any] | None:
    """The result that a folder holds, if it is of these weights and this evaluation."""
    path = named_path(single.folder, single.experiment, "result")
    if not path.exists():
        return None
    result = json.loads(path.read_text())
    is_same = result["config"]["full"] == record["config"]["full"]
    return result if is_same and result["steps"] == steps else None
