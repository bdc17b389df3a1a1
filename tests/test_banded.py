import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arith_jax import banded, data, model
from arith_jax.addition import Addition
from tests.models import moved
from tests.test_model import init_params

TASK = Addition()


def batch_of(lengths, width):
    rows = jnp.array([[0, a, b, i] for i, (a, b) in enumerate(lengths)])
    make = jax.jit(data.evaluation_batch, static_argnums=(0, 3, 4))
    return make(TASK, jax.random.key(3), rows, (80, 80), width)


@pytest.mark.parametrize("window", [0, 1, 2, 5])
def test_every_visible_key_is_listed_once(window):
    batch = batch_of([(80, 80), (1, 1), (3, 77), (60, 2)], 256)
    blocks = banded.fitting_blocks(TASK.num_numbers, TASK.num_symbols, window)
    band = banded.make_band(batch.positions, blocks)
    ids = np.asarray(batch.positions)
    ends = np.asarray(batch.mask).cumsum(1).argmax(1)
    for row, end in enumerate(ends):
        near = np.abs(ids[row, :, None] - ids[row, None]) <= window
        near |= (ids[row] == 0)[None]
        near &= np.tri(len(near), dtype=bool)
        seen = 0
        for queries, keys in zip(
            np.asarray(band.queries[row]), np.asarray(band.keys[row]), strict=True
        ):
            keys = keys[keys < len(near)]
            for query in queries[queries <= end]:
                listed = keys[near[query, keys]]
                assert sorted(listed) == np.flatnonzero(near[query]).tolist()
                seen += 1
        assert seen >= end + 1


def test_no_digit_is_listed_twice_in_a_row_of_few_symbols():
    ids = jnp.array([[1, 2, 3, 0, 1, 2]])
    band = banded.make_band(ids, banded.Blocks(32, 4))
    listed = np.asarray(band.keys[0, 0])
    assert sorted(listed[listed < 6]) == list(range(6))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"abacus_window": 4, "recurrences": 2, "injection": "recurrence"},
        {"positions": ("abacus", "rotary_abacus", "fire", "rope"), "table_size": 90},
        {"positions": (), "length_scale": True},
    ],
)
def test_blocks_change_nothing(tiny, changes):
    config = dataclasses.replace(tiny, abacus_far="mask", **changes)
    params = moved(init_params(config, jax.random.key(0)))
    batch = batch_of([(80, 80), (1, 1), (3, 77), (60, 2)], 250)
    blocks = banded.fitting_blocks(
        TASK.num_numbers, TASK.num_symbols, config.abacus_window
    )
    forward = jax.jit(model.forward, static_argnums=0, static_argnames="blocks")
    whole, blocked = (
        forward(config, params, batch.ids, batch.positions, blocks=b)
        for b in (None, blocks)
    )
    # Only padding, which nothing counts or sees, may differ.
    counts = np.asarray(jnp.cumsum(batch.mask[:, ::-1], axis=1)[:, ::-1] > 0)
    np.testing.assert_allclose(whole[counts], blocked[counts], atol=2e-5, rtol=2e-5)
    assert jnp.all(jnp.isfinite(blocked))


def test_key_noise_is_refused_with_blocks(tiny):
    params = init_params(tiny, jax.random.key(0))
    batch = batch_of([(5, 5)], 64)
    with pytest.raises(ValueError, match="a band is for evaluation"):
        model.forward(
            tiny,
            params,
            batch.ids,
            batch.positions,
            train=True,
            blocks=banded.Blocks(32, 3),
        )
