"""Speed of training and of its data, measured; no flags, no files."""

import dataclasses
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from arith_jax import vocab
from arith_jax.benchmark import profiling
from arith_jax.benchmark.timing import (
    matmul_peak,
    peak_memory,
    program_bytes,
    spread,
    timed,
)
from arith_jax.config.experiment import Experiment
from arith_jax.data.batch import max_targets, row_width, training_batch
from arith_jax.model.flops import flops_per_row
from arith_jax.model.transformer import num_params
from arith_jax.training.loop import read_metrics
from arith_jax.training.losses import Depth
from arith_jax.training.optim import schedule
from arith_jax.training.state import TrainState, make_state
from arith_jax.training.step import (
    compile_step,
    depths,
    sample_depth,
    step_flops,
    step_inputs,
)

WARM_UP = 5  # steps: the first ones fill caches and the queue
GROUP = 10  # steps dispatched between two waits for the device
# Middle of the budget: full learning rate, and batches that have grown where they do.
FRACTION = 0.5


def problem_sizes(experiment: Experiment, steps: int = 8) -> np.ndarray:
    """Of every problem of the first steps' batches, tokens and those predicted [n 2].

    Of all seeds; without padding, and without an `EOS` that is not read.
    """
    keys = [jax.random.split(jax.random.key(seed))[0] for seed in experiment.seeds]
    size = experiment.optim.micro_batch_size
    draw = jax.jit(partial(training_batch, experiment.data), static_argnums=2)
    sizes = []
    for batch in (draw(key, step, size) for key in keys for step in range(steps)):
        tokens = batch.count_in_segments(batch.ids != vocab.PAD)
        targets = batch.count_in_segments(batch.mask)
        sizes.append(np.column_stack([tokens.reshape(-1), targets.reshape(-1)]))
    return np.concatenate(sizes)


def useful_flops(experiment: Experiment, sizes: np.ndarray, step: int) -> float:
    """Operations of one step if each problem were computed alone, without padding.

    Of one model, whatever their number.
    """
    has_targets = max_targets(experiment.data) is not None
    has_targets = has_targets and experiment.execution.unroll
    total = 0
    lengths, counts = np.unique(sizes, axis=0, return_counts=True)
    for (length, answer), count in zip(lengths.tolist(), counts.tolist(), strict=True):
        for depth in depths(experiment, step):
            total += count * flops_per_row(
                experiment.model,
                length,
                num_frozen=int(depth.num_frozen),
                num_trained=depth.num_trained,
                num_targets=answer if has_targets else None,
            )
    return experiment.optim.micro_batch_size * total / len(sizes)


class Stepper:
    """Training steps of an experiment in the middle of its budget."""

    def __init__(self, experiment: Experiment):
        self.experiment = experiment
        self.state = make_state(experiment)
        self.num_params = num_params(self.state.params) // experiment.num_seeds
        self.programs: dict[int, Any] = {}
        self.compile_seconds = 0.0

    def compile(self, steps: int) -> None:
        """Makes the programs of the first steps, side by side."""
        drawn = {
            sample_depth(self.experiment, step).num_trained for step in range(steps)
        }
        needed = sorted(drawn)
        compiling = partial(compile_step, self.experiment, state=self.state)
        started = time.perf_counter()
        with ThreadPoolExecutor() as pool:
            programs = zip(needed, pool.map(compiling, needed), strict=True)
            self.programs |= dict(programs)
        self.compile_seconds += time.perf_counter() - started

    def advance(self, depth: Depth) -> Any:
        """One step; its metrics, still on the device."""
        plan = schedule(self.experiment.optim, FRACTION)
        inputs = step_inputs(self.experiment, plan, depth)
        self.state, metrics = self.programs[depth.num_trained](self.state, inputs)
        return metrics


def single_steps(stepper: Stepper, steps: int) -> list[float]:
    """Seconds of steps, each from one reading of metrics to the next.

    Metrics are those of the step before, so that the device always has one to do; the
    train loop reads them less often where steps are short.
    """
    pending, seconds, last = None, [], 0.0
    for step in range(WARM_UP + steps):
        metrics = stepper.advance(sample_depth(stepper.experiment, step))
        if pending is not None:
            read_metrics(pending, step, stepper.experiment.seeds)
        now = time.perf_counter()
        if step >= WARM_UP:
            seconds.append(now - last)
        pending, last = metrics, now
    jax.block_until_ready(stepper.state)
    return seconds


def grouped_steps(stepper: Stepper, first: int, groups: int) -> list[float]:
    """Seconds of groups of steps, each from a wait for the device to the next."""
    seconds = []
    for group in range(groups):
        started = time.perf_counter()
        for index in range(GROUP):
            step = first + GROUP * group + index
            stepper.advance(sample_depth(stepper.experiment, step))
        jax.block_until_ready(stepper.state)
        seconds.append(time.perf_counter() - started)
    return seconds


def train_speed(experiment: Experiment, steps: int) -> dict[str, Any]:
    """Times training steps twice: one by one, and in groups.

    Rates are those of whole groups, and of all seeds together.

    Args:
        experiment: What to train.
        steps: How many steps are timed each way; groups round it up.
    """
    groups = -(-steps // GROUP)
    first, stepper = WARM_UP + steps, Stepper(experiment)
    grouped = range(first, first + groups * GROUP)
    stepper.compile(grouped.stop)
    step_seconds = single_steps(stepper, steps)
    group_seconds = grouped_steps(stepper, first, groups)
    memory = peak_memory()
    seeds, sizes = experiment.num_seeds, problem_sizes(experiment)
    size = seeds * experiment.optim.micro_batch_size
    seconds, samples = sum(group_seconds), len(grouped) * size
    width = row_width(experiment.data)
    rows = samples // experiment.data.problems_per_row
    flops = seeds * sum(step_flops(experiment, step) for step in grouped)
    useful = seeds * sum(useful_flops(experiment, sizes, step) for step in grouped)
    peak = matmul_peak()
    all_peaks = jax.device_count() * peak["flops_per_second"]
    return {
        "num_params": stepper.num_params,
        "num_seeds": seeds,
        "samples_per_step": size,
        "row_tokens": width,
        "problem_tokens": float(sizes[:, 0].mean()),
        "samples_per_second": samples / seconds,
        "tokens_per_second": rows * width / seconds,
        "useful_tokens_per_second": samples * float(sizes[:, 0].mean()) / seconds,
        "step_seconds": spread(step_seconds) | {"raw": step_seconds},
        "group_seconds": spread(group_seconds) | {"raw": group_seconds},
        "group_steps": GROUP,
        "compile_seconds": stepper.compile_seconds,
        "programs": len(stepper.programs),
        "peak_memory": memory,
        "program_bytes": max(map(program_bytes, stepper.programs.values())),
        "flops_per_second": flops / seconds,
        "useful_flops_per_second": useful / seconds,
        "matmul_peak": peak,
        "share_of_peak": flops / seconds / all_peaks,
        "useful_share_of_peak": useful / seconds / all_peaks,
    }


def train_profile(experiment: Experiment, steps: int) -> dict[str, Any]:
    """Device time of a training step by part of the model, by the profiler.

    Of the deepest step: all recurrences, as many with gradient as there can be. Seconds
    of operations are added up, so on a CPU, which runs several at once, their sum is
    above the seconds of the step.
    """
    k = experiment.loss.max_backprop
    depth = Depth(experiment.model.num_recurrences - k, k)
    stepper = Stepper(experiment)
    program = compile_step(experiment, k, stepper.state)
    stepper.programs[k] = program

    def advance(count: int) -> TrainState:
        for _ in range(count):
            stepper.advance(depth)
        return stepper.state

    jax.block_until_ready(advance(WARM_UP))
    seconds = timed(lambda: advance(steps)) / steps
    profile = profiling.traced(lambda: advance(steps))
    parts = profiling.shares(profile, profiling.operations(program.as_text()), steps)
    return {
        "steps": steps,
        "recurrences": list(depth),
        "seconds_per_step": seconds,
        "parts": [part._asdict() for part in parts],
    }


def train_scaling(experiment: Experiment, steps: int) -> list[dict[str, Any]]:
    """Step time and planned memory at several batch sizes, then at several depths.

    Up to the config's own size, or past it where that has fewer than four layers.
    """
    model, optim = experiment.model, experiment.optim
    size, layers = optim.micro_batch_size, model.num_layers
    deep = (layers // 4, layers // 2, layers)
    sizes = [(size // part, layers) for part in (4, 2, 1) if size // part]
    sizes += [(size, n) for n in (deep if layers >= 4 else (1, 2, 4, 8))]
    rows = []
    for rows_per_step, num_layers in dict.fromkeys(sizes):
        scaled = dataclasses.replace(
            experiment,
            model=dataclasses.replace(model, num_layers=num_layers),
            optim=dataclasses.replace(
                optim, batch_size=rows_per_step, micro_batch_size=rows_per_step
            ),
        )
        speed = train_speed(scaled, steps)
        names = ("samples_per_step", "num_params", "program_bytes", "compile_seconds")
        seconds = speed["samples_per_step"] / speed["samples_per_second"]
        rows.append(
            {"layers": num_layers, "seconds_per_step": seconds}
            | {name: speed[name] for name in names}
        )
    return rows


def data_speed(experiment: Experiment, steps: int) -> dict[str, Any]:
    """Examples a second of the batches of training, drawn on the device."""
    size = experiment.optim.micro_batch_size
    draw = jax.jit(partial(training_batch, experiment.data, batch_size=size))
    key = jax.random.key(experiment.seed)
    first = timed(lambda: draw(key, jnp.int32(0)))
    indices = [jnp.int32(step) for step in range(GROUP)]
    groups = -(-steps // GROUP)
    seconds = [timed(lambda: [draw(key, i) for i in indices]) for _ in range(groups)]
    return {
        "samples_per_step": size,
        "row_tokens": row_width(experiment.data),
        "examples_per_second": groups * GROUP * size / sum(seconds),
        "group_seconds": spread(seconds) | {"raw": seconds},
        "group_steps": GROUP,
        "first_call_seconds": first,
    }
