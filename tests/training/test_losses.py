import collections
import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import pytest

from arith_jax.config.training import LossConfig
from arith_jax.data.batch import Batch, evaluation_batch
from arith_jax.model.transformer import Transformer, init_params
from arith_jax.positions.schemes import Abacus
from arith_jax.tasks.addition import Addition
from arith_jax.tasks.task import Layout
from arith_jax.training import losses
from arith_jax.training.losses import Depth
from tests.helpers import assert_trees_close


def hand_batch():
    ids = jnp.array([[5, 17, 2, 3], [4, 17, 1, 0]])
    mask = jnp.array([[False, True, True, False], [False, True, False, False]])
    zeros = jnp.zeros_like(ids)
    return Batch(ids, zeros, jnp.roll(ids, -1, axis=1), mask, zeros)


@jax.jit
def example_batch():
    task, cell = Addition(), (4, 4)
    rows = jnp.array([[0, *cell, i] for i in range(3)])
    layout = Layout(cell, task.row_width(*cell))
    return evaluation_batch(task, jax.random.key(5), rows, layout, Abacus())


def looped(tiny):
    """A model of one layer, applied twice, and its parameters."""
    config = dataclasses.replace(
        tiny,
        num_layers=1,
        num_recurrences=2,
        injection="recurrence",
        initial_state="noise",
    )
    model = Transformer(config)
    return model, jax.jit(init_params, static_argnums=0)(model, jax.random.key(0))


def test_cross_entropy_by_hand():
    logits = jnp.zeros((2, 4, 5)).at[0, 1, 2].set(2.0).at[1, 1, 1].set(1.0)
    normal = lambda x: math.log(4 + math.exp(x)) - x
    expected = (normal(2.0) + math.log(5) + normal(1.0)) / 3
    loss = losses.cross_entropy(logits, hand_batch())
    assert float(loss) == pytest.approx(expected, rel=1e-6)


def test_a_row_in_which_nothing_counts_is_not_right():
    batch = hand_batch()
    knowing = jax.nn.one_hot(jnp.roll(batch.ids, -1, axis=1), 20)
    assert losses.correct_answers(knowing, batch).tolist() == [True, True]
    cut = batch.replace(mask=batch.mask.at[1].set(False))
    assert losses.correct_answers(knowing, cut).tolist() == [True, False]


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
    assert losses.correct_answers(logits, batch).tolist() == [True, True]
    no_eos = jax.nn.one_hot(jnp.array([[9, 2, 4, 9], [9, 1, 9, 9]]), 10)
    assert losses.correct_answers(no_eos, batch).tolist() == [False, True]
    metrics = losses.measure(no_eos, batch, jnp.zeros(()))
    assert float(metrics.token_accuracy) == pytest.approx(2 / 3)
    assert float(metrics.exact_match) == 0.5


def test_the_full_pass_has_all_recurrences(tiny):
    model, params = looped(tiny)
    # Without a random state passes of equal depth have equal losses.
    model = Transformer(dataclasses.replace(model.config, initial_state="embedding"))

    @functools.partial(jax.jit, static_argnums=1)
    def loss(num_frozen, alpha):
        depth, config = Depth(num_frozen, 1), LossConfig(alpha=alpha)
        inputs = (model, params, example_batch(), jax.random.key(3))
        return losses.progressive_loss(*inputs, depth=depth, config=config)[0]

    full = loss(jnp.asarray(0), 0.0)
    assert float(full) == pytest.approx(float(loss(jnp.asarray(1), 1.0)), rel=1e-6)
    assert abs(full - loss(jnp.asarray(0), 1.0)) > 1e-4


def test_progressive_loss_is_the_convex_combination(tiny):
    model, params = looped(tiny)

    @functools.partial(jax.jit, static_argnums=1)
    def part(params, alpha):
        return jax.value_and_grad(
            lambda p: losses.progressive_loss(
                model,
                p,
                example_batch(),
                jax.random.key(3),
                depth=Depth(jnp.asarray(0), 1),
                config=LossConfig(alpha=alpha),
            )[0]
        )(params)

    full, full_gradient = part(params, 0.0)
    random, random_gradient = part(params, 1.0)
    assert abs(full - random) > 1e-4
    value, gradient = part(params, 0.3)
    mix = lambda x, y: 0.7 * x + 0.3 * y
    assert float(value) == pytest.approx(float(mix(full, random)), rel=1e-5)
    expected = jax.tree.map(mix, full_gradient, random_gradient)
    assert_trees_close(gradient, expected, 1e-5)


def test_the_full_pass_can_have_an_offset_of_its_own(tiny):
    config = dataclasses.replace(
        looped(tiny)[0].config,
        positions=("abacus",),
        table_size=40,
        abacus_far="bias",
    )
    model, batch = Transformer(config), example_batch()
    params = jax.jit(init_params, static_argnums=0)(model, jax.random.key(0))
    shifted = jnp.where(batch.positions > 0, batch.positions + 9, 0)

    @functools.partial(jax.jit, static_argnums=0)
    def loss(alpha, positions, full_positions):
        return losses.progressive_loss(
            model,
            params,
            batch.replace(positions=positions),
            jax.random.key(3),
            depth=Depth(jnp.asarray(0), 1),
            config=LossConfig(alpha=alpha),
            full_positions=full_positions,
        )[0]

    parts = [loss(0.0, shifted, None), loss(1.0, batch.positions, None)]
    assert abs(parts[0] - loss(0.0, batch.positions, None)) > 1e-4
    mixed = loss(0.25, batch.positions, shifted)
    expected = 0.75 * parts[0] + 0.25 * parts[1]
    assert float(mixed) == pytest.approx(float(expected), rel=1e-6)


def test_reduction_none_divides_by_every_position_but_the_last():
    logits = jax.random.normal(jax.random.key(0), (2, 4, 5))
    mean = losses.cross_entropy(logits, hand_batch())
    none = losses.cross_entropy(logits, hand_batch(), reduction="none")
    assert float(none) == pytest.approx(float(mean) * 3 / 6)


@pytest.mark.parametrize(
    ("recurrences", "factor"),
    [(1, 1.25), (2, 1.5), (3, 1.5), (4, 1.0), (6, 5 / 6), (8, 0.75), (16, 0.625)],
)
def test_throttle_is_the_original_s_constant(recurrences, factor):
    max_backprop = max(recurrences // 2, 1)
    throttle = losses.throttle_factor(recurrences, max_backprop)
    assert throttle == pytest.approx(factor)


def test_throttle_and_reduction_reach_the_training_loss(tiny):
    model, params = looped(tiny)
    batch = example_batch()

    @functools.partial(jax.jit, static_argnums=0)
    def loss(config):
        key, depth = jax.random.key(3), Depth(jnp.asarray(0), 1)
        arguments = model, params, batch, key
        return losses.progressive_loss(*arguments, depth=depth, config=config)[0]

    plain = float(loss(LossConfig()))
    assert float(loss(LossConfig(throttle=True))) == pytest.approx(
        1.5 * plain, rel=1e-5
    )
    counted = float(batch.mask.sum()) / (batch.mask.size - len(batch.mask))
    none = float(loss(LossConfig(reduction="none")))
    assert none == pytest.approx(counted * plain, rel=1e-5)


def test_depths_follow_the_paper_s_distribution():
    draw = lambda step: losses.sample_depth(4, 2, step=step)
    count = collections.Counter(map(draw, range(8000)))
    expected = {
        (n, k): 1 / 4 / min(4 - n, 2) for n in range(4) for k in (1, 2) if k <= 4 - n
    }
    assert set(count) == set(expected)
    for pair, share in expected.items():
        assert count[pair] / 8000 == pytest.approx(share, abs=0.02)
    assert draw(5) == draw(5)
    assert losses.sample_depth(1, 1, step=9) == (0, 1)
