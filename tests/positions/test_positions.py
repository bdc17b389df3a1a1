import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arith_jax import vocab
from arith_jax.positions.abacus import (
    abacus_positions,
    coupled_positions,
    of_segment,
    padding_segment,
    remove_offset,
)
from arith_jax.positions.schemes import Abacus, Coupled, Kinds, out_of_window
from arith_jax.positions.written_schemes import Lines

TEXTS = st.lists(st.sampled_from("0123456789+= "), min_size=24, max_size=24)
# Ten digits anywhere in a large vocabulary, in any order.
GPT2_LIKE = (21, 4310, 15, 50256, 7, 300, 16, 2, 999, 18)
LINES = Lines(vocab.ARITHMETIC.id("="), vocab.ARITHMETIC.id("x"))


def ids_of(text):
    """A row of tokens."""
    return jnp.array([vocab.ARITHMETIC.encode(text)])


def counted(symbols, offset, *, blanks_count):
    """Position ids by a loop; a blank ends a number, or is as if it were not there."""
    count, positions = 0, []
    for symbol in symbols:
        if symbol.isdigit():
            count += 1
            positions.append(count + offset)
        else:
            if symbol != " " or not blanks_count:
                count = 0
            positions.append(0)
    return positions


@jax.jit
def positions_with_and_without_blanks(ids, offset):
    """Abacus ids of rows where `PAD` ends a number, and where it does not."""
    is_digit = vocab.is_digit(ids)
    plain = abacus_positions(is_digit, offset)
    return plain, abacus_positions(is_digit, offset, is_blank=ids == vocab.PAD)


@settings(max_examples=100, deadline=None)
@given(TEXTS, st.integers(0, 50))
def test_abacus_positions_equal_a_counting_loop(symbols, offset):
    ids = ids_of("".join(symbols))
    plain, with_blanks = positions_with_and_without_blanks(ids, offset)
    assert plain[0].tolist() == counted(symbols, offset, blanks_count=False)
    assert with_blanks[0].tolist() == counted(symbols, offset, blanks_count=True)


def test_offset_is_per_example_and_leaves_non_digits_at_zero():
    is_digit = vocab.is_digit(jnp.tile(ids_of("89+021="), (2, 1)))
    positions = abacus_positions(is_digit, jnp.array([0, 10]))
    assert positions.tolist() == [[1, 2, 0, 1, 2, 3, 0], [11, 12, 0, 11, 12, 13, 0]]
    assert positions.dtype == jnp.int32
    shared = abacus_positions(is_digit, 10)
    np.testing.assert_array_equal(shared, positions[jnp.array([1, 1])])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("   12+3", [0, 0, 0, 1, 2, 0, 1]),
        ("12+3   ", [1, 2, 0, 1, 0, 0, 0]),
        ("1 23 456", [1, 0, 1, 2, 0, 1, 2, 3]),
        ("+-x=", [0, 0, 0, 0]),
        ("123456", [1, 2, 3, 4, 5, 6]),
    ],
)
def test_padding_and_several_numbers_are_fine(text, expected):
    assert abacus_positions(vocab.is_digit(ids_of(text)))[0].tolist() == expected


def test_leading_axes_are_those_of_each_row_alone():
    is_digit = jnp.array(np.random.default_rng(0).random((2, 3, 8)) < 0.6)
    offset = jnp.array([[0, 1, 2], [30, 40, 50]])
    positions = abacus_positions(is_digit, offset)
    assert positions.shape == (2, 3, 8)
    for i, j in np.ndindex(2, 3):
        row = abacus_positions(is_digit[i, j], offset[i, j])
        symbols = ["1" if digit else "+" for digit in is_digit[i, j].tolist()]
        expected = counted(symbols, int(offset[i, j]), blanks_count=False)
        assert positions[i, j].tolist() == row.tolist() == expected
    rows = abacus_positions(is_digit[0], offset[0])
    np.testing.assert_array_equal(rows, positions[0])


def test_abacus_positions_are_the_same_under_jit_and_vmap():
    is_digit = jnp.array(np.random.default_rng(1).random((4, 9)) < 0.6)
    offset = jnp.array([0, 7, 0, 3])
    expected = abacus_positions(is_digit, offset)
    for transformed in (jax.jit(abacus_positions), jax.vmap(abacus_positions)):
        np.testing.assert_array_equal(transformed(is_digit, offset), expected)
    by_ids = jax.jit(lambda ids: abacus_positions(ids, digit_ids=GPT2_LIKE))
    ids = jnp.where(is_digit, GPT2_LIKE[3], 11)
    np.testing.assert_array_equal(by_ids(ids), abacus_positions(is_digit))
    np.testing.assert_array_equal(jax.vmap(by_ids)(ids), abacus_positions(is_digit))


def test_ids_of_digits_can_be_anywhere_in_a_vocabulary():
    # 0 + 17 4 is written in digits; 22, 8 and 301 stand next to ids of digits.
    ids = jnp.array([[21, 22, 4310, 999, 8, 7, 301, 50256, 18, 15]])
    positions = abacus_positions(ids, digit_ids=GPT2_LIKE)
    assert positions.tolist() == [[1, 0, 1, 2, 0, 1, 0, 1, 2, 3]]
    assert positions.dtype == jnp.int32
    shuffled = abacus_positions(ids, digit_ids=GPT2_LIKE[::-1])
    np.testing.assert_array_equal(shuffled, positions)
    gpt2 = jnp.array([4531, 10, 15, 17, 16, 28])
    assert abacus_positions(gpt2, digit_ids=range(15, 25)).tolist() == [
        0,
        0,
        1,
        2,
        3,
        0,
    ]


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint32", "int64"])
def test_ids_of_any_integer_dtype_give_the_positions_of_int32(dtype):
    ids = [[21, 22, 7, 16, 0, 2, 127, 18, 15]]
    expected = abacus_positions(jnp.array(ids), digit_ids=GPT2_LIKE)
    assert expected.tolist() == [[1, 0, 1, 2, 0, 1, 0, 1, 2]]
    with jax.enable_x64(dtype == "int64"):
        converted = jnp.array(ids, dtype)
        assert converted.dtype == dtype
        # Ids of digits that the dtype cannot hold are in no row.
        positions = abacus_positions(converted, digit_ids=GPT2_LIKE)
    assert positions.dtype == jnp.int32
    np.testing.assert_array_equal(positions, expected)


@pytest.mark.parametrize("dtype", ["int32", "uint8"])
def test_a_mask_of_integers_is_refused(dtype):
    with pytest.raises(TypeError, match=rf"dtype {dtype}; give a bool mask .* digit_i"):
        abacus_positions(jnp.array([1, 1, 0], dtype))


def test_a_negative_offset_is_refused():
    with pytest.raises(ValueError, match=r"offset=-1; must be at least 0"):
        abacus_positions(jnp.array([True]), -1)
    with pytest.raises(ValueError, match=r"offset=-3; must be at least 0"):
        coupled_positions(jnp.array([[True]]), jnp.array([[True]]), -3)


def test_coupled_positions_are_those_of_the_paper_mirrored():
    ids = jnp.tile(jnp.array([[*vocab.ARITHMETIC.encode("89+021=812"), 3, 0]]), (2, 1))
    is_digit, is_token = vocab.is_digit(ids), ids >= vocab.FIRST_SYMBOL
    first, second = coupled_positions(is_digit, is_token, jnp.array([0, 10]))
    assert first.tolist() == [2, 3, 1, 2, 3, 4, 1, 2, 3, 4, 0, 0]
    assert second.tolist() == [12, 13, 11, 12, 13, 14, 11, 12, 13, 14, 0, 0]


def test_ids_without_their_offset_begin_at_one_in_every_segment():
    plain = jnp.array([[2, 3, 1, 2, 0, 0], [0, 1, 2, 0, 1, 0]])
    shift = jnp.array([[0], [10]])
    shifted = jnp.where(plain > 0, plain + shift, 0)
    np.testing.assert_array_equal(remove_offset(shifted), plain)
    # Segments have offsets of their own; one of symbols only stays as it is.
    segment = jnp.array([[0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 1, 2]])
    shift = jnp.where(segment == 1, 5, 20)
    shifted = jnp.where(plain > 0, plain + shift, 0)
    np.testing.assert_array_equal(remove_offset(shifted, segment, 3), plain)


def test_tokens_have_the_value_of_their_segment():
    segment = jnp.array([[0, 0, 1, 1, 1, 2], [0, 3, 3, 3, 3, 3], [1, 1, 1, 1, 1, 1]])
    values = jnp.array([[7, 2**31 - 1, 5, 4], [0, 1, 2, -3], [9, 8, 7, 6]])
    expected = jnp.take_along_axis(values, segment, axis=1)
    np.testing.assert_array_equal(of_segment(values, segment), expected)


def test_padding_before_a_row_is_a_segment_of_its_own():
    ids = jnp.array([[0, 0, 5, 0, 6, 0], [5, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]])
    expected = [[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0]]
    assert padding_segment(ids).tolist() == expected


def test_the_window_hides_far_digits_only():
    query, key = jnp.array([[5, 0]]), jnp.array([[1, 3, 5, 7, 8, 0]])
    hidden = out_of_window(query, key, 2)
    assert hidden[0, 0].tolist() == [True, False, False, False, True, False]
    assert hidden[0, 1].tolist() == [False, True, True, True, True, False]


@pytest.mark.parametrize("scheme", [Abacus(), Coupled()], ids=lambda s: s.name)
def test_the_position_of_a_generated_token_continues_the_row(scheme):
    ids = jnp.array([*vocab.ARITHMETIC.encode("12+345-=75 3"), vocab.EOS, vocab.PAD, 7])
    positions = scheme.position_ids(ids[None])[0]
    # Every token but the first, each in a row of its own.
    earlier = jnp.zeros((len(ids) - 1, 1), jnp.int32)
    following = scheme.next_position_id(positions[:-1], ids[1:], earlier)
    np.testing.assert_array_equal(following, positions[1:])


def test_kinds_are_places_and_whether_a_token_is_a_digit():
    scheme, text = Kinds(), "89+021="
    ids = jnp.array([[*vocab.ARITHMETIC.encode(text), vocab.EOS, vocab.PAD]])
    positions = jax.jit(scheme.position_ids)(ids)
    place, kind = (level[0].tolist() for level in scheme.query_levels(positions))
    assert place == [1, 2, 0, 1, 2, 3, 0, 0, 0]
    assert kind == [0, 0, 1, 0, 0, 0, 1, 1, 1]
    earlier = jnp.zeros((len(text) + 1, 1), jnp.int32)
    following = scheme.next_position_id(positions[0, :-1], ids[0, 1:], earlier)
    np.testing.assert_array_equal(following, positions[0, 1:])
    blank = jnp.array([vocab.ARITHMETIC.encode("8 9+")])
    (place, _) = scheme.query_levels(scheme.position_ids(blank, has_blanks=True))
    assert place[0].tolist() == [1, 0, 2, 0]
