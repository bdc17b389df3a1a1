import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arith_jax import gate


@pytest.mark.parametrize("in_kernel", [False, True])
def test_gate_is_that_of_exact_gelu(in_kernel, monkeypatch):
    # Blocks of 8 rows, of which the last is not whole.
    monkeypatch.setattr(gate, "HELD", 8 * 32)
    x, weights = (
        3 * jax.random.normal(jax.random.key(i), (3, 7, 64 // (1 + i))) for i in (0, 1)
    )

    def expected(x):
        u, g = jnp.split(x, 2, axis=-1)
        return jnp.sum(jax.nn.gelu(g, approximate=False) * u * weights)

    own = lambda x: jnp.sum(gate.gated(in_kernel, x) * weights)
    found = jax.jit(jax.value_and_grad(own))(x)
    for one, other in zip(found, jax.value_and_grad(expected)(x), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_both_normal_distributions_are_one():
    x = jnp.linspace(-12, 12, 2001)
    for own, other in zip(gate.normal_in_kernel(x), gate.normal(x), strict=True):
        np.testing.assert_allclose(own, other, atol=2e-7)


def test_kernels_take_halves_of_a_power_of_two():
    fitting = [n for n in (8, 16, 24, 1024, 2048, 4096) if gate.fits(n)]
    assert fitting == [16, 1024, 2048]
