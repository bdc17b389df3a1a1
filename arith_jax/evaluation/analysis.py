"""What a trained model does: accuracy by depth, place and carry chain; attention."""

import random
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from arith_jax import vocab
from arith_jax.config.data import round_up
from arith_jax.config.experiment import Experiment
from arith_jax.data.batch import Batch, evaluation_batch, make_batch
from arith_jax.model.forward import attention_weights, forward
from arith_jax.model.transformer import Transformer
from arith_jax.tasks.task import Layout

NUM_SAMPLES = 200  # per size and set


@partial(jax.jit, static_argnums=0)
def predictions(
    model: Transformer, params: Any, batch: Batch, recurrences: Int[Array, ""]
) -> Int[Array, "b t"]:
    """Teacher-forced argmax after any number of recurrences, one program for all."""
    logits = forward(
        model,
        params,
        batch.ids,
        batch.positions,
        num_frozen=recurrences,
        num_trained=0,
        num_segments=1,
    )
    return jnp.argmax(logits, axis=-1)


def sample_batch(experiment: Experiment, size: int, sets: Sequence[str] = ()) -> Batch:
    """Fixed examples of the cell (size, size), as many of each set.

    Args:
        experiment: Whose task they are of.
        size: On both axes.
        sets: Names of evaluation sets; default: the first subtask.

    Raises:
        ValueError: If a table of positions, or of keys, ends before this size.
    """
    task, cell = experiment.data.task, (size, size)
    experiment.data.check_sizes(cell)
    experiment.model.check_table(experiment.data.max_position_id(cell))
    width = round_up(task.row_width(*cell), 64)
    experiment.model.check_row(width)
    names = list(task.eval_sets)
    numbers = [names.index(name) for name in sets or task.subtasks[:1]]
    rows = jnp.array([[k, *cell, i] for i in range(NUM_SAMPLES) for k in numbers])
    key = jax.random.key(experiment.eval.seed)
    draw = jax.jit(evaluation_batch, static_argnums=(0, 3, 4))
    return draw(task, key, rows, Layout(cell, width), experiment.data.scheme)


def written_batch(experiment: Experiment, expression: str) -> tuple[Batch, int]:
    """An expression with its true answer as one row, and where the answer starts."""
    task = experiment.data.task
    prompt = task.prompt(expression)
    ids = [*task.vocab.encode(prompt + task.true_answer(prompt)), vocab.EOS]
    batch = make_batch(task, jnp.array([ids]), experiment.data.scheme)
    return batch, len(prompt)


class Analysis:
    """A trained model, looked into.

    Attributes:
        experiment: What it was trained by.
        model: The model.
        params: Its parameters.
    """

    def __init__(self, experiment: Experiment, model: Transformer, params: Any):
        self.experiment = experiment
        self.model = model
        self.params = params
        self.num_recurrences = experiment.model.num_recurrences

    def predict(self, batch: Batch, recurrences: int) -> np.ndarray:
        """Teacher-forced argmax after so many recurrences."""
        count = jnp.int32(recurrences)
        return np.asarray(predictions(self.model, self.params, batch, count))

    def right_tokens(self, batch: Batch, recurrences: int) -> Bool[np.ndarray, "b t"]:
        """Which tokens are answer tokens that are right."""
        right = self.predict(batch, recurrences) == np.asarray(batch.labels)
        return right & np.asarray(batch.mask)

    def exact(self, batch: Batch, recurrences: int) -> Bool[np.ndarray, " b"]:
        """Which whole answers are right."""
        right = self.right_tokens(batch, recurrences)
        return np.all(right | ~np.asarray(batch.mask), axis=1)

    def recurrence_sweep(
        self, sizes: Sequence[int], max_recurrences: int
    ) -> dict[int, list[float]]:
        """Share of right answers of each size after 1, 2, ... recurrences."""
        shares = {}
        for size in sizes:
            batch = sample_batch(self.experiment, size)
            counts = range(1, max_recurrences + 1)
            shares[size] = [float(self.exact(batch, n).mean()) for n in counts]
        return shares

    def thoughts(self, expression: str, max_recurrences: int) -> tuple[str, list[str]]:
        """The true answer and what the model would write after each recurrence.

        Every token is predicted with the true answer before it, so a line shows what is
        known at that depth, not what decoding would make of an early mistake.
        """
        batch, start = written_batch(self.experiment, expression)
        task = self.experiment.data.task
        truth = task.true_answer(task.prompt(expression))
        lines = []
        for recurrences in range(1, max_recurrences + 1):
            row = self.predict(batch, recurrences)[0]
            answer = row[start - 1 : start + len(truth)].tolist()
            lines.append("".join(symbol(task.vocab, token) for token in answer))
        return truth + symbol(task.vocab, vocab.EOS), lines

    def attention_maps(self, expression: str) -> tuple[np.ndarray, list[str]]:
        """Attention [layers in depth, heads, queries, keys] and the tokens' labels."""
        batch, _ = written_batch(self.experiment, expression)
        weights = attention_weights(self.model, self.params, batch.ids, batch.positions)
        maps = np.asarray(weights[:, :, 0])
        table = self.experiment.data.task.vocab
        labels = [symbol(table, token) for token in np.asarray(batch.ids)[0].tolist()]
        return maps.reshape(-1, *maps.shape[2:]), labels

    def digit_accuracy(self, sizes: Sequence[int]) -> dict[int, list[float]]:
        """Share of right tokens at every place of the answer, `EOS` among them."""
        shares = {}
        for size in sizes:
            batch = sample_batch(self.experiment, size)
            right, mask = self.right_tokens(batch, self.num_recurrences), batch.mask
            # Answers differ in length: place i of a row is its i-th counted token.
            mask = np.asarray(mask)
            place = np.cumsum(mask, axis=1) - 1
            counts = np.zeros((2, int(mask.sum(axis=1).max())))
            for row, values in enumerate((right, mask)):
                np.add.at(counts[row], place[values], 1)
            shares[size] = (counts[0] / counts[1]).tolist()
        return shares

    def carry_accuracy(self, size: int) -> dict[int, tuple[int, int]]:
        """Right and all sums by the length of their longest carry chain.

        Half of the sums are uniform; the others have one long chain each, so that every
        length occurs.

        Raises:
            ValueError: If the task has no carries.
        """
        task = self.experiment.data.task
        example = task.prompt(task.examples(random.Random(0), [])[0])
        if task.longest_carry(example) is None:
            raise ValueError(
                f"carry chains are for addition; this run is {task.title}: choose "
                "another picture"
            )
        batch = sample_batch(self.experiment, size, ("uniform", "chains"))
        right = self.exact(batch, self.num_recurrences)
        counts: dict[int, tuple[int, int]] = {}
        for ids, is_right in zip(np.asarray(batch.ids).tolist(), right, strict=True):
            prompt = task.vocab.decode(ids).partition("=")[0] + "="
            chain = task.longest_carry(prompt) or 0
            correct, total = counts.get(chain, (0, 0))
            counts[chain] = (correct + int(is_right), total + 1)
        return dict(sorted(counts.items()))


def symbol(table: vocab.Vocab, token: int) -> str:
    """One character for any token: a dot for the end, a blank for padding."""
    special = {vocab.EOS: ".", vocab.PAD: " "}
    return special.get(token) or table.decode([token]) or "?"
