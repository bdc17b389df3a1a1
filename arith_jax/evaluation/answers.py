"""A model's own answers to written expressions."""

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
