import collections
import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arith_jax import losses
from arith_jax.data import Batch
from tests.test_model import example_batch, init_params, looped


def hand_batch():
    ids = jnp.array([[5, 17, 2, 3], [4, 17, 1, 0]])
    mask = jnp.array([[False, False, True, True], [False, False, True, False]])
    return Batch(ids, jnp.zeros_like(ids), mask)


def test_cross_entropy_by_hand():
    logits = jnp.zeros((2, 4, 5)).at[0, 1, 2].set(2.0).at[1, 1, 1].set(1.0)
    normal = lambda x: math.log(4 + math.exp(x)) - x
    expected = (normal(2.0) + math.log(5) + normal(1.0)) / 3
    found = losses.cross_entropy(logits, hand_batch())
    assert float(found) == pytest.approx(expected, rel=1e-6)


def test_a_row_in_which_nothing_counts_is_not_right():
    batch = hand_batch()
    knowing = jax.nn.one_hot(jnp.roll(batch.ids, -1, axis=1), 20)
    assert losses.correct_rows(knowing, batch).tolist() == [True, True]
    cut = batch._replace(mask=batch.mask.at[1].set(False))
    assert losses.correct_rows(knowing, cut).tolist() == [True, False]


def test_only_tokens_before_counted_ones_have_a_gradient():
    logits = jax.random.normal(jax.random.key(0), (2, 4, 5))
    gradient = jax.grad(losses.cross_entropy)(logits, hand_batch())
    used = jnp.any(gradient != 0, axis=-1)
    assert used.tolist() == [
        [False, True, True, False],
        [False, True, False, False],
    ]


def test_rows_are_right_only_if_every_counted_token_is():
    batch = hand_batch()
    logits = jax.nn.one_hot(jnp.array([[9, 2, 3, 9], [9, 1, 9, 9]]), 10)
    assert losses.correct_rows(logits, batch).tolist() == [True, True]
    no_eos = jax.nn.one_hot(jnp.array([[9, 2, 4, 9], [9, 1, 9, 9]]), 10)
    assert losses.correct_rows(no_eos, batch).tolist() == [False, True]
    metrics = losses.measure(no_eos, batch, jnp.zeros(()))
    assert float(metrics.token_accuracy) == pytest.approx(2 / 3)
    assert float(metrics.exact_match) == 0.5


def test_progressive_loss_is_the_convex_combination(tiny):
    config = dataclasses.replace(looped(tiny, recurrences=2), layers=1)
    params, batch = init_params(config, jax.random.key(0)), example_batch()

    @functools.partial(jax.jit, static_argnums=1)
    def part(params, weight):
        return jax.value_and_grad(
            lambda p: losses.progressive_loss(
                config, p, batch, jax.random.key(3), jnp.asarray(0), 1, weight
            )[0]
        )(params)

    full, full_gradient = part(params, 0.0)
    random, random_gradient = part(params, 1.0)
    assert abs(full - random) > 1e-4
    value, gradient = part(params, 0.3)
    mix = lambda x, y: 0.7 * x + 0.3 * y
    assert float(value) == pytest.approx(float(mix(full, random)), rel=1e-5)
    jax.tree.map(
        lambda g, x, y: np.testing.assert_allclose(g, mix(x, y), atol=2e-5),
        gradient,
        full_gradient,
        random_gradient,
    )


def test_reduction_none_divides_by_every_position_but_the_last():
    logits = jax.random.normal(jax.random.key(0), (2, 4, 5))
    mean = losses.cross_entropy(logits, hand_batch())
    none = losses.cross_entropy(logits, hand_batch(), "none")
    assert float(none) == pytest.approx(float(mean) * 3 / 6)


@pytest.mark.parametrize(
    ("recurrences", "factor"),
    [(1, 1.25), (2, 1.5), (3, 1.5), (4, 1.0), (6, 5 / 6), (8, 0.75), (16, 0.625)],
)
def test_throttle_is_the_original_s_constant(tiny, recurrences, factor):
    most = max(recurrences // 2, 1)
    config = dataclasses.replace(tiny, recurrences=recurrences, max_backprop=most)
    assert losses.throttle_factor(config) == pytest.approx(factor)


def test_throttle_and_reduction_reach_the_training_loss(tiny):
    config = dataclasses.replace(looped(tiny, recurrences=2), max_backprop=1)
    params, batch = init_params(config, jax.random.key(0)), example_batch()

    @functools.partial(jax.jit, static_argnums=(0, 1))
    def loss(reduction, throttle):
        arguments = config, params, batch, jax.random.key(3), jnp.asarray(0), 1, 1.0
        return losses.progressive_loss(*arguments, reduction, throttle)[0]

    plain = float(loss("mean", False))
    assert float(loss("mean", True)) == pytest.approx(1.5 * plain, rel=1e-5)
    counted = float(batch.mask.sum()) / (batch.mask.size - len(batch.mask))
    assert float(loss("none", False)) == pytest.approx(counted * plain, rel=1e-5)


def test_depths_follow_the_paper_s_distribution(tiny):
    config = looped(tiny, recurrences=4)
    count = collections.Counter(losses.sample_depth(config, 0, s) for s in range(8000))
    expected = {
        (n, k): 1 / 4 / min(4 - n, 2) for n in range(4) for k in (1, 2) if k <= 4 - n
    }
    assert set(count) == set(expected)
    for pair, share in expected.items():
        assert count[pair] / 8000 == pytest.approx(share, abs=0.02)
    assert losses.sample_depth(config, 0, 5) == losses.sample_depth(config, 0, 5)
    assert losses.sample_depth(tiny, 0, 9) == (0, 1)
