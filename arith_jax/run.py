"""Runs an experiment in a workdir: train, evaluate, write, print."""

import dataclasses
import json
import pathlib
import random
from collections.abc import Mapping, Sequence
from typing import Any

import rich.console

from arith_jax.config.experiment import Experiment
from arith_jax.distributed import is_first, leave_if_others_died
from arith_jax.evaluation.answers import answers
from arith_jax.evaluation.evaluate import evaluate
from arith_jax.evaluation.table import print_result, print_summary
from arith_jax.model.execution import resolve
from arith_jax.results import (
    Trained,
    final_path,
    make_result,
    make_summary,
    named_path,
    record_of_seed,
    write_curves,
    write_result,
)
from arith_jax.training import checkpoint
from arith_jax.training.log import RunLog, make_console
from arith_jax.training.loop import Clock, Progress, read_metrics, train
from arith_jax.training.optim import lr_multiplier
from arith_jax.training.record import device_name, run_record, versions, write_json
from arith_jax.training.state import make_state, of_seed
from arith_jax.training.workdir import Single, check_workdir, single_runs

MODES = ("train_and_eval", "train", "eval")


def run(
    experiment: Experiment,
    workdir: pathlib.Path | str,
    *,
    mode: str = "train_and_eval",
    overrides: Mapping[str, Any] | None = None,
) -> dict[str, Any] | None:
    """Runs an experiment in a workdir; a finished one only shows its result.

    Of several processes (`distributed.start`), all call this; the first one writes.

    Args:
        experiment: What to run.
        workdir: Receives all files; what it holds already is resumed.
        mode: `train_and_eval`, `train` or `eval`.
        overrides: Config keys given on the command line, for the record.

    Returns:
        The content of `result.json`, or of `summary.json` if there are several seeds;
        None for `train`.

    Raises:
        ValueError: If the workdir does not fit or holds nothing to evaluate.
        FloatingPointError: If a loss is not finite.
    """
    workdir, console = pathlib.Path(workdir), make_console(quiet=not is_first())
    check_workdir(workdir, experiment.to_dict(), mode)
    execution, missing = resolve(experiment.execution)
    console.print(
        f"{experiment.name}: preset :{experiment.preset}, {experiment.seeds_text}, "
        f"device {device_name()}, "
        + ", ".join(f"{k} {v}" for k, v in versions().items()),
        soft_wrap=True,
    )
    if missing:
        console.print(missing, soft_wrap=True)
    finished = final_path(workdir, experiment)
    if mode == "train_and_eval" and finished.exists():
        content = json.loads(finished.read_text())
        console.print(f"{workdir} is finished; nothing to train", soft_wrap=True)
        print_content(content, experiment, console)
        return content
    record = run_record(experiment, overrides or {})
    resolved = dataclasses.replace(experiment, execution=execution)
    if mode == "eval":
        trained = Trained(*checkpoint.evaluated_weights(experiment, workdir))
    else:
        if is_first():
            write_configs(experiment, workdir)
        trained = run_training(resolved, workdir, console)
    num_seeds = experiment.num_seeds
    models = [
        trained._replace(params=of_seed(trained.params, index, num_seeds))
        for index in range(num_seeds)
    ]
    if num_seeds > 1 and is_first():
        write_weights(experiment, workdir, models)
    content = None
    if mode != "train":
        with leave_if_others_died():
            content = run_evaluation(resolved, workdir, models, record, console)
    if mode != "eval" and is_first():
        write_curves(experiment, workdir)
    return content


def print_content(
    content: Mapping[str, Any], experiment: Experiment, console: rich.console.Console
) -> None:
    """Prints the table of a result, or of the summary of several seeds."""
    print_table = print_result if experiment.num_seeds == 1 else print_summary
    print_table(content, experiment, console)


def write_configs(experiment: Experiment, workdir: pathlib.Path) -> None:
    """Writes `config.json` of the run, and of each seed into its folder."""
    singles = single_runs(experiment, workdir)
    for one, folder in [(experiment, workdir), *singles]:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "config.json", one.to_dict())


def write_weights(
    experiment: Experiment, workdir: pathlib.Path, models: Sequence[Trained]
) -> None:
    """Writes the weights of each seed into its folder, as those of released models."""
    singles = single_runs(experiment, workdir)
    for (_, folder), model in zip(singles, models, strict=True):
        checkpoint.write_released(folder / checkpoint.RELEASED, *model)


def run_training(
    experiment: Experiment, workdir: pathlib.Path, console: rich.console.Console
) -> Trained:
    """Trains until the budget is used up, resuming what the workdir holds."""
    config, singles = experiment.train, single_runs(experiment, workdir)
    state, clock = make_state(experiment), Clock()
    with checkpoint.open_checkpoints(workdir / "checkpoints") as checkpoints:
        restored = checkpoints.restore(state)
        if restored is not None:
            state, clock = restored
            console.print(f"resumed at step {int(state.step)}")
        first = saved = int(state.step)
        saved_at = clock.train_seconds
        log = RunLog(
            [folder for _, folder in singles] if is_first() else [],
            console,
            first_step=first,
            every=config.log_every,
            tensorboard=config.tensorboard,
        )
        with log, leave_if_others_died():
            for progress in train(experiment, state, clock):
                state, clock = progress.state, progress.clock
                log.step(metrics_record(experiment, progress), progress.fraction)
                if clock.train_seconds - saved_at > config.checkpoint_minutes * 60:
                    # Weights after a loss that is not finite must not be the last.
                    read_metrics(progress.unread, progress.step, experiment.seeds)
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


def metrics_record(experiment: Experiment, progress: Progress) -> dict[str, Any]:
    """What the log keeps of a step; see `RunLog.step`."""
    samples = progress.step * experiment.optim.micro_batch_size
    seconds = progress.clock.train_seconds
    record: dict[str, Any] = {
        "step": progress.step,
        "samples": samples,
        "train_seconds": round(seconds, 3),
        "samples_per_second": round(samples / max(seconds, 1e-9), 1),
    }
    metrics = progress.metrics._asdict()
    record |= {name: value.tolist() for name, value in metrics.items()}
    multiplier = lr_multiplier(experiment.optim, progress.fraction)
    record["learning_rate_multiplier"] = multiplier
    return record


def run_evaluation(
    experiment: Experiment,
    workdir: pathlib.Path,
    models: Sequence[Trained],
    record: Mapping[str, Any],
    console: rich.console.Console,
) -> dict[str, Any]:
    """Evaluates every model, writes and prints; returns what `run` does.

    Of an evaluation that was interrupted, only what is missing is done; one that is
    finished is done again.

    Args:
        experiment: Of all models, and how they compute.
        workdir: Of the run.
        models: One for each seed.
        record: From `run_record`.
        console: Where to print.
    """
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
            result = origin | make_result(one, model, done)
            if is_first():
                write_result(folder, one, result)
        results.append(result)
    content = results[0]
    if len(models) > 1:
        content = {**record, **make_summary(results)}
        if is_first():
            write_json(finished, content)
    print_content(content, experiment, console)
    if len(models) == 1 and is_first():
        for line in solved_examples(experiment, models[0].params):
            console.print(line, soft_wrap=True)
    console.print(f"results in {workdir}", soft_wrap=True)
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
