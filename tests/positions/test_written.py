"""Position ids of work that is written out."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arith_jax import vocab
from arith_jax.positions import written
from arith_jax.positions.schemes import Mirrored
from arith_jax.positions.written_schemes import (
    Groups,
    Items,
    Lines,
    Roots,
    Terms,
)

LINES = Lines(vocab.ARITHMETIC.id("="), vocab.ARITHMETIC.id("x"))


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


def test_an_operator_written_by_mistake_changes_no_id_before_it():
    """Or whole passes over what a model wrote would number it otherwise."""
    right = jnp.array([vocab.ARITHMETIC.encode("57+3=065")])
    wrong = jnp.array([vocab.ARITHMETIC.encode("57+3=0x5")])
    ids = LINES.position_ids(right), LINES.position_ids(wrong)
    np.testing.assert_array_equal(ids[0][:, :6], ids[1][:, :6])


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


def test_mirrored_places_count_from_the_end_of_the_prompt():
    scheme, text = Mirrored(vocab.ARITHMETIC.id("=")), "0312=2130"
    # Padding on the left changes nothing.
    padded = [vocab.PAD, *vocab.ARITHMETIC.encode(text), vocab.EOS, vocab.PAD]
    positions = jax.jit(scheme.position_ids)(jnp.array([padded]))
    assert positions[0].tolist() == [0, 4, 3, 2, 1, 0, 1, 2, 3, 4, 0, 0]
    check_next_ids(scheme, positions[:, 1:], jnp.array([padded[1:]]), text)
