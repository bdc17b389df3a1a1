import re

import jax.numpy as jnp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arith_jax import positions, vocab

TEXTS = st.lists(st.sampled_from("0123456789+= "), min_size=24, max_size=24)


def ids_of(symbols):
    return jnp.array([vocab.ARITHMETIC.encode("".join(symbols))])


def counted(symbols, offset, blanks_are_transparent):
    count, found = 0, []
    for symbol in symbols:
        if symbol.isdigit():
            count += 1
            found.append(count + offset)
        else:
            if symbol != " " or not blanks_are_transparent:
                count = 0
            found.append(0)
    return found


@settings(max_examples=100, deadline=None)
@given(TEXTS, st.integers(0, 50))
def test_abacus_positions_equal_a_counting_loop(symbols, offset):
    ids = ids_of(symbols)
    is_digit = vocab.is_digit(ids)
    plain = positions.abacus_positions(is_digit, offset)
    assert plain[0].tolist() == counted(symbols, offset, False)
    blank = positions.abacus_positions(is_digit, offset, ids == vocab.PAD)
    assert blank[0].tolist() == counted(symbols, offset, True)


def test_offset_is_per_example_and_leaves_non_digits_at_zero():
    is_digit = vocab.is_digit(jnp.tile(ids_of("89+021="), (2, 1)))
    found = positions.abacus_positions(is_digit, jnp.array([0, 10]))
    assert found.tolist() == [[1, 2, 0, 1, 2, 3, 0], [11, 12, 0, 11, 12, 13, 0]]


def test_coupled_positions_are_those_of_the_paper_mirrored():
    ids = jnp.tile(jnp.array([[*vocab.ARITHMETIC.encode("89+021=812"), 3, 0]]), (2, 1))
    is_digit, is_token = vocab.is_digit(ids), ids >= vocab.FIRST_SYMBOL
    found = positions.coupled_positions(is_digit, is_token, jnp.array([0, 10]))
    assert found[0].tolist() == [2, 3, 1, 2, 3, 4, 1, 2, 3, 4, 0, 0]
    assert found[1].tolist() == [12, 13, 11, 12, 13, 14, 11, 12, 13, 14, 0, 0]
    assert jnp.array_equal(positions.without_offset(found)[0], found[0])
    assert jnp.array_equal(positions.without_offset(found)[1], found[0])


def test_next_position_continues_the_row():
    ids = [*vocab.ARITHMETIC.encode("12+345-=75 3"), vocab.EOS, vocab.PAD, 7]
    is_digit = vocab.is_digit(jnp.array([ids]))
    is_token = jnp.array([ids]) >= vocab.FIRST_SYMBOL
    wholes = {
        "abacus": positions.abacus_positions(is_digit),
        "coupled": positions.coupled_positions(is_digit, is_token),
    }
    for scheme, whole in wholes.items():
        position = jnp.zeros((1,), int)
        for index in range(0 if scheme == "abacus" else 1, len(ids)):
            position = whole[:, index - 1] if index else position
            position = positions.next_position(
                position, is_digit[:, index], is_token[:, index], scheme
            )
            assert int(position[0]) == int(whole[0, index])


def two_level(text, has_lines):
    """Places and lines of a text counted by hand, 0 for none."""
    before, after = text.split("=")
    first, operator, second = re.split(r"([+x-])", before)
    found = [(place, 0) for place in range(1, len(first) + 1)] + [(None, 0)]
    assert operator
    for place in range(1, len(second) + 1):
        found.append((None, place) if has_lines else (place, 0))
    place, line = 0, 1
    found.append((0, 1))
    for symbol in after:
        place, line = (place + 1, line) if symbol.isdigit() else (0, line + 1)
        found.append((place, line))
    low = positions.FIRST
    return [
        (0 if p is None else p + low, n - 1 + low if has_lines and n else 0)
        for p, n in found
    ]


@pytest.mark.parametrize(
    ("text", "has_lines"),
    [("21x43=840+040", True), ("381x0=0000", True), ("12+345=753", False)],
)
def test_lines_have_two_levels(text, has_lines):
    ids = jnp.array([[*vocab.ARITHMETIC.encode(text), vocab.EOS, vocab.PAD]])
    is_digit, is_token = vocab.is_digit(ids), ids >= vocab.FIRST_SYMBOL
    equals = ids == vocab.ARITHMETIC.id("=")
    lines = jnp.array([has_lines])
    found = positions.line_positions(is_digit, is_token, equals, lines)
    place, line = positions.split_levels(found, 2)
    levels = list(zip(place[0].tolist(), line[0].tolist(), strict=True))
    expected = two_level(text, has_lines)
    # What comes after the answer stays in its last line.
    assert levels == [*expected, (0, expected[-1][1]), (0, expected[-1][1])]
    for index in range(text.index("=") + 1, len(text)):
        own = positions.next_position(
            found[:, index - 1], is_digit[:, index], is_token[:, index], "lines"
        )
        assert own[0] == found[0, index]


def three_level(text):
    """Places, lines and columns of a sorted list counted by hand, 0 for none."""
    prompt, answer = text.split("=")
    low, found, lengths = positions.FIRST, [], []
    for item, part in enumerate(f"{prompt}=".replace("=", ",").split(",")[:-1]):
        number = part[2:]
        found += [(0, item + low, 0)] * 2
        found += [(place + 1 + low, item + low, 0) for place in range(len(number))]
        found.append((0, item + low, 0))
        lengths.append(len(number))
    found.pop()  # `=` begins the first line
    for index, line in enumerate(answer.split(",")):
        row = range(len(line) + 1)
        found += [(lengths[index] + low, index + low, low + i) for i in row]
    return found


def test_lists_have_three_levels():
    texts = ["A:03,B:4,C:710=A,BA,BAC", "a:5=a", "a:1,b:22,c:1,d:123=a,ab,acb,acbd"]
    for text in texts:
        ids = jnp.array([vocab.SORT.encode(text)])
        is_equals = ids == vocab.SORT.id("=")
        found = positions.item_positions(vocab.is_digit(ids), is_equals)
        levels = [x[0].tolist() for x in positions.split_levels(found, 3)]
        assert list(zip(*levels, strict=True)) == three_level(text)
        for index in range(text.index("=") + 1, len(text)):
            before = jnp.where(jnp.arange(found.shape[1]) < index, found, 0)
            own = positions.next_key_position(found[:, index - 1], before)
            assert own[0] == found[0, index]


def test_the_longest_list_has_its_lines():
    """All 102 keys: the line of a token comes from a square root."""
    count = 102
    start = 4 * count - 1
    index = jnp.arange(start + count * (count + 3) // 2)[None]
    is_digit = (index % 4 == 2) & (index < start)
    ids = positions.item_positions(is_digit, index == start)
    _, line, column = (x[0, start:] for x in positions.split_levels(ids, 3))
    expected = [(i, j) for i in range(count) for j in range(i + 2)]
    low = positions.FIRST
    found = zip((line - low).tolist(), (column - low).tolist(), strict=True)
    assert list(found) == expected
