from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arith_jax import vocab
from arith_jax.config.training import Noise
from arith_jax.model import banded, pieces
from arith_jax.model.attention import Attention
from arith_jax.model.forward import forward as run_forward
from arith_jax.model.transformer import Transformer
from tests.helpers import assert_trees_close
from tests.model.examples import (
    LOOPED,
    TASK,
    batch_of,
    changed_model,
    forward,
    random_params,
)

NUMBERS, SYMBOLS = TASK.max_numbers_per_row, TASK.max_symbols_per_row


def sums(lengths, width=None):
    """A row for each pair of numbers of digits."""
    rng = np.random.default_rng(3)
    numbers = [
        ["".join(map(str, rng.integers(1, 10, digits))) for digits in pair]
        for pair in lengths
    ]
    return batch_of([TASK.prompt("+".join(pair)) for pair in numbers], width=width)


@pytest.mark.parametrize("window", [0, 1, 2, 5])
def test_every_visible_key_is_listed_once(window):
    batch = sums([(80, 80), (1, 1), (3, 77), (60, 2)], 256)
    blocks = banded.fitting_blocks(NUMBERS, SYMBOLS, window)
    band = jax.jit(banded.make_band, static_argnums=1)(batch.positions, blocks)
    band = jax.tree.map(np.asarray, band)
    ids = np.asarray(batch.positions)
    ends = (np.asarray(batch.ids) == vocab.EOS).argmax(axis=1)
    for row, end in enumerate(ends):
        is_visible = np.abs(ids[row, :, None] - ids[row, None]) <= window
        is_visible |= (ids[row] == 0)[None]
        is_visible &= np.tri(ids.shape[1], dtype=bool)
        seen = set()
        for queries, keys in zip(band.queries[row], band.keys[row], strict=True):
            keys = keys[keys < ids.shape[1]]
            for query in queries[queries <= end]:
                listed = keys[is_visible[query, keys]]
                expected = np.flatnonzero(is_visible[query])
                np.testing.assert_array_equal(np.sort(listed), expected)
                seen.add(int(query))
        assert seen == set(range(end + 1))


def test_no_digit_is_listed_twice_in_a_row_of_few_symbols():
    ids = jnp.array([[1, 2, 3, 0, 1, 2]])
    band = banded.make_band(ids, banded.Blocks(32, 4))
    listed = np.asarray(band.keys[0, 0])
    assert sorted(listed[listed < 6]) == list(range(6))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"abacus_window": 4} | LOOPED,
        pytest.param(
            {
                "positions": ("abacus", "rotary_abacus", "fire", "rope"),
                "table_size": 90,
            },
            marks=pytest.mark.slow,
        ),
        {"positions": (), "length_scale": True},
    ],
    ids=str,
)
def test_blocks_change_no_logits(tiny, changes):
    model = changed_model(tiny, changes)
    assert model.config.abacus_far == "mask"
    params = random_params(model)
    batch = sums([(80, 80), (1, 1), (3, 77), (60, 2)], 250)
    blocks = banded.fitting_blocks(NUMBERS, SYMBOLS, model.config.abacus_window)
    whole, in_blocks = (
        forward(model, params, batch.ids, batch.positions, num_segments=1, blocks=b)
        for b in (None, blocks)
    )
    # Only padding, which nothing counts or sees, may differ.
    is_token = np.asarray(batch.ids) != vocab.PAD
    assert_trees_close(in_blocks[is_token], whole[is_token], 1e-5)
    assert jnp.all(jnp.isfinite(in_blocks))


def test_a_cpu_computes_few_blocks_at_a_time_with_the_same_result(tiny, monkeypatch):
    model = changed_model(tiny, {"positions": ("relative_abacus",)})
    params, batch = random_params(model), sums([(80, 80), (3, 77)], 250)
    options = {"num_segments": 1, "blocks": banded.Blocks(32, SYMBOLS)}
    logits = partial(run_forward, model, params, batch.ids, batch.positions, **options)
    sizes, weigh = [], Attention.weigh_at_once

    def watched(layer, q, k, v, context):
        sizes.append(len(q))
        return weigh(layer, q, k, v, context)

    monkeypatch.setattr(Attention, "weigh_at_once", watched)
    # Two rows of eight blocks, cut into pieces of which the last is filled up.
    monkeypatch.setattr(pieces, "CPU_BLOCKS", 3)
    in_pieces = logits()
    assert set(sizes) == {3}
    sizes.clear()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert_trees_close(in_pieces, logits(), 1e-5)
    assert set(sizes) == {16}


def test_key_noise_is_refused_in_blocks_and_only_in_training(tiny):
    model = Transformer(tiny, noise=Noise(key_noise=1.0))
    params = jax.eval_shape(lambda: random_params(model))
    batch, blocks = sums([(5, 5)], 64), banded.Blocks(32, 3)

    def trace(key):
        options = {"key": key, "blocks": blocks}
        logits = lambda params, ids: forward(model, params, ids, ids, **options)
        return jax.eval_shape(logits, params, batch.ids)

    assert trace(None).shape == (1, 64, tiny.vocab_size)
    with pytest.raises(ValueError, match=r"what disturbs .*, needs whole rows"):
        trace(jax.random.key(0))
