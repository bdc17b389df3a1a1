import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arith_jax import vocab
from arith_jax.positions import written
from arith_jax.positions.abacus import (
    abacus_positions,
    coupled_positions,
    of_segment,
    padding_segment,
    remove_offset,
)
from arith_jax.positions.schemes import Abacus, Coupled, Kinds, Mirrored, out_of_window
from arith_jax.positions.written_schemes import Groups, Items, Lines, Roots, Terms

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


def two_levels(text, has_lines):
    """Places and lines of a text counted by hand, 0 for none."""
    before, after = text.split("=")
    first, operator, second = re.split(r"([+x-])", before)
    levels = [(place, 0) for place in range(1, len(first) + 1)] + [(None, 0)]
    assert operator
    for place in range(1, len(second) + 1):
        levels.append((None, place) if has_lines else (place, 0))
    place, line = 0, 1
    levels.append((0, 1))
    for symbol in after:
        place, line = (place + 1, line) if symbol.isdigit() else (0, line + 1)
        levels.append((place, line))
    low = written.FIRST
    return [
        (0 if p is None else p + low, n - 1 + low if has_lines and n else 0)
        for p, n in levels
    ]


@pytest.mark.parametrize(
    ("text", "has_lines"),
    [("21x43=840+040", True), ("381x0=0000", True), ("12+345=753", False)],
)
def test_lines_have_two_levels(text, has_lines):
    ids = jnp.array([[*vocab.ARITHMETIC.encode(text), vocab.EOS, vocab.PAD]])
    positions = jax.jit(LINES.position_ids)(ids)
    place, line = (level[0].tolist() for level in LINES.query_levels(positions))
    expected = two_levels(text, has_lines)
    # What comes after the answer stays in its last line.
    expected += [(0, expected[-1][1])] * 2
    assert list(zip(place, line, strict=True)) == expected
    answer = slice(text.index("=") + 1, len(text))
    previous = positions[0, answer.start - 1 : answer.stop - 1]
    earlier = jnp.zeros((len(previous), 1), jnp.int32)
    following = LINES.next_position_id(previous, ids[0, answer], earlier)
    np.testing.assert_array_equal(following, positions[0, answer])


def three_levels(text):
    """Places, lines and columns of a sorted list counted by hand, 0 for none."""
    prompt, answer = text.split("=")
    low, levels, lengths = written.FIRST, [], []
    for item, part in enumerate(f"{prompt}=".replace("=", ",").split(",")[:-1]):
        number = part[2:]
        levels += [(0, item + low, 0)] * 2
        levels += [(place + 1 + low, item + low, 0) for place in range(len(number))]
        levels.append((0, item + low, 0))
        lengths.append(len(number))
    levels.pop()  # `=` begins the first line
    for index, line in enumerate(answer.split(",")):
        row = range(len(line) + 1)
        levels += [(lengths[index] + low, index + low, low + i) for i in row]
    return levels


@pytest.mark.parametrize(
    "text",
    ["A:03,B:4,C:710=A,BA,BAC", "a:5=a", "a:1,b:22,c:1,d:123=a,ab,acb,acbd"],
)
def test_lists_have_three_levels(text):
    scheme = Items(vocab.SORT.id("="))
    ids = jnp.array([vocab.SORT.encode(text)])
    positions = jax.jit(scheme.position_ids)(ids)
    levels = [level[0].tolist() for level in scheme.query_levels(positions)]
    assert list(zip(*levels, strict=True)) == three_levels(text)
    # Every token of the answer, each in a row of its own.
    answer = jnp.arange(text.index("=") + 1, len(text))
    is_earlier = jnp.arange(len(text))[None] < answer[:, None]
    following = jax.jit(scheme.next_position_id)(
        positions[0, answer - 1], ids[0, answer], jnp.where(is_earlier, positions, 0)
    )
    np.testing.assert_array_equal(following, positions[0, answer])


def test_keys_of_a_sorted_list_have_no_place_in_the_answer():
    scheme, text = Items(vocab.SORT.id("=")), "A:03,B:4=A,BA"
    positions = scheme.position_ids(jnp.array([vocab.SORT.encode(text)]))
    query, key = scheme.query_levels(positions), scheme.key_levels(positions)
    is_answer = jnp.arange(len(text))[None] >= text.index("=")
    np.testing.assert_array_equal(key[0], jnp.where(is_answer, 0, query[0]))
    np.testing.assert_array_equal(key[1:], query[1:])


def test_the_longest_list_has_its_lines():
    """All 102 keys: the line of a token comes from a square root."""
    count = 102
    start = 4 * count - 1
    index = np.arange(start + count * (count + 3) // 2)[None]
    is_digit = (index % 4 == 2) & (index < start)
    is_equals = index == start
    compiled = jax.jit(written.item_positions)
    ids = np.asarray(compiled(jnp.array(is_digit), jnp.array(is_equals)))[0, start:]
    line, column = ids // 2**11 % 2**12, ids // 2**23
    expected = [(i, j) for i in range(count) for j in range(i + 2)]
    low = written.FIRST
    pairs = zip((line - low).tolist(), (column - low).tolist(), strict=True)
    assert list(pairs) == expected


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


def test_mirrored_places_count_from_the_end_of_the_prompt():
    scheme, text = Mirrored(vocab.ARITHMETIC.id("=")), "0312=2130"
    # Padding on the left changes nothing.
    padded = [vocab.PAD, *vocab.ARITHMETIC.encode(text), vocab.EOS, vocab.PAD]
    positions = jax.jit(scheme.position_ids)(jnp.array([padded]))
    assert positions[0].tolist() == [0, 4, 3, 2, 1, 0, 1, 2, 3, 4, 0, 0]
    check_next_ids(scheme, positions[:, 1:], jnp.array([padded[1:]]), text)


def term_levels(text):
    """Places and lines of a sum of many numbers counted by hand, 0 for none."""
    prompt, answer = text.split("=")
    low, levels = written.FIRST, []
    for index, number in enumerate(prompt.split("+")):
        symbol = [(0, 2 * index + low)] if index else []
        digits = [(i + 1 + low, 2 * index + low) for i in range(len(number))]
        levels += symbol + digits
    for index, number in enumerate(answer.split("+")):
        line = 2 * index + 1 + low
        levels += [(i + low, line) for i in range(len(number) + 1)]
    return levels


@pytest.mark.parametrize("text", ["21+43+5=21+64+15", "7=7", "99+1+0+1=99+001+001+101"])
def test_sums_of_many_numbers_have_two_levels(text):
    scheme = Terms(vocab.ARITHMETIC.id("="))
    ids = jnp.array([[*vocab.ARITHMETIC.encode(text), vocab.EOS]])
    positions = jax.jit(scheme.position_ids)(ids)
    levels = [level[0].tolist() for level in scheme.query_levels(positions)]
    expected = term_levels(text)
    expected.append((0, expected[-1][1]))
    assert list(zip(*levels, strict=True)) == expected
    check_next_ids(scheme, positions, ids, text)


def check_next_ids(scheme, positions, ids, text):
    """The id of every token after `=` follows from that of the token before it."""
    answer = slice(text.index("=") + 1, len(text) + 1)
    previous = positions[0, answer.start - 1 : answer.stop - 1]
    earlier = jnp.zeros((len(previous), 1), jnp.int32)
    following = scheme.next_position_id(previous, ids[0, answer], earlier)
    np.testing.assert_array_equal(following, positions[0, answer])


def group_levels(text):
    """Places, lines and groups of a division counted by hand, 0 for none."""
    prompt, answer = text.split("=")
    dividend, divisor = prompt.split("/")
    low, count = written.FIRST, len(dividend)
    levels = [(0, 0, count - 1 - i + low) for i in range(count)] + [(0, 0, 0)]
    levels += [(i + 1 + low, 0, 0) for i in range(len(divisor))]
    place, line, group = 0, 0, 0
    levels.append((low, low, low))
    for symbol in answer:
        is_digit = symbol.isdigit()
        place, line = (place + 1, line) if is_digit else (0, line + 1)
        group += symbol == "+"
        levels.append((place + low, line + low, group + low))
    return levels


@pytest.mark.parametrize(
    "text", ["74/3=40-10-89+71-41-11-80-50-20-99/20", "7/21=700-599/700"]
)
def test_divisions_have_three_levels(text):
    symbols = vocab.DIVISION
    scheme = Groups(symbols.id("="), symbols.id("+"))
    ids = jnp.array([[*symbols.encode(text), vocab.EOS]])
    positions = jax.jit(scheme.position_ids)(ids)
    levels = [level[0].tolist() for level in scheme.query_levels(positions)]
    expected = group_levels(text)
    expected.append((0, *expected[-1][1:]))
    assert list(zip(*levels, strict=True)) == expected
    check_next_ids(scheme, positions, ids, text)
    # The symbol that begins a line is seen from all of it.
    place, *others = scheme.key_levels(positions)
    is_mark = levels[0] == np.array(written.FIRST)
    np.testing.assert_array_equal(place[0], np.where(is_mark, 0, levels[0]))
    np.testing.assert_array_equal(jnp.stack(others)[:, 0], levels[1:])


def test_square_roots_have_groups_of_two_digits():
    symbols, low = vocab.SQUARE_ROOT, written.FIRST
    scheme = Roots(*map(symbols.id, "=+√"))
    text = "√0510=100:100-000:300-799+0500:1200-9200:3200-6000:5200-1899/6000"
    ids = jnp.array([[*symbols.encode(text), vocab.EOS]])
    positions = jax.jit(scheme.position_ids)(ids)
    place, line, group = (x[0].tolist() for x in scheme.query_levels(positions))
    assert group[:5] == [low + 4, low + 3, low + 2, low + 1, low]
    assert place[:5] == line[:5] == [0] * 5
    ends = text.index("+")
    assert set(group[5:ends]) == {low}
    assert set(group[ends:]) == {low + 2}
    assert place[ends : ends + 6] == [low, low + 1, low + 2, low + 3, low + 4, low]
    assert [line[i] for i in (5, ends - 1, ends, len(text))] == [8, 12, 13, 20]
    check_next_ids(scheme, positions, ids, text)
