import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arith_jax import linear, norms


@pytest.mark.parametrize("in_kernel", [False, True])
@pytest.mark.parametrize("count", [1, 2])
def test_layer_norm_of_a_sum_is_flax_s(in_kernel, count, monkeypatch):
    # Blocks of 8 rows, of which the last is not whole; 3 programs for 5 blocks.
    monkeypatch.setattr(norms, "HELD", 8 * 64)
    monkeypatch.setattr(norms, "HELD_BACKWARD", 8 * 64)
    monkeypatch.setattr(norms, "PROGRAMS", 3)
    keys = jax.random.split(jax.random.key(0), 5)
    inputs = tuple(jax.random.normal(key, (4, 9, 64)) + 1 for key in keys[:count])
    scale, bias = (jax.random.normal(key, (64,)) for key in keys[2:4])
    weights = jax.random.normal(keys[4], (4, 9, 64))

    def own(inputs, scale, bias):
        out = norms.layer_norm(inputs, scale, bias, 1e-6, "float32", in_kernel)
        return jnp.sum(out * weights)

    def flax(inputs, scale, bias):
        norm = nn.LayerNorm(1e-6, use_fast_variance=False)
        params = {"params": {"scale": scale, "bias": bias}}
        return jnp.sum(norm.apply(params, sum(inputs)) * weights)

    found = jax.jit(jax.value_and_grad(own, (0, 1, 2)))(inputs, scale, bias)
    expected = jax.jit(jax.value_and_grad(flax, (0, 1, 2)))(inputs, scale, bias)
    for one, other in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=2e-5)


def test_kernels_take_rows_of_a_power_of_two():
    assert [w for w in (8, 16, 24, 1024, 4096, 8192) if norms.fits(w)] == [
        *(16, 1024, 4096)
    ]


@pytest.mark.parametrize("in_kernel", [False, True])
def test_what_goes_past_a_norm_adds_its_gradient(in_kernel, monkeypatch):
    monkeypatch.setattr(norms, "HELD", 8 * 64)
    monkeypatch.setattr(norms, "HELD_BACKWARD", 8 * 64)
    keys = jax.random.split(jax.random.key(0), 5)
    x, past, through = (jax.random.normal(key, (4, 9, 64)) for key in keys[:3])
    scale, bias = (jax.random.normal(key, (64,)) for key in keys[3:])
    options = 1e-6, "float32", in_kernel

    def at_once(x, scale, bias):
        same, norm = norms.beside(x, scale, bias, *options)
        return jnp.sum(same * past + norm * through)

    def apart(x, scale, bias):
        norm = norms.layer_norm((x,), scale, bias, 1e-6, "float32", False)
        return jnp.sum(x * past + norm * through)

    found = jax.jit(jax.value_and_grad(at_once, (0, 1, 2)))(x, scale, bias)
    expected = jax.jit(jax.value_and_grad(apart, (0, 1, 2)))(x, scale, bias)
    for one, other in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("in_kernel", [False, True])
def test_what_is_added_after_a_norm_gets_the_gradient_of_the_sum(
    in_kernel, monkeypatch
):
    monkeypatch.setattr(norms, "HELD", 8 * 64)
    monkeypatch.setattr(norms, "HELD_BACKWARD", 8 * 64)
    keys = jax.random.split(jax.random.key(0), 6)
    *inputs, added, weights = (jax.random.normal(key, (4, 9, 64)) for key in keys[:4])
    scale, bias = (jax.random.normal(key, (64,)) for key in keys[4:])
    options = 1e-6, "float32"

    def at_once(inputs, scale, bias, added):
        return norms.layer_norm(inputs, scale, bias, *options, in_kernel, (added,))

    def apart(inputs, scale, bias, added):
        return norms.layer_norm(inputs, scale, bias, *options, False) + added

    def gradients(function):
        loss = lambda *args: jnp.sum(function(*args) ** 2 * weights)
        return jax.jit(jax.value_and_grad(loss, (0, 1, 2, 3)))(
            tuple(inputs), scale, bias, added
        )

    found, expected = gradients(at_once), gradients(apart)
    for one, other in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-4)


def test_gradient_of_rows_of_a_table_is_a_scatter_s():
    table = jax.random.normal(jax.random.key(0), (7, 4))
    ids = jnp.array([[0, 3, 3, 6], [3, 1, 0, 0]])
    weights = jax.random.normal(jax.random.key(1), (2, 4, 4))
    rows = lambda table: jnp.sum(linear.rows_of(None, table, ids) * weights)
    value, found = jax.value_and_grad(rows)(table)
    right, expected = jax.value_and_grad(lambda t: jnp.sum(t[ids] * weights))(table)
    np.testing.assert_allclose(value, right, rtol=1e-6)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    # Past the table there is nothing to find, and that shows.
    assert jnp.all(jnp.isnan(linear.rows_of(None, table, ids + 7)))
