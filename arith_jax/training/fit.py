"""Training in a workdir: resumes, logs, saves, and ends well after a signal."""

import pathlib
from typing import Any, NamedTuple

import rich.console

from arith_jax.config.experiment import Experiment
from arith_jax.distributed import is_first
from arith_jax.training import checkpoint
from arith_jax.training.boards import open_boards
from arith_jax.training.interrupt import Interrupt
from arith_jax.training.log import RunLog
from arith_jax.training.loop import Clock, Progress, read_metrics, train
from arith_jax.training.optim import lr_multiplier
from arith_jax.training.saved import newest_path
from arith_jax.training.start import begin_from
from arith_jax.training.state import make_state
from arith_jax.training.workdir import local_path, single_runs, write_configs


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


def run_training(
    experiment: Experiment,
    workdir: pathlib.Path,
    console: rich.console.Console,
    interrupt: Interrupt,
) -> Trained:
    """Trains until the budget is used up, resuming what the workdir holds.

    After a signal it saves and ends the process.

    Raises:
        FloatingPointError: If a loss or gradient is not finite; says what is saved.
    """
    folder, config = workdir / "checkpoints", experiment.train
    try:
        with (
            interrupt.held(),
            checkpoint.open_checkpoints(folder, config.keep_checkpoints) as checkpoints,
        ):
            return train_and_save(experiment, workdir, console, interrupt, checkpoints)
    except FloatingPointError as error:
        optim, newest = experiment.optim, newest_path(workdir)
        reached = f"the last good checkpoint is {newest}: begin a new workdir with "
        reached += f"--config.train.init_from={workdir}, or go on in this one with "
        reached += "--config.train.skip_nonfinite=True"
        if newest is None:
            reached = "there is no checkpoint: the same workdir takes another config"
        raise FloatingPointError(
            f"{error} ({experiment.name}:{experiment.preset} with optim.learning_rate="
            f"{optim.learning_rate}, optim.muon_learning_rate="
            f"{optim.muon_learning_rate}); {reached}"
        ) from error


def train_and_save(
    experiment: Experiment,
    workdir: pathlib.Path,
    console: rich.console.Console,
    interrupt: Interrupt,
    checkpoints: checkpoint.Checkpoints,
) -> Trained:
    """Trains until the budget is used up or a signal comes."""
    config, singles = experiment.train, single_runs(experiment, workdir)
    state, clock = make_state(experiment), Clock()
    restored = checkpoints.restore(state)
    if restored is not None:
        state, clock = restored
        console.print(f"resumed at step {int(state.step)}")
    elif config.init_from:
        state = begin_from(experiment, local_path(config.init_from), state)
        console.print(f"begins with the weights of {config.init_from}", soft_wrap=True)
    if is_first():
        write_configs(experiment, workdir)
    first = saved = int(state.step)
    saved_at = clock.train_seconds
    writers = singles if is_first() else []
    log = RunLog(
        [folder for _, folder in writers],
        console,
        first_step=first,
        every=config.log_every,
        boards=[open_boards(*single, first) for single in writers],
    )
    with log:
        for progress in train(experiment, state, clock):
            state, clock = progress.state, progress.clock
            log.step(metrics_record(experiment, progress), progress.fraction)
            is_over = interrupt.is_due(progress.step)
            is_due = clock.train_seconds - saved_at > config.checkpoint_minutes * 60
            if is_due or is_over:
                # Weights after a loss that is not finite must not be the last.
                read_metrics(progress.unread, progress.step, experiment.seeds)
                log.sync()
                checkpoints.save(progress.step, state, clock)
                saved, saved_at = progress.step, clock.train_seconds
            if is_over:
                break
    step = int(state.step)
    if config.minutes and interrupt.number is None:
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
    record |= {k: value.tolist() for k, value in metrics.items() if value is not None}
    multiplier = lr_multiplier(experiment.optim, progress.fraction)
    record["learning_rate_multiplier"] = multiplier
    return record
