"""Rows of any task as texts, for the tests of tasks."""

import functools

import jax
import numpy as np


@functools.partial(jax.jit, static_argnums=(0, 4, 5))
def rows_of(task, key, a, b, sizes, width, kind=None):
    keys = jax.random.split(key, a.shape[0])
    sample = lambda k, a, b: task.sample(k, a, b, sizes, width, kind)
    return jax.vmap(sample)(keys, a, b)


def texts_of(task, ids):
    return [task.vocab.decode(row) for row in np.asarray(ids).tolist()]


def draw(task, count, most, kind=None, seed=0, low=1):
    """Texts and cells of `count` rows; sizes are uniform on `low` to `most`.

    `kind` None is a training example; else the name of an evaluation set.
    """
    most = (most, most) if isinstance(most, int) else most
    key_a, key_b, key = jax.random.split(jax.random.key(seed), 3)
    a = jax.random.randint(key_a, (count,), min(low, most[0]), most[0] + 1)
    b = jax.random.randint(key_b, (count,), min(low, most[1]), most[1] + 1)
    if kind is not None:
        kind = list(task.kinds).index(kind)
    ids = rows_of(task, key, a, b, most, task.row_width(*most), kind)
    cells = zip(np.asarray(a).tolist(), np.asarray(b).tolist(), strict=True)
    return texts_of(task, ids), list(cells)


def check_truth(task, texts):
    """Every row ends with the answer that Python gives to its prompt."""
    for text in texts:
        prompt, _, answer = text.rpartition("=")
        assert answer == task.truth(prompt + "=")
