import jax
import jax.numpy as jnp
import pytest

from arith_jax.kernels import geglu as module
from arith_jax.kernels.geglu import geglu
from tests.kernels.compare import assert_close


def by_formula(x):
    """The exact GELU of the second half, times the first."""
    u, g = jnp.split(x, 2, axis=-1)
    return jax.nn.gelu(g, approximate=False) * u


def value_and_gradient(function, x):
    """What a function returns, and the gradient of a weighted sum of that."""
    weights = jax.random.normal(jax.random.key(1), (*x.shape[:-1], x.shape[-1] // 2))

    def loss(x):
        out = function(x)
        return jnp.sum(out * weights), out

    gradients, out = jax.jit(jax.grad(loss, has_aux=True))(x)
    return out, gradients


@pytest.mark.parametrize("use_kernel", [False, True])
def test_value_and_gradient_are_those_of_exact_gelu(use_kernel, monkeypatch):
    # Blocks of 8 rows, of which the last is not whole.
    monkeypatch.setattr(module, "ELEMENTS_PER_PROGRAM", 8 * 32)
    x = 3 * jax.random.normal(jax.random.key(0), (3, 7, 64))
    actual = value_and_gradient(lambda x: geglu(x, use_kernel=use_kernel), x)
    assert_close(actual, value_and_gradient(by_formula, x), tolerance=5e-6)


def test_halves_that_are_no_power_of_two_are_left_to_plain_operations(monkeypatch):
    monkeypatch.setattr(module, "run_kernel", None)
    x = jax.random.normal(jax.random.key(0), (3, 7, 48))
    actual = value_and_gradient(lambda x: geglu(x, use_kernel=True), x)
    assert_close(actual, value_and_gradient(by_formula, x), tolerance=5e-6)


def test_the_normal_distribution_without_erf_is_as_exact_as_its_series():
    x = jnp.linspace(-12, 12, 2001)
    cdf, density = module.normal_distribution_triton(x)
    expected_cdf, expected_density = module.normal_distribution(x)
    assert_close(cdf, expected_cdf, tolerance=5e-7)
    assert_close(density, expected_density, tolerance=5e-7)
