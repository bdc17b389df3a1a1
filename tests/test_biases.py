import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arith_jax import biases


def test_rotation_equals_a_loop():
    x = np.asarray(jax.random.normal(jax.random.key(0), (1, 5, 2, 6)))
    pos = np.array([[0, 1, 7, 3, 2]])
    expected = np.zeros_like(x)
    for t, h, i in itertools.product(range(5), range(2), range(3)):
        angle = pos[0, t] * 10_000.0 ** (-i / 3)
        first, second = x[0, t, h, i], x[0, t, h, i + 3]
        expected[0, t, h, i] = first * math.cos(angle) - second * math.sin(angle)
        expected[0, t, h, i + 3] = second * math.cos(angle) + first * math.sin(angle)
    found = biases.rotate(jnp.array(x), jnp.array(pos))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_rotated_logits_depend_on_differences_only():
    q, k = jax.random.normal(jax.random.key(1), (2, 1, 4, 1, 8))
    pos = jnp.array([[3, 1, 4, 1]])
    logits = [
        jnp.einsum(
            "bthc,bshc->bts",
            biases.rotate(q, pos + shift),
            biases.rotate(k, pos + shift),
        )
        for shift in (0, 40)
    ]
    np.testing.assert_allclose(logits[0], logits[1], atol=1e-4)


@pytest.mark.parametrize("window", [2, biases.MOST_SELECTS + 1])
def test_relative_bias_equals_a_loop(window):
    query, key = jnp.array([[5, 0, 2]]), jnp.array([[1, 2, 3, 4, 5, 6, 9, 0]])
    weight = jax.random.normal(jax.random.key(0), (2 * window + 3, 2))
    module = biases.RelativeBias(heads=2, window=window)
    found = module.apply({"params": {"bias": weight}}, query, key)
    for h, t, s in itertools.product(range(2), range(3), range(8)):
        edge = window + 1
        difference = max(-edge, min(edge, int(query[0, t] - key[0, s])))
        expected = 20 * float(weight[difference + edge, h])
        assert found[0, h, t, s] == pytest.approx(expected)


def test_relative_bias_is_unchanged_by_a_shift_of_all_ids():
    ids = jax.random.randint(jax.random.key(0), (2, 9), 0, 12)
    weight = jax.random.normal(jax.random.key(1), (5, 3))
    module = biases.RelativeBias(heads=3, window=1)
    found = [
        module.apply({"params": {"bias": weight}}, ids + shift, ids + shift)
        for shift in (0, 123)
    ]
    assert jnp.array_equal(*found)


def test_window_hides_far_digits_only():
    query, key = jnp.array([[5, 0]]), jnp.array([[1, 3, 5, 7, 8, 0]])
    hidden = biases.out_of_window(query, key, 2)
    assert hidden[0, 0].tolist() == [True, False, False, False, True, False]
    assert hidden[0, 1].tolist() == [False, True, True, True, True, False]


def test_fire_equals_a_loop():
    module = biases.FireBias(heads=2, hidden=4)
    pos = jnp.arange(7)[None]
    params = module.init(jax.random.key(0), pos, pos)["params"]
    params = jax.tree.map(
        lambda x: x + 0.3 * jax.random.normal(jax.random.key(1), x.shape), params
    )
    # Both branches of the threshold: |m * 512| is about 3.
    params["multiplier"] = jnp.array(-3.2 / 512)
    found = module.apply({"params": params}, pos, pos)
    p = jax.tree.map(np.asarray, params)
    for i, j in itertools.product(range(7), range(7)):
        c, threshold = float(p["slope"]), abs(float(p["multiplier"]) * 512)
        z = math.log1p(abs(c * (i - j)))
        z /= math.log1p(abs(c * max(i, threshold))) + 1e-6
        hidden = np.maximum(z * p["hidden"]["kernel"][0] + p["hidden"]["bias"], 0)
        expected = hidden @ p["out"]["kernel"] + p["out"]["bias"]
        np.testing.assert_allclose(found[0, :, i, j], expected, atol=1e-5)


def test_log_length_factor_is_one_at_its_reference():
    factor = biases.log_length_factor(jnp.array([[31, 1023]]))
    np.testing.assert_allclose(factor, [[1.0, 2.0]], rtol=1e-6)


def test_entries_of_a_table_are_chosen_for_every_pair_of_tokens():
    table = jax.random.normal(jax.random.key(0), (2, 5, 5))
    index = jnp.array([[0, 1, 2, 0], [4, 0, 1, 3]])
    found = biases.chosen(table, index, "float32")
    for row, own in enumerate(index):
        expected = table[:, own[:, None], own[None, :]]
        np.testing.assert_allclose(found[row], expected, rtol=1e-6)
    assert biases.chosen(table, index, "bfloat16").dtype == jnp.bfloat16
