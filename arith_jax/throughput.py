"""Speed of training, evaluation, decoding and data, measured; no flags, no files.

Every measurement waits for the device before it reads the clock. Imports everything a
run does.
"""

import dataclasses
import resource
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from arith_jax import decode, evaluate, losses, profiling, runlog, train, vocab
from arith_jax.data import evaluation_batch, training_batch
from arith_jax.experiment import Experiment, step_flops
from arith_jax.model import init_params, num_params
from arith_jax.packing import PackedBatch, count_in_problems

WARM_UP = 5  # steps: the first ones fill caches and the queue
GROUP = 10  # steps dispatched between two waits for the device
# Middle of the budget: full learning rate, and batches that have grown where they do.
FRACTION = np.float32(0.5)
DECODED_LENGTHS = (20, 60, 100)  # digits of both operands
DECODED_BATCH = 100  # sums


def spread(seconds: Sequence[float]) -> dict[str, float]:
    """Median, smallest and largest."""
    return {
        "median": statistics.median(seconds),
        "min": min(seconds),
        "max": max(seconds),
    }


def timed(call: Callable[[], Any]) -> float:
    """Seconds until what a call returns is ready on the device."""
    started = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - started


def matmul_peak() -> dict[str, Any]:
    """Rate of a big square product, best of several: bfloat16, float32 on a CPU."""
    on_cpu = jax.default_backend() == "cpu"
    size, dtype = (2048, jnp.float32) if on_cpu else (8192, jnp.bfloat16)
    repeats = 2 if on_cpu else 20
    # Random numbers: equal ones take a GPU less power, and so less time.
    left = jax.random.normal(jax.random.key(0), (size, size), dtype)
    product = jax.jit(jnp.matmul)
    jax.block_until_ready(product(left, left))
    best = min(
        timed(lambda: [product(left, left) for _ in range(repeats)]) for _ in range(8)
    )
    return {
        "size": size,
        "dtype": jnp.dtype(dtype).name,
        "flops_per_second": repeats * 2 * size**3 / best,
    }


def peak_memory() -> dict[str, Any]:
    """Most bytes in use so far: of the device, or of the process where it is a CPU."""
    stats = jax.local_devices()[0].memory_stats()
    if stats is None:
        kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return {"of": "process", "bytes": 1024 * kilobytes}
    return {"of": "device", "bytes": stats["peak_bytes_in_use"]}


def program_bytes(compiled: Any) -> int:
    """Memory of a compiled step by XLA's own plan: state, temporaries, outputs."""
    plan = compiled.memory_analysis()
    return (
        plan.argument_size_in_bytes
        + plan.output_size_in_bytes
        - plan.alias_size_in_bytes
        + plan.temp_size_in_bytes
    )


def problem_sizes(experiment: Experiment, steps: int = 8) -> np.ndarray:
    """Of every problem of the first steps' batches, tokens and those predicted [n 2].

    Without padding, and without an `EOS` that is not read.
    """
    key, _ = jax.random.split(jax.random.key(experiment.seed))
    size = experiment.optim.micro_batch_size
    draw = jax.jit(partial(training_batch, experiment.data), static_argnums=2)
    sizes = []
    for batch in (draw(key, step, size) for step in range(steps)):
        predicted = losses.targets(batch)[1]
        if isinstance(batch, PackedBatch):
            tokens, answers = batch.lengths, count_in_problems(predicted, batch)
        else:
            tokens = jnp.sum(batch.ids != vocab.PAD, axis=1)
            answers = jnp.sum(predicted, axis=1)
        sizes.append(np.column_stack([tokens.reshape(-1), answers.reshape(-1)]))
    return np.concatenate(sizes)


def useful_flops(experiment: Experiment, sizes: np.ndarray, step: int) -> float:
    """Operations of one step if each problem were computed alone, without padding."""
    model, seed = experiment.model, experiment.seed
    is_partly_read = experiment.data.most_read is not None
    total = 0
    found, counts = np.unique(sizes, axis=0, return_counts=True)
    for (length, answer), count in zip(found.tolist(), counts.tolist(), strict=True):
        read = answer if is_partly_read else None
        for n, k in losses.depths(model, experiment.train.alpha, seed, step):
            total += count * runlog.flops_per_row(model, length, n, k, read)
    return experiment.optim.micro_batch_size * total / len(sizes)


def train_speed(experiment: Experiment, steps: int) -> dict[str, Any]:
    """Times training steps twice: one by one, and in groups.

    Single steps are timed by reading the metrics of the step before, so that the device
    always has one to do; the train loop does that less often where steps are short.
    Rates are those of whole groups, from a wait for the device to the next.

    Args:
        experiment: What to train.
        steps: How many steps are timed each way; groups round it up.
    """
    model, seed = experiment.model, experiment.seed
    state = train.make_state(model, experiment.optim, seed)
    parameters = num_params(state.params)
    groups = -(-steps // GROUP)
    first_grouped = WARM_UP + steps
    drawn = [
        losses.sample_depth(model, seed, step)
        for step in range(first_grouped + groups * GROUP)
    ]
    needed = sorted({k for _, k in drawn})
    compiling = partial(train.compile_step, experiment.train_configs, state=state)
    started = time.perf_counter()
    with ThreadPoolExecutor() as pool:
        programs = dict(zip(needed, pool.map(compiling, needed), strict=True))
    compile_seconds = time.perf_counter() - started

    def advance(state: train.TrainState, step: int):
        n, k = drawn[step]
        return programs[k](state, np.int32(seed), FRACTION, np.int32(n))

    pending, step_seconds, last = None, [], 0.0
    for step in range(first_grouped):
        state, metrics = advance(state, step)
        if pending is not None:
            train.read_metrics(pending, step)
        now = time.perf_counter()
        if step >= WARM_UP:
            step_seconds.append(now - last)
        pending, last = metrics, now
    jax.block_until_ready(state)
    group_seconds = []
    for group in range(groups):
        started = time.perf_counter()
        for index in range(GROUP):
            state, _ = advance(state, first_grouped + GROUP * group + index)
        jax.block_until_ready(state)
        group_seconds.append(time.perf_counter() - started)
    memory = peak_memory()
    grouped = range(first_grouped, len(drawn))
    size, sizes = experiment.optim.micro_batch_size, problem_sizes(experiment)
    seconds = sum(group_seconds)
    samples = len(grouped) * size
    rows = samples // experiment.data.problems_per_row
    flops = sum(step_flops(experiment, step) for step in grouped)
    useful = sum(useful_flops(experiment, sizes, step) for step in grouped)
    peak = matmul_peak()
    return {
        "num_params": parameters,
        "samples_per_step": size,
        "row_tokens": experiment.data.width,
        "problem_tokens": float(sizes[:, 0].mean()),
        "samples_per_second": samples / seconds,
        "tokens_per_second": rows * experiment.data.width / seconds,
        "useful_tokens_per_second": samples * float(sizes[:, 0].mean()) / seconds,
        "step_seconds": spread(step_seconds) | {"raw": step_seconds},
        "group_seconds": spread(group_seconds) | {"raw": group_seconds},
        "group_steps": GROUP,
        "compile_seconds": compile_seconds,
        "programs": len(programs),
        "peak_memory": memory,
        "program_bytes": max(map(program_bytes, programs.values())),
        "flops_per_second": flops / seconds,
        "useful_flops_per_second": useful / seconds,
        "matmul_peak": peak,
        "share_of_peak": flops / seconds / peak["flops_per_second"],
        "useful_share_of_peak": useful / seconds / peak["flops_per_second"],
    }


def train_profile(experiment: Experiment, steps: int) -> dict[str, Any]:
    """Device time of a training step by part of the model, by the profiler.

    Of the deepest step: all recurrences, as many with gradient as there can be. Seconds
    of operations are added up, so on a CPU, which runs several at once, their sum is
    above the seconds of the step.
    """
    model, seed = experiment.model, np.int32(experiment.seed)
    n, k = model.recurrences - model.max_backprop, model.max_backprop
    state = train.make_state(model, experiment.optim, experiment.seed)
    program = train.compile_step(experiment.train_configs, k, state)

    def advance(count: int) -> train.TrainState:
        nonlocal state
        for _ in range(count):
            state, _ = program(state, seed, FRACTION, np.int32(n))
        return state

    jax.block_until_ready(advance(WARM_UP))
    seconds = timed(lambda: advance(steps)) / steps
    profile = profiling.traced(lambda: advance(steps))
    parts = profiling.shares(profile, profiling.operations(program.as_text()), steps)
    return {
        "steps": steps,
        "recurrences": [n, k],
        "seconds_per_step": seconds,
        "parts": [part._asdict() for part in parts],
    }


def train_scaling(experiment: Experiment, steps: int) -> list[dict[str, Any]]:
    """Step time and planned memory at several batch sizes, then at several depths.

    Up to the config's own size, or past it where that has fewer than four layers.
    """
    model, optim = experiment.model, experiment.optim
    size, layers = optim.micro_batch_size, model.layers
    deep = (layers // 4, layers // 2, layers)
    chosen = [(size // part, layers) for part in (4, 2, 1) if size // part]
    chosen += [(size, n) for n in (deep if layers >= 4 else (1, 2, 4, 8))]
    rows = []
    for rows_per_step, num_layers in dict.fromkeys(chosen):
        scaled = dataclasses.replace(
            experiment,
            model=dataclasses.replace(model, layers=num_layers),
            optim=dataclasses.replace(
                optim, batch_size=rows_per_step, micro_batch_size=rows_per_step
            ),
        )
        found = train_speed(scaled, steps)
        names = ("samples_per_step", "num_params", "program_bytes", "compile_seconds")
        seconds = found["samples_per_step"] / found["samples_per_second"]
        rows.append(
            {"layers": num_layers, "seconds_per_step": seconds}
            | {name: found[name] for name in names}
        )
    return rows


def eval_speed(experiment: Experiment, repeats: int) -> dict[str, Any]:
    """Seconds of the config's whole grid: the first pass compiles, later ones do not.

    Without `repeats` there are no figures of later ones. The weights are the initial
    ones: right or wrong takes the same time.
    """
    params = init_params(experiment.model, jax.random.key(experiment.seed))
    config = dataclasses.replace(experiment.eval, diagonal_samples=0, set_samples=0)
    requests = config.requests(experiment.data.make_task(), experiment.data.most)

    def whole_grid() -> Mapping[str, Any]:
        return evaluate.exact_match(
            experiment.model, experiment.data, config, params, requests
        )

    first = timed(whole_grid)
    warm = [timed(whole_grid) for _ in range(repeats)]
    counts = [count for cells in requests.values() for _, _, count in cells]
    found = {
        "num_params": num_params(params),
        "cells": len(counts),
        "sums": sum(counts),
        "grid_seconds_with_compilation": first,
        "peak_memory": peak_memory(),
    }
    if warm:
        found["grid_seconds"] = spread(warm) | {"raw": warm}
        found["sums_per_second"] = sum(counts) / statistics.median(warm)
    return found


def decode_speed(experiment: Experiment, repeats: int) -> dict[str, Any]:
    """Seconds to decode a batch of sums greedily, with the cache, at several lengths.

    The weights are the initial ones; the number of tokens does not depend on them.
    """
    model, task = experiment.model, experiment.data.make_task()
    params = init_params(model, jax.random.key(experiment.seed))
    rows = []
    for digits in DECODED_LENGTHS:
        width, num_new = (
            task.row_width(digits, digits),
            task.answer_width(digits, digits) + 1,
        )
        model.check_table(experiment.data.longest_position((digits, digits)), 0)
        model.check_row(width + num_new)
        cells = np.zeros((DECODED_BATCH, 4), np.int32)
        cells[:, 0] = list(task.kinds).index(task.parts[0])
        cells[:, 1:3], cells[:, 3] = digits, np.arange(DECODED_BATCH)
        size, scheme = (digits, digits), experiment.data.position_ids
        batch = evaluation_batch(
            task, jax.random.key(0), jnp.array(cells), size, width, scheme
        )
        lengths = jnp.argmax(batch.mask, axis=1)
        longest = int(lengths.max())
        prompt = jnp.arange(longest)[None] < lengths[:, None]
        ids = jnp.where(prompt, batch.ids[:, :longest], vocab.PAD)
        places = jnp.where(prompt, batch.positions[:, :longest], 0)
        run = partial(
            decode.decode, model, params, ids, lengths, num_new, places, scheme=scheme
        )
        first = timed(run)
        seconds = [timed(run) for _ in range(repeats)]
        rows.append(
            {
                "digits": digits,
                "batch": DECODED_BATCH,
                "new_tokens": num_new,
                "seconds": spread(seconds) | {"raw": seconds},
                "tokens_per_second": DECODED_BATCH
                * num_new
                / statistics.median(seconds),
                "first_call_seconds": first,
            }
        )
    return {"num_params": num_params(params), "lengths": rows}


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
        "row_tokens": experiment.data.width,
        "examples_per_second": groups * GROUP * size / sum(seconds),
        "group_seconds": spread(seconds) | {"raw": seconds},
        "group_steps": GROUP,
        "first_call_seconds": first,
    }
