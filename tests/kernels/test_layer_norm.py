import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from arith_jax.kernels import layer_norm as module
from arith_jax.kernels.layer_norm import layer_norm
from tests.kernels.compare import assert_close

OPTIONS = {"eps": 1e-6, "dtype": "float32"}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Blocks of 8 rows, of which the last is not whole; 3 programs for 5 blocks."""
    monkeypatch.setattr(module, "ELEMENTS_PER_PROGRAM", 8 * 64)
    monkeypatch.setattr(module, "ELEMENTS_PER_BACKWARD_PROGRAM", 8 * 64)
    monkeypatch.setattr(module, "BACKWARD_PROGRAMS", 3)


def example(width=64):
    """Three arrays of rows, a scale, and a bias."""
    keys = jax.random.split(jax.random.key(0), 5)
    rows = [jax.random.normal(key, (4, 9, width)) + 1 for key in keys[:3]]
    return *rows, *(jax.random.normal(key, (width,)) for key in keys[3:])


def flax_norm(inputs, scale, bias):
    """The norm of a sum as Flax computes it."""
    norm = nn.LayerNorm(OPTIONS["eps"], use_fast_variance=False)
    return norm.apply({"params": {"scale": scale, "bias": bias}}, sum(inputs))


def value_and_gradients(function, weights, *arguments):
    """What a function returns, and the gradients of a weighted sum of that."""

    def loss(*arguments):
        out = function(*arguments)
        terms = jax.tree.map(lambda x, weight: jnp.sum(x * weight), out, weights)
        return sum(jax.tree.leaves(terms)), out

    numbers = range(len(arguments))
    gradients, out = jax.jit(jax.grad(loss, tuple(numbers), has_aux=True))(*arguments)
    return out, gradients


@pytest.mark.parametrize("use_kernel", [False, True])
@pytest.mark.parametrize("count", [1, 2])
def test_layer_norm_of_a_sum_is_that_of_flax(use_kernel, count):
    *inputs, weights, scale, bias = example()
    arguments = tuple(inputs[:count]), scale, bias
    ours = lambda *args: layer_norm(*args, **OPTIONS, use_kernel=use_kernel)
    actual = value_and_gradients(ours, weights, *arguments)
    expected = value_and_gradients(flax_norm, weights, *arguments)
    assert_close(actual, expected, tolerance=1e-5)


def test_rows_that_are_no_power_of_two_are_left_to_plain_operations(monkeypatch):
    monkeypatch.setattr(module, "run_forward", None)
    monkeypatch.setattr(module, "run_backward", None)
    x, weights, _, scale, bias = example(width=48)
    ours = lambda *args: layer_norm(*args, **OPTIONS, use_kernel=True)
    actual = value_and_gradients(ours, weights, (x,), scale, bias)
    expected = value_and_gradients(flax_norm, weights, (x,), scale, bias)
    assert_close(actual, expected, tolerance=1e-5)
