"""The training loop: dispatches steps and reads their metrics."""

import math
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from arith_jax.config.experiment import Experiment
from arith_jax.training.losses import Metrics
from arith_jax.training.optim import schedule
from arith_jax.training.state import TrainState
from arith_jax.training.step import compile_step, sample_depth, step_inputs
from arith_jax.training.stopwatch import Stopwatch

# Of steps whose metrics are not read yet. Each reading waits for a step; short steps,
# which a host hardly keeps up with, take a third less time if few of them are read.
UNREAD_SECONDS = 0.02


class Clock(NamedTuple):
    """Seconds spent so far, by the earlier parts of a resumed run, too.

    Attributes:
        train_seconds: Of training alone.
        compile_seconds: Of compilation.
        num_seeds: Models that were trained together in these seconds.
    """

    train_seconds: float = 0.0
    compile_seconds: float = 0.0
    num_seeds: int = 1


class Progress(NamedTuple):
    """What the loop reports after each step.

    Attributes:
        state: Donated to the next step: read it before going on.
        step: Micro-batches so far.
        fraction: Part of the budget used up before this step.
        metrics: Those read last: at every `log_every`-th step those of the step before,
            at the first and the last step its own.
        unread: The step's own metrics, still on the device.
        clock: Seconds so far; `train_seconds` leaves `compile_seconds` out.
    """

    state: TrainState
    step: int
    fraction: float
    metrics: Metrics
    unread: Metrics
    clock: Clock


def train(
    experiment: Experiment, state: TrainState, clock: Clock = Clock()
) -> Iterator[Progress]:
    """Runs steps until the budget is used up, reporting after each.

    The host only dispatches; now and then it reads the metrics of the step before,
    which keeps one step queued and the elapsed time honest. Nothing else here may touch
    the device: one small operation waits for the queued step.

    Args:
        experiment: What is trained.
        state: Where to begin; donated.
        clock: Of the earlier parts of the run.

    Raises:
        FloatingPointError: If a loss or gradient is not finite; names the step.
    """
    config = experiment.train
    seeds = experiment.seeds
    programs: dict[int, Any] = {}
    step = int(state.step)
    stopwatch = Stopwatch(clock.train_seconds, clock.compile_seconds)
    pending = shown = None
    # The pace is in seconds a step.
    read, read_at, pace = step, time.perf_counter(), math.inf
    elapsed = stopwatch.elapsed(step)
    while True:
        total = config.minutes * 60
        fraction = step / config.steps if config.steps else min(elapsed / total, 1.0)
        if fraction >= 1:
            if pending is not None and config.minutes:
                read_metrics(pending, step, seeds)
            return
        depth = sample_depth(experiment, step)
        if depth.num_trained not in programs:
            before = time.perf_counter()
            jax.block_until_ready(state)
            programs[depth.num_trained] = compile_step(
                experiment, depth.num_trained, state
            )
            stopwatch.leave_out(time.perf_counter() - before)
        inputs = step_inputs(experiment, schedule(experiment.optim, fraction), depth)
        state, metrics = programs[depth.num_trained](state, inputs)
        step += 1
        num_unread = step - 1 - read  # This step's own metrics are not counted.
        is_due = num_unread * pace >= UNREAD_SECONDS or step % config.log_every == 0
        read_before = read
        # The last step's own metrics are waited for: its time counts.
        if shown is None or step == config.steps:
            shown, read = read_metrics(metrics, step, seeds), step
        elif pending is not None and num_unread and is_due:
            shown, read = read_metrics(pending, step - 1, seeds), step - 1
        if read > read_before:
            now = time.perf_counter()
            read_at, pace = now, (now - read_at) / (read - read_before)
        pending = metrics
        elapsed = stopwatch.elapsed(step)
        now_at = Clock(elapsed, stopwatch.compile_seconds, len(seeds))
        yield Progress(
            state=state,
            step=step,
            fraction=fraction,
            metrics=shown,
            unread=metrics,
            clock=now_at,
        )


def read_metrics(metrics: Metrics, step: int, seeds: Sequence[int]) -> Metrics:
    """The metrics as NumPy's numbers, once the device has them.

    Where updates are left out (`num_skipped`), numbers may be anything.

    Args:
        metrics: Scalars, or arrays [seeds] if there are several.
        step: Whose metrics they are.
        seeds: Those of the run.

    Raises:
        FloatingPointError: If a loss or gradient is not finite.
    """
    values = jax.tree.map(np.asarray, jax.device_get(metrics))
    if values.num_skipped is not None:
        return values
    for name, numbers in (("loss", values.loss), ("gradient", values.gradient_norm)):
        if numbers is None or np.isfinite(numbers).all():
            continue
        given = dict(zip(seeds, np.atleast_1d(numbers).tolist(), strict=True))
        failed = [seed for seed in seeds if not math.isfinite(given[seed])]
        of_seeds = f" of seed {', '.join(map(str, failed))}" if len(seeds) > 1 else ""
        raise FloatingPointError(
            f"{name}{of_seeds} is {given[failed[0]]} at step {step}: lower "
            "optim.learning_rate or optim.muon_learning_rate"
        )
    return values
