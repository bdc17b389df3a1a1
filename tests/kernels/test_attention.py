import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arith_jax.kernels import attention
from arith_jax.kernels.attention import AttentionSpec, Tiling
from tests.kernels.compare import assert_close

ROWS, TOKENS, HEADS, WIDTH, DIFFERENCE = 2, 70, 2, 16, 3
# Tokens of each segment: more than two blocks, the last of which ends past the segment.
LENGTHS = [[13, 40, 17], [33, 1, 36]]
WINDOWED = AttentionSpec(DIFFERENCE, window=2, qk_norm=True)


def segments(lengths):
    """Number of each token's segment."""
    return jnp.array([np.repeat(np.arange(len(row)), row) for row in lengths])


def example(seed=0):
    """Queries, keys and values; position ids; learned numbers; weights of a loss."""
    keys = jax.random.split(jax.random.key(seed), 6)
    qkv = jax.random.normal(keys[0], (ROWS, TOKENS, 3, HEADS, WIDTH))
    position_ids = jax.random.randint(keys[1], (ROWS, TOKENS), 0, 8)
    factor = jax.random.uniform(keys[2], (HEADS,), minval=0.2)
    bias = jax.random.normal(keys[3], (HEADS, 2 * DIFFERENCE + 1))
    dense = jax.random.normal(keys[4], (ROWS, HEADS, TOKENS, TOKENS))
    weights = jax.random.normal(keys[5], (ROWS, TOKENS, HEADS, WIDTH))
    return qkv, position_ids, factor, bias, dense, weights


def by_formula(spec, qkv, position_ids, factor, bias, dense):
    """The same attention by the formula, with whole rows of logits."""
    q, k, v = (qkv[:, :, i] for i in range(3))
    if spec.qk_norm:
        size = lambda x: jnp.sqrt(jnp.mean(x * x, axis=-1, keepdims=True) + 1e-6)
        q, k = q / size(q), k / size(k)
    logits = jnp.einsum("bthc,bshc->bhts", q, k) * factor[None, :, None, None]
    difference = position_ids[:, :, None] - position_ids[:, None, :]
    if spec.max_difference:
        column = jnp.clip(difference, -DIFFERENCE, DIFFERENCE) + DIFFERENCE
        logits += jnp.moveaxis(bias[:, column], 0, 1)
    if spec.dense_bias:
        logits += dense
    index = jnp.arange(TOKENS)
    mask = (index[:, None] >= index[None])[None]
    if spec.packed:
        segment = segments(LENGTHS)
        mask = mask & (segment[:, :, None] == segment[:, None, :])
    if spec.window is not None:
        is_far = jnp.abs(difference) > spec.window
        mask = mask & ~(is_far & (position_ids > 0)[:, None, :])
    weights = jax.nn.softmax(jnp.where(mask[:, None], logits, -1e9), axis=-1)
    return jnp.einsum("bhts,bshc->bthc", weights, v)


def by_kernel(spec, qkv, position_ids, factor, bias, dense, lengths=LENGTHS):
    """Attention by the kernel, interpreted."""
    bounds = None
    if spec.packed:
        bounds = attention.segment_bounds(segments(lengths), len(lengths[0]))
    table = attention.make_table(factor, bias if spec.max_difference else None, HEADS)
    dense = dense if spec.dense_bias else None
    return attention.attend(spec, qkv, position_ids, table, bounds=bounds, bias=dense)


def value_and_gradients(function, spec, numbers=(0, 1, 2, 3), **options):
    """Output for the example, and gradients to qkv, factor, bias and dense bias."""
    qkv, position_ids, *learned, weights = example()

    def loss(qkv, *learned):
        out = function(spec, qkv, position_ids, *learned, **options)
        return jnp.sum(out * weights), out

    gradients, out = jax.jit(jax.grad(loss, numbers, has_aux=True))(qkv, *learned)
    return out, gradients


@pytest.mark.parametrize(
    "spec",
    [
        AttentionSpec(DIFFERENCE, window=2, qk_norm=True, packed=True),
        AttentionSpec(0, window=None, qk_norm=False, dense_bias=True, packed=True),
        AttentionSpec(DIFFERENCE, window=None, qk_norm=True, dense_bias=True),
        pytest.param(WINDOWED, marks=pytest.mark.slow),
        pytest.param(AttentionSpec(0, None, False), marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_output_and_gradients_are_those_of_the_formula(spec):
    # The factor has a gradient only with QK-norm.
    numbers = (0, 1, 2, 3) if spec.qk_norm else (0, 2, 3)
    actual = value_and_gradients(by_kernel, spec, numbers)
    out, gradients = value_and_gradients(by_formula, spec, numbers)
    used = [True, spec.qk_norm, bool(spec.max_difference), spec.dense_bias]
    for number, gradient in zip(numbers, gradients, strict=True):
        assert bool(jnp.any(gradient)) == used[number]
    assert_close(actual, (out, gradients))


@pytest.mark.parametrize(
    ("max_short_row", "programs"), [(0, 10**6), (128, 1), (128, 10)]
)
def test_the_tiling_does_not_change_the_result(max_short_row, programs, monkeypatch):
    shape = example()[0].shape
    tilings = lambda: [
        attention.choose_tiling(WINDOWED, shape, is_forward=is_forward)
        for is_forward in (True, False)
    ]
    usual = tilings()
    expected = value_and_gradients(by_kernel, WINDOWED, (0, 1, 2))
    monkeypatch.setattr(attention, "MAX_SHORT_ROW", max_short_row)
    monkeypatch.setattr(attention, "PROGRAMS_TO_FILL_GPU", programs)
    assert tilings() != usual
    assert_close(value_and_gradients(by_kernel, WINDOWED, (0, 1, 2)), expected)


def test_the_block_size_of_packed_rows_does_not_change_the_result(monkeypatch):
    spec = AttentionSpec(DIFFERENCE, window=2, qk_norm=True, packed=True)
    expected = value_and_gradients(by_kernel, spec, (0, 1, 2))
    assert attention.PACKED_TILING.block_size == 16
    larger = Tiling(block_size=32, blocks_per_program=None)
    monkeypatch.setattr(attention, "PACKED_TILING", larger)
    assert_close(value_and_gradients(by_kernel, spec, (0, 1, 2)), expected)


@pytest.mark.parametrize("index", [0, 1, 3], ids=["first", "second", "last"])
def test_an_empty_segment_does_not_change_the_result(index):
    spec = AttentionSpec(DIFFERENCE, window=2, qk_norm=True, packed=True)
    lengths = [[*row[:index], 0, *row[index:]] for row in LENGTHS]
    actual = value_and_gradients(by_kernel, spec, (0, 1, 2), lengths=lengths)
    assert_close(actual, value_and_gradients(by_kernel, spec, (0, 1, 2)))


def test_bounds_are_the_first_tokens_of_segments_and_the_end_of_the_row():
    segment = segments([[2, 3, 1], [0, 6, 0], [0, 0, 6], [6, 0, 0]])
    bounds = attention.segment_bounds(segment, 3)
    assert bounds.tolist() == [[0, 2, 5, 6], [0, 0, 6, 6], [0, 0, 0, 6], [0, 6, 6, 6]]
    assert attention.segment_bounds(segment[:1] * 0, 1).tolist() == [[0, 6]]


def test_a_bias_shared_by_all_rows_gets_the_sum_of_their_gradients():
    qkv, position_ids, factor, _, dense, weights = example()
    spec = AttentionSpec(0, window=None, qk_norm=False, dense_bias=True)

    def loss(dense):
        out = by_kernel(spec, qkv, position_ids, factor, None, dense)
        return jnp.sum(out * weights)

    shared = dense[:1]
    actual = jax.jit(jax.grad(loss))(shared)
    of_each_row = jax.jit(jax.grad(loss))(jnp.repeat(shared, ROWS, axis=0))
    assert_close(actual, of_each_row.sum(axis=0, keepdims=True), tolerance=1e-5)


def test_inputs_that_the_spec_does_not_mention_are_an_error():
    qkv, position_ids, factor, _, dense, _ = example()
    table = attention.make_table(factor, None, HEADS)
    plain = AttentionSpec(0, window=None, qk_norm=False)
    packed = AttentionSpec(0, window=None, qk_norm=False, packed=True)
    with pytest.raises(ValueError, match="bounds with packed=True"):
        attention.attend(packed, qkv, position_ids, table)
    with pytest.raises(ValueError, match="bias with dense_bias=False"):
        attention.attend(plain, qkv, position_ids, table, bias=dense)


def test_a_table_has_room_for_differences_up_to_seven():
    with pytest.raises(ValueError, match=r"max_difference=8: must be between 0 and 7"):
        AttentionSpec(8, window=None, qk_norm=False)
    assert len(AttentionSpec(7, window=None, qk_norm=False).bias_columns) == 15


def test_a_narrow_window_leaves_out_the_bias_of_the_most_negative_difference():
    # A key whose id is three above the query's is hidden by a window of two.
    assert 0 not in AttentionSpec(3, window=2, qk_norm=False).bias_columns
    assert 0 in AttentionSpec(3, window=3, qk_norm=False).bias_columns
    assert 0 in AttentionSpec(3, window=None, qk_norm=False).bias_columns
