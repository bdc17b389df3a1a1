import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arith_jax.tasks.division import MAX_SIZE, Division
from arith_jax.tasks.task import Layout
from tests.tasks import rows

TASK = Division()


def operands(text):
    """Dividend and divisor of a row."""
    return [int(number[::-1]) for number in text.split("=")[0].split("/")]


@pytest.mark.parametrize("kind", [None, *TASK.eval_sets])
def test_divisions_equal_python_integers(kind):
    texts, cells = rows.draw(TASK, 400, (4, 5), kind, seed=1)
    for text, (len_quotient, len_divisor) in zip(texts, cells, strict=True):
        prompt, answer = text.split("=")
        dividend, divisor = operands(text)
        quotient, remainder = divmod(dividend, divisor)
        assert len(str(divisor)) == len_divisor
        expected = f"{quotient} remainder {remainder}"
        assert TASK.read_answer(prompt + "=", answer) == expected
        if kind == "exact":
            assert remainder == 0
        if kind == "largest":
            assert remainder == divisor - 1
        if kind == "below":
            assert quotient == 0
        else:
            assert len(str(quotient)) == len_quotient
    rows.check_answers(TASK, texts)


def test_every_line_follows_from_the_line_above_it():
    texts, _ = rows.draw(TASK, 100, (4, 3), seed=2)
    for text in texts:
        prompt, _, answer = text.partition("=")
        dividend, divisor = operands(text)
        modulus, rest = 10 ** (len(str(divisor)) + 1), None
        coming = iter(str(dividend))
        lines = re.findall(r"([=+/-])(\d+)", "=" + answer)
        assert "".join(mark + line for mark, line in lines) == "=" + answer
        for mark, line in lines:
            value = int(line[::-1])
            if mark == "=":
                expected = int(next(coming))
            elif mark == "-":
                expected = rest - divisor
            elif mark == "+":
                expected = (rest + divisor) % modulus * 10 + int(next(coming))
            else:
                expected = rest + divisor
            assert value == expected % modulus
            assert len(line) == len(str(modulus)) - 1
            # Of what was subtracted from, the negative begins with 9.
            if mark == "-":
                assert (line[-1] == "9") == (expected < 0)
            rest = value
        assert next(coming, None) is None
        assert len(prompt) + len(answer) + 2 <= TASK.row_width(4, 3)


def test_a_quotient_of_nines_fills_its_row():
    prompt = TASK.prompt("9999/10")
    assert TASK.sizes(prompt) == (3, 2)
    row = prompt + TASK.true_answer(prompt)
    # One group of the first digit has no line that counts.
    assert len(row) + 1 <= TASK.row_width(3, 2)
    assert len(row) + 1 > TASK.row_width(3, 2) - 3 * 4
    assert TASK.max_number_length(3, 2) == 5


def test_remainders_are_nearly_uniform():
    task = Division()
    cells = jnp.tile(jnp.array([[1, 1]]), (4000, 1))
    ids = rows.sample_rows(task, jax.random.key(0), cells, Layout((2, 2), 200), 0)
    pairs = [operands(text) for text in rows.texts_of(task, ids)]
    remainders = [dividend % divisor for dividend, divisor in pairs if divisor == 9]
    counts = np.bincount(remainders, minlength=9)
    assert len(counts) == 9
    assert counts.min() > 0.5 * counts.mean()


def test_edges_have_their_share():
    texts, _ = rows.draw(Division(edges=0.6), 900, (3, 4), low=4)
    pairs = [operands(text) for text in texts if len(text.split("/")[1]) > 3]
    exact = np.mean([a % b == 0 and a >= b for a, b in pairs])
    largest = np.mean([a % b == b - 1 and a >= b for a, b in pairs])
    below = np.mean([a < b for a, b in pairs])
    for share in (exact, largest, below):
        assert 0.14 < share < 0.27
    with pytest.raises(ValueError, match=r"task.edges=2.0: must be between 0 and 1"):
        Division(edges=2.0)


def test_divisions_are_written_backwards_and_read_back():
    assert TASK.prompt("47/3") == TASK.prompt(" 047 ÷ 3 =") == "74/3="
    answer = "40-10-89+71-41-11-80-50-20-99/20"
    assert TASK.true_answer("74/3=") == answer
    assert TASK.read_answer("74/3=", answer) == "15 remainder 2"
    assert TASK.true_answer(TASK.prompt("0/7")) == "00-39/00"
    assert TASK.read_answer("0/7=", "00-39/00") == "0 remainder 0"
    # What a half-trained model may write.
    assert TASK.read_answer("74/3=", "") == "0 remainder ?"
    assert TASK.read_answer("74/3=", "40-10-89+7") == "10 remainder ?"


@pytest.mark.parametrize("text", ["", "12", "1/0", "1/-2", "1:2", "9" * 247 + "/3"])
def test_what_is_no_division_is_refused(text):
    with pytest.raises(ValueError, match=r"is not a division; allowed: two non-negat"):
        TASK.prompt(text)


def test_the_longest_dividend_has_its_groups():
    scheme = TASK.schemes["groups"]
    prompt = TASK.prompt("9" * 2 * MAX_SIZE + "/" + "7" * MAX_SIZE)
    ids = jnp.array([TASK.vocab.encode(prompt)])
    place, line, group = scheme.query_levels(scheme.position_ids(ids))
    count = 2 * MAX_SIZE
    assert group[0, :count].tolist() == list(range(count + 7, 7, -1))
    assert group[0, -1] == line[0, -1] == place[0, -1] == 8
    assert not place[0, : count + 1].any()
    assert not line[0, :-1].any()
    # The last line that can be, and the last group of it.
    last = jnp.array([8 + 2**11 * (8 + 11 * count + 2**12 * (7 + count))])
    token = jnp.array(TASK.vocab.encode("1"))
    after = scheme.next_position_id(last, token, ids)
    levels = [int(level[0, 0]) for level in scheme.query_levels(after[None])]
    assert levels == [9, 8 + 11 * count, 7 + count]


@pytest.mark.parametrize("kind", range(4))
def test_a_row_does_not_depend_on_padded_sizes(kind):
    cells, key = jnp.array([[3, 4], [4, 1]]), jax.random.key(1)
    small = rows.sample_rows(TASK, key, cells, Layout((4, 4), 350), kind)
    large = rows.sample_rows(TASK, key, cells, Layout((8, 16), 500), kind)
    texts = rows.texts_of(TASK, small)
    assert texts == rows.texts_of(TASK, large)
    rows.check_answers(TASK, texts)
