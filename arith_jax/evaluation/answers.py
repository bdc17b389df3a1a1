"""A model's own answers to written expressions."""

import random
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from arith_jax import vocab
from arith_jax.config.data import round_up
from arith_jax.config.experiment import Experiment
from arith_jax.model.decode import decode
from arith_jax.model.transformer import Transformer


def answers(
    experiment: Experiment, params: Any, expressions: Sequence[str]
) -> list[str]:
    """The model's own answers to expressions of its task, such as `98+120`.

    Args:
        experiment: Model, task and how the device computes.
        params: Parameters, or their moving average.
        expressions: In the form that people write.

    Raises:
        ValueError: If an expression is not one of the task, or its numbers are too long
            for the model's position table.
    """
    data, config = experiment.data, experiment.model
    task = data.task
    texts = [task.prompt(text) for text in expressions]
    prompts = [task.vocab.encode(text) for text in texts]
    cells = [task.sizes(text) for text in texts]
    # Few distinct shapes: every new one costs a compilation.
    num_new = round_up(max(task.answer_width(*cell) for cell in cells) + 1, 32)
    width = round_up(max(len(prompt) for prompt in prompts), 64)
    config.check_table(max(data.max_position_id(cell) for cell in cells))
    config.check_row(width + num_new)
    ids = np.full((len(prompts), width), vocab.PAD, np.int32)
    for row, prompt in zip(ids, prompts, strict=True):
        row[: len(prompt)] = prompt
    lengths = jnp.array([len(prompt) for prompt in prompts])
    model = Transformer(config, experiment.execution)
    tokens = decode(
        model,
        params,
        jnp.array(ids),
        lengths,
        num_new=num_new,
        positions=data.scheme.position_ids(jnp.array(ids)),
    )
    written = [task.vocab.decode(row) for row in np.asarray(tokens).tolist()]
    return [task.read_answer(*pair) for pair in zip(texts, written, strict=True)]


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
