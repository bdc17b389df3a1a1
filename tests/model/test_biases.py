import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arith_jax.model import biases
from tests.helpers import assert_trees_close

# Windows on both sides of the change of method.
WINDOWS = (2, biases.MAX_SELECTS + 1)


def relative_bias(window, num_heads=2):
    """The module and random values of its parameter."""
    values = np.random.default_rng(0).standard_normal((2 * window + 3, num_heads))
    bias = jnp.array(values, jnp.float32)
    return biases.RelativeBias(num_heads, window), {"params": {"bias": bias}}


def fire_bias():
    """A small module and random parameters that use both sides of its threshold."""
    module, index = biases.FireBias(num_heads=2, hidden=4), jnp.arange(7)
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), index, index))
    draw = lambda leaf: jnp.array(rng.standard_normal(leaf.shape), jnp.float32)
    variables = jax.tree.map(draw, shapes)
    # |multiplier * 512| is about 3.
    variables["params"] |= {"slope": jnp.array(0.4), "multiplier": jnp.array(-0.00625)}
    return module, variables


def test_rotation_equals_a_loop():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 5, 2, 6)).astype(np.float32)
    positions = np.array([[0, 1, 7, 3, 2]])
    expected = np.zeros_like(x)
    for t, h, i in itertools.product(range(5), range(2), range(3)):
        angle = positions[0, t] * 10_000.0 ** (-i / 3)
        first, second = x[0, t, h, i], x[0, t, h, i + 3]
        expected[0, t, h, i] = first * math.cos(angle) - second * math.sin(angle)
        expected[0, t, h, i + 3] = second * math.cos(angle) + first * math.sin(angle)
    actual = jax.jit(biases.rotate)(jnp.array(x), jnp.array(positions))
    assert_trees_close(actual, expected, 1e-6)


def test_rotated_logits_depend_on_differences_only():
    rng = np.random.default_rng(1)
    q, k = jnp.array(rng.standard_normal((2, 1, 4, 1, 8)), jnp.float32)

    @jax.jit
    def logits(positions):
        rotated = (biases.rotate(x, positions) for x in (q, k))
        return jnp.einsum("bthc,bshc->bts", *rotated)

    positions = jnp.array([[3, 1, 4, 1]])
    # Float32 knows the angle of position 40 to 2e-6.
    assert_trees_close(logits(positions + 40), logits(positions), 1e-5)
    other = jnp.array([[3, 1, 4, 2]])
    assert not np.allclose(logits(other), logits(positions), rtol=1e-2)


@pytest.mark.parametrize("window", WINDOWS)
def test_relative_bias_equals_a_loop(window):
    query, key = [5, 0, 2], [1, 2, 3, 4, 5, 6, 9, 0]
    module, variables = relative_bias(window)
    weight, edge = variables["params"]["bias"], window + 1
    difference = np.clip(np.subtract.outer(query, key), -edge, edge)
    expected = 20 * np.moveaxis(np.asarray(weight)[difference + edge], -1, 0)
    actual = jax.jit(module.apply)(variables, jnp.array([query]), jnp.array([key]))
    assert_trees_close(actual, expected[None], 1e-6)


def test_relative_bias_is_unchanged_by_a_shift_of_all_ids():
    ids = jnp.array(np.random.default_rng(0).integers(0, 12, (2, 9)))
    module, variables = relative_bias(1, num_heads=3)
    bias = jax.jit(lambda ids: module.apply(variables, ids, ids))
    np.testing.assert_array_equal(bias(ids + 123), bias(ids))


def test_fire_equals_a_loop():
    module, variables = fire_bias()
    index = jnp.arange(7)[None]
    actual = jax.jit(module.apply)(variables, index, index)
    p = jax.tree.map(np.asarray, variables["params"])
    slope, threshold = float(p["slope"]), abs(float(p["multiplier"]) * 512)
    assert 0 < threshold < 6
    expected = np.zeros_like(actual)
    for i, j in itertools.product(range(7), range(7)):
        z = math.log1p(abs(slope * (i - j)))
        z /= math.log1p(abs(slope * max(i, threshold))) + 1e-6
        hidden = np.maximum(z * p["hidden"]["kernel"][0] + p["hidden"]["bias"], 0)
        expected[0, :, i, j] = hidden @ p["out"]["kernel"] + p["out"]["bias"]
    assert_trees_close(actual, expected, 1e-6)


def test_random_places_are_uniform_subsets_in_order():
    draw = jax.vmap(lambda key: biases.random_places(key, 3, 5))
    places = np.asarray(draw(jax.random.split(jax.random.key(0), 5000)))
    assert (np.diff(places, axis=1) > 0).all()
    subsets, counts = np.unique(places, axis=0, return_counts=True)
    assert len(subsets) == 10
    np.testing.assert_allclose(counts, 500, atol=100)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("dtype", ["uint8", "uint32", "int64"])
def test_relative_bias_of_any_integer_dtype_is_that_of_int32(window, dtype):
    # Small queries and large keys: unsigned differences would wrap.
    query, key = np.array([[0, 1, 200]]), np.array([[3, 0, 2, 255]])
    module, variables = relative_bias(window)
    bias = jax.jit(module.apply)
    expected = bias(variables, jnp.int32(query), jnp.int32(key))
    with jax.enable_x64(dtype == "int64"):
        ids = jnp.array(query, dtype), jnp.array(key, dtype)
        assert ids[0].dtype == dtype
        actual = bias(variables, *ids)
    np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize(
    "make",
    [fire_bias, *(lambda w=window: relative_bias(w) for window in WINDOWS)],
    ids=["fire", *(f"relative, window {window}" for window in WINDOWS)],
)
def test_biases_of_any_leading_axes_are_mapped_ones(make):
    module, variables = make()
    rng = np.random.default_rng(0)
    query, key = (jnp.array(rng.integers(0, 9, (2, 3, n))) for n in (4, 5))
    bias = lambda query, key: module.apply(variables, query, key)
    expected = jax.jit(jax.vmap(jax.vmap(bias)))(query, key)
    assert expected.shape == (2, 3, 2, 4, 5)
    compiled = jax.jit(bias)
    assert_trees_close(compiled(query, key), expected, 1e-6)
    # Leading axes can be missing, and those of size one are broadcast.
    assert_trees_close(compiled(query[0, 0], key[0, 0]), expected[0, 0], 1e-6)
    shared = jnp.broadcast_to(key[:1], key.shape)
    assert_trees_close(compiled(query, key[:1]), compiled(query, shared), 1e-6)


def test_log_length_factor_is_one_at_its_reference():
    factor = biases.log_length_factor(jnp.array([[31, 1023]]))
    np.testing.assert_allclose(factor, [[1.0, 2.0]], rtol=1e-6)


def test_entries_of_a_table_are_looked_up_for_every_pair_of_tokens():
    table = np.random.default_rng(0).standard_normal((2, 5, 5)).astype(np.float32)
    index = np.array([[0, 1, 2, 0], [4, 0, 1, 3]])
    lookup = jax.jit(biases.lookup_pairs, static_argnums=2)
    actual = lookup(jnp.array(table), jnp.array(index), "float32")
    for row, places in zip(actual, index, strict=True):
        np.testing.assert_array_equal(row, table[:, places[:, None], places[None]])
    half = lookup(jnp.array(table), jnp.array(index), "bfloat16")
    assert half.dtype == jnp.bfloat16
    # bfloat16 keeps 8 bits of a number.
    np.testing.assert_allclose(np.float32(half), actual, rtol=2**-8)
