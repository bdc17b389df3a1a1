"""Rows of any task as texts, for the tests of tasks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from arith_jax.tasks.one_size import OneSizeTask
from arith_jax.tasks.task import Layout


@functools.partial(jax.jit, static_argnums=(0, 3, 4))
def sample_rows(task, key, cells, layout, kind=None):
    keys = jax.random.split(key, cells.shape[0])
    return jax.vmap(lambda k, cell: task.sample(k, cell, layout, kind=kind))(
        keys, cells
    )


def texts_of(task, ids):
    return [task.vocab.decode(row) for row in np.asarray(ids).tolist()]


def has_one_size(task):
    """Whether both sizes of every cell are the same."""
    return isinstance(task, OneSizeTask)


def draw(task, count, max_cell, kind=None, *, seed=0, low=1):
    """Texts and cells of `count` rows; sizes are uniform on `low` to `max_cell`.

    `kind` None is a training example; else the name of an evaluation set.
    """
    max_cell = (max_cell, max_cell) if isinstance(max_cell, int) else max_cell
    key_a, key_b, key = jax.random.split(jax.random.key(seed), 3)
    sizes = [
        jax.random.randint(k, (count,), min(low, size), size + 1)
        for k, size in zip((key_a, key_b), max_cell, strict=True)
    ]
    cells = jnp.stack(sizes[:1] * 2 if has_one_size(task) else sizes, axis=1)
    if kind is not None:
        kind = list(task.eval_sets).index(kind)
    layout = Layout(max_cell, task.row_width(*max_cell))
    ids = sample_rows(task, key, cells, layout, kind)
    return texts_of(task, ids), list(map(tuple, np.asarray(cells).tolist()))


def check_answers(task, texts):
    """Every row ends with the answer that Python gives to its prompt."""
    assert texts
    for text in texts:
        prompt, _, answer = text.rpartition("=")
        assert answer == task.true_answer(prompt + "=")
