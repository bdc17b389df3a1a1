"""What makes no difference to the logits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arith_jax import vocab
from arith_jax.config.model import Execution
from arith_jax.model.transformer import Transformer, init_params
from tests.helpers import assert_trees_close, slow_but
from tests.model.examples import (
    LOOPED,
    POSITIONS,
    WRITTEN,
    batch_of,
    changed_model,
    forward,
    random_params,
    relative_distance,
)


@pytest.mark.parametrize(
    "name", slow_but(("relative", "rotary abacus", "nope"), ("relative",))
)
def test_an_offset_changes_nothing_where_ids_are_compared(tiny, name):
    model = changed_model(tiny, POSITIONS[name] | {"abacus_far": "mask"})
    params, batch = random_params(model), batch_of()
    shifted = jnp.where(batch.positions > 0, batch.positions + 70, 0)
    logits, with_offset = (
        forward(model, params, batch.ids, positions, num_segments=1)
        for positions in (batch.positions, shifted)
    )
    np.testing.assert_array_equal(logits, with_offset)


def test_a_shift_of_all_ids_changes_nothing_where_none_is_hidden(tiny):
    model = changed_model(tiny, POSITIONS["relative, bias"])
    params, batch = random_params(model), batch_of()
    logits, shifted = (
        forward(model, params, batch.ids, batch.positions + shift, num_segments=1)
        for shift in (0, 100)
    )
    assert_trees_close(shifted, logits, 1e-5)


def test_rows_of_a_table_moved_with_the_ids_change_nothing(tiny):
    model = changed_model(tiny, POSITIONS["abacus"])
    params, batch = random_params(model), batch_of()
    shift, table = 30, params["abacus"]["embedding"]
    table = table.at[1 + shift : 20 + shift].set(table[1:20])
    other = table.at[1 + shift, 0].add(1.0)
    shifted = jnp.where(batch.positions > 0, batch.positions + shift, 0)

    def logits(table, positions):
        changed = params | {"abacus": {"embedding": table}}
        return forward(model, changed, batch.ids, positions, num_segments=1)

    plain = logits(table, batch.positions)
    assert_trees_close(logits(table, shifted), plain, 1e-6)
    assert relative_distance(logits(other, shifted), plain) > 1e-3


# How rows can be told apart from their padding, or from other rows.
ALONE = POSITIONS | {"looped": LOOPED}
USUAL = ("relative", "abacus", "fire, rope", "looped")


@pytest.mark.parametrize("name", slow_but(ALONE, USUAL))
def test_permuting_the_rows_permutes_the_logits(tiny, name):
    model = changed_model(tiny, ALONE[name])
    params, batch = random_params(model), batch_of()
    order = jnp.array([2, 0, 4, 1, 3])
    plain = forward(model, params, batch.ids, batch.positions, num_segments=1)
    assert jnp.max(jnp.abs(plain - plain[order])) > 0.1 * jnp.max(jnp.abs(plain))
    ids, positions = batch.ids[order], batch.positions[order]
    permuted = forward(model, params, ids, positions, num_segments=1)
    assert_trees_close(permuted, plain[order], 1e-5)


def padded(ids, before, width):
    """Rows with so many `PAD` before them each, and as many after as fit."""
    rows = np.full((len(ids), width), vocab.PAD, np.int32)
    for row, values, count in zip(rows, np.asarray(ids), before, strict=True):
        row[count : count + len(values)] = values
    return jnp.array(rows)


@pytest.mark.parametrize("name", slow_but(ALONE, USUAL))
def test_padding_before_and_after_a_row_changes_no_logits(tiny, name):
    model, before = changed_model(tiny, ALONE[name]), (0, 1, 4, 16, 64)
    params, batch = random_params(model), batch_of()
    plain = forward(model, params, batch.ids, batch.positions, num_segments=1)
    length = batch.ids.shape[1]
    # The row without `PAD` before it has 64 after it.
    ids = padded(batch.ids, before, length + max(before))
    positions = model.config.scheme.position_ids(ids)
    logits = forward(model, params, ids, positions)
    for row, expected, count in zip(logits, plain, before, strict=True):
        assert_trees_close(row[count : count + length], expected, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scheme", "prompts"),
    [
        ("lines", ["321x654=", "32x5=", "9x999="]),
        ("items", ["A:03,B:714,C:5=", "b:6,c:41=", "X:9="]),
        ("terms", ["21+43+5=", "7+8=", "999+1="]),
        ("groups", ["74/3=", "7/21=", "5/5="]),
        ("roots", ["√0510=", "√70=", "√9999="]),
        ("passes", ["A:03,B:714=", "b:6,c:41=", "X:9="]),
    ],
)
def test_padding_changes_no_logits_of_written_work(tiny, scheme, prompts):
    task, before = WRITTEN[scheme], (0, 5, 33)
    changes = {"scheme": task.schemes[scheme], "vocab_size": len(task.vocab)}
    model = changed_model(tiny, changes)
    params, batch = random_params(model), batch_of(prompts, task, scheme)
    plain = forward(model, params, batch.ids, batch.positions, num_segments=1)
    length = batch.ids.shape[1]
    ids = padded(batch.ids, before, length + max(before))
    logits = forward(model, params, ids, model.config.scheme.position_ids(ids))
    for row, expected, tokens, count in zip(
        logits, plain, batch.ids, before, strict=True
    ):
        is_token = np.asarray(tokens != vocab.PAD)
        actual = row[count : count + length][is_token]
        assert_trees_close(actual, expected[is_token], 1e-5)


def test_bfloat16_is_near_float32_and_keeps_parameters_in_float32(tiny):
    half = Transformer(tiny, Execution(dtype="bfloat16"))
    shapes = jax.eval_shape(lambda: init_params(half, jax.random.key(0)))
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}
    params, batch = random_params(half), batch_of()
    full_logits, half_logits = (
        forward(model, params, batch.ids, batch.positions, num_segments=1)
        for model in (Transformer(tiny), half)
    )
    assert half_logits.dtype == jnp.float32
    # bfloat16 keeps 8 bits of a number.
    assert 2**-12 < relative_distance(half_logits, full_logits) < 2**-4


@pytest.mark.parametrize("dtype", ["uint8", "uint32", "int64"])
def test_ids_of_any_integer_dtype_give_the_logits_of_int32(tiny, dtype):
    # Both a table and differences of ids, which would wrap in an unsigned dtype.
    changes = {"positions": ("abacus", "relative_abacus"), "table_size": 128}
    model = changed_model(tiny, changes)
    params, batch = random_params(model), batch_of(["9+12=", "4+5="])
    ids = padded(batch.ids, (3, 0), batch.ids.shape[1] + 3)
    positions = model.config.scheme.position_ids(ids)
    expected = forward(model, params, ids, positions)
    with jax.enable_x64(dtype == "int64"):
        converted = ids.astype(dtype), positions.astype(dtype)
        assert converted[0].dtype == dtype
        actual = forward(model, params, *converted)
    np.testing.assert_array_equal(actual, expected)
