"""What a token of a square root sees is enough to tell the next, whatever the size."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from arith_jax.model.context import make_context, visible
from arith_jax.tasks.square_root import SquareRoot

TASK, WINDOW = SquareRoot(), 2


def next_symbol(marks, pairs, digits):
    """What follows a token, by what it sees alone; empty: the end.

    Args:
        marks: Symbols that begin lines, by lines above the token's own.
        pairs: Digits of the number and the root sign, by groups before the token's own.
        digits: Of lines, by lines above and places further.
    """
    at = lambda line, place: digits.get((line, place))
    mark, is_mark = marks[0], at(0, 0) is None
    ends = not is_mark and at(1, 1) is None
    if mark == "=":
        count = sum(at(0, -place) is not None for place in range(3))
        return (pairs.get(-1), pairs.get(0), 0, ":")[count]
    if mark == "+" and is_mark:
        return pairs[-1]
    if mark == "+" and at(0, -1) is None:
        return pairs[0]
    if mark == "+":
        is_last = at(1, 0) is None
        return ":" if is_last else sum_digit(at, at(1, -1), at(2, -1), -2)
    if mark == "/":
        return "" if ends else sum_digit(at, at(1, 1), at(2, 1), 0)
    if mark == "-" and ends:
        return ("/" if pairs[-2] == "√" else "+") if at(0, 0) == 9 else ":"
    if mark == "-":
        lost = 0 if is_mark else at(2, 0) - at(1, 0)
        borrow = 0 if is_mark else lost < (lost - at(0, 0)) % 10
        return (at(2, 1) - at(1, 1) - borrow) % 10
    if ends:
        return "-"
    if marks[1] == "-":
        added = 2 if is_mark else at(0, 0) < at(2, 0)
        return (at(2, 1) + added) % 10
    if is_mark:
        return 1
    return 0 if marks[1] == "=" else at(3, 0) - (at(0, -1) is None)


def sum_digit(at, first, second, before):
    """A digit of the sum of two lines, whose carry is from the place before it."""
    if at(1, before) is None:
        return (first + second) % 10
    total = at(1, before) + at(2, before)
    carry = total + (at(0, 0) - total) % 10 >= 10
    return (first + second + carry) % 10


def sights(text):
    """What each token of the answer sees, from `=` on, as `next_symbol` takes it."""
    scheme = TASK.schemes["roots"]
    positions = scheme.position_ids(jnp.array([TASK.vocab.encode(text)]))
    context = make_context(scheme, positions)
    seen = np.asarray(visible(scheme, context, WINDOW))[0]
    query = np.asarray(context.query.levels)[:, 0]
    place, line, group = np.asarray(context.key.levels)[:, 0]
    for index in range(text.index("="), len(text)):
        marks, pairs, digits = {}, {}, {}
        for key in np.flatnonzero(seen[index]).tolist():
            symbol, lines = text[key], query[1, index] - line[key]
            if line[key] == 0:
                pairs[query[2, index] - group[key]] = symbol
            elif not symbol.isdigit():
                marks[lines] = symbol
            else:
                digits[lines, place[key] - query[0, index]] = int(symbol)
        yield marks, pairs, digits


@pytest.mark.parametrize("number", [1, 99, 150, 9801, 36**2 - 1, 1002001, 7 * 10**12])
def test_every_symbol_follows_from_what_is_seen(number):
    prompt = TASK.prompt(f"√{number}")
    text = prompt + TASK.true_answer(prompt)
    seen = list(sights(text))
    written = "".join(str(next_symbol(*sight)) for sight in seen)
    assert written == text[len(prompt) :]
    assert TASK.read_answer(prompt, written).split()[0] == str(math.isqrt(number))


def test_as_many_tokens_are_seen_at_any_size():
    sizes = []
    for length in (5, 9):
        prompt = TASK.prompt("√" + "8" * 2 * length)
        text = prompt + TASK.true_answer(prompt)
        sizes.append(max(sum(map(len, sight)) for sight in sights(text)))
    # The number's digits, the lines' symbols, five digits of three lines, and its own.
    assert sizes == [5 + 4 + 3 * 5 + 3] * 2
