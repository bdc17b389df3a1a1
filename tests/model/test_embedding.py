import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from flax.nnx import bridge

from arith_jax.config.model import Execution
from arith_jax.model import embedding
from arith_jax.model.embedding import AbacusEmbedding
from tests.helpers import assert_trees_close


def abacus_embedding(rows=7, width=4):
    """The module and a random table."""
    table = np.random.default_rng(0).standard_normal((rows, width))
    variables = {"params": {"embedding": jnp.array(table, jnp.float32)}}
    return AbacusEmbedding(rows, width), variables


def test_gradient_of_rows_of_a_table_is_a_scatter_s():
    table = jax.random.normal(jax.random.key(0), (7, 4))
    ids = jnp.array([[0, 3, 3, 6], [3, 1, 0, 0]])
    weights = jax.random.normal(jax.random.key(1), (2, 4, 4))
    rows = lambda table: jnp.sum(embedding.table_rows(None, table, ids) * weights)
    plain = lambda table: jnp.sum(table[ids] * weights)
    actual, gradient = jax.value_and_grad(rows)(table)
    expected, expected_gradient = jax.value_and_grad(plain)(table)
    assert_trees_close(actual, expected, 1e-6)
    assert_trees_close(gradient, expected_gradient, 1e-6)


def test_ids_past_the_table_are_not_a_number():
    # A wrong position cannot go unnoticed.
    module, variables = abacus_embedding()
    vectors = module.apply(variables, jnp.array([6, 7, 100]))
    assert jnp.all(jnp.isfinite(vectors[0]))
    assert jnp.all(jnp.isnan(vectors[1:]))
    table = variables["params"]["embedding"]
    assert jnp.all(jnp.isnan(embedding.table_rows(None, table, jnp.array([7]))))


@pytest.mark.parametrize("kernels", [False, True])
def test_no_id_reads_another_row_under_jit(kernels):
    module, variables = abacus_embedding()
    module = module.clone(execution=Execution(kernels=kernels))
    ids = jnp.array([-(2**31), -8, -7, -1, 7, 2**31 - 1, 0, 6])
    vectors = jax.jit(module.apply)(variables, ids)
    assert jnp.all(jnp.isnan(vectors[:-2]))
    np.testing.assert_array_equal(vectors[-2:], module.apply(variables, ids)[-2:])
    assert jnp.all(jnp.isfinite(vectors[-2:]))


def test_abacus_embedding_of_any_leading_axes_is_the_mapped_one():
    module, variables = abacus_embedding()
    ids = jnp.array(np.random.default_rng(0).integers(0, 7, (2, 3, 5)))
    apply = lambda ids: module.apply(variables, ids)
    expected = jax.vmap(jax.vmap(apply))(ids)
    assert expected.shape == (2, 3, 5, 4)
    np.testing.assert_array_equal(apply(ids), expected)
    np.testing.assert_array_equal(apply(ids[0, 0]), expected[0, 0])
    np.testing.assert_array_equal(expected, variables["params"]["embedding"][ids])


@pytest.mark.parametrize("dtype", ["uint8", "uint32", "int64"])
def test_abacus_embedding_of_any_integer_dtype_is_that_of_int32(dtype):
    module, variables = abacus_embedding()
    ids = np.array([[0, 6, 3], [1, 7, 200]])
    expected = module.apply(variables, jnp.int32(ids))
    with jax.enable_x64(dtype == "int64"):
        converted = jnp.array(ids, dtype)
        assert converted.dtype == dtype
        actual = module.apply(variables, converted)
    np.testing.assert_array_equal(actual, expected)


def test_abacus_embedding_is_a_module_of_nnx_through_its_bridge():
    module, _ = abacus_embedding()
    ids = jnp.array([[1, 2, 0, 3]])
    bridged = bridge.ToNNX(module, rngs=nnx.Rngs(0))
    bridge.lazy_init(bridged, ids)
    table = bridged.embedding[...]
    assert table.shape == (7, 4)
    np.testing.assert_array_equal(bridged(ids), table[ids])
    gradient = nnx.grad(lambda module: jnp.sum(module(ids)))(bridged)
    expected = np.zeros((7, 4))
    expected[:4] = 1
    np.testing.assert_array_equal(gradient["embedding"][...], expected)
