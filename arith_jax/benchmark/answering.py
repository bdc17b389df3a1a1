"""Speed of evaluation and decoding, measured; no flags, no files."""

import dataclasses
import statistics
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from arith_jax import vocab
from arith_jax.benchmark.timing import peak_memory, spread, timed
from arith_jax.config.experiment import Experiment
from arith_jax.data.batch import evaluation_batch
from arith_jax.evaluation.evaluate import exact_match
from arith_jax.model.decode import decode
from arith_jax.model.transformer import Transformer, init_params, num_params
from arith_jax.tasks.task import Layout

DECODED_LENGTHS = (20, 60, 100)  # digits of both operands
DECODED_BATCH = 100  # sums


def eval_speed(experiment: Experiment, repeats: int) -> dict[str, Any]:
    """Seconds of the config's whole grid: the first pass compiles, later ones do not.

    Without `repeats` there are no figures of later ones. The weights are the initial
    ones: right or wrong takes the same time.
    """
    model = Transformer(experiment.model, experiment.execution)
    params = init_params(model, jax.random.key(experiment.seed))
    config = dataclasses.replace(experiment.eval, diagonal_samples=0, set_samples=0)
    requests = config.requests(experiment.data.task, experiment.data.max_cell)

    def whole_grid() -> Mapping[str, Any]:
        return exact_match(experiment, params, requests)

    first = timed(whole_grid)
    warm = [timed(whole_grid) for _ in range(repeats)]
    counts = [count for cells in requests.values() for _, _, count in cells]
    measured = {
        "num_params": num_params(params),
        "cells": len(counts),
        "sums": sum(counts),
        "grid_seconds_with_compilation": first,
        "peak_memory": peak_memory(),
    }
    if warm:
        measured["grid_seconds"] = spread(warm) | {"raw": warm}
        measured["sums_per_second"] = sum(counts) / statistics.median(warm)
    return measured


def decode_speed(experiment: Experiment, repeats: int) -> dict[str, Any]:
    """Seconds to decode a batch of sums greedily, with the cache, at several lengths.

    The weights are the initial ones; the number of tokens does not depend on them.
    """
    data, task = experiment.data, experiment.data.task
    model = Transformer(experiment.model, experiment.execution)
    params = init_params(model, jax.random.key(experiment.seed))
    rows = []
    for digits in DECODED_LENGTHS:
        cell = digits, digits
        layout = Layout(cell, task.row_width(*cell))
        num_new = task.answer_width(*cell) + 1
        experiment.model.check_table(data.max_position_id(cell))
        experiment.model.check_row(layout.width + num_new)
        examples = np.zeros((DECODED_BATCH, 4), np.int32)
        examples[:, 0] = list(task.eval_sets).index(task.subtasks[0])
        examples[:, 1:3], examples[:, 3] = digits, np.arange(DECODED_BATCH)
        key = jax.random.key(0)
        batch = evaluation_batch(task, key, jnp.array(examples), layout, data.scheme)
        lengths = jnp.argmax(batch.mask, axis=1) + 1
        longest = int(lengths.max())
        is_prompt = jnp.arange(longest)[None] < lengths[:, None]
        ids = jnp.where(is_prompt, batch.ids[:, :longest], vocab.PAD)
        places = jnp.where(is_prompt, batch.positions[:, :longest], 0)
        arguments = model, params, ids, lengths
        run = partial(decode, *arguments, num_new=num_new, positions=places)
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
