import collections
import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arith_jax.tasks.bitwise_or import BitwiseOr
from arith_jax.tasks.task import Layout
from tests.tasks import rows

TASK = BitwiseOr()


def test_every_string_of_the_exhaustive_set_is_drawn_alike():
    draw = jax.jit(jax.vmap(lambda words: TASK.draw_cell(words, (20, 20))))
    # The words 0 to 2869 are one round of the set.
    words = jnp.stack([jnp.arange(2870, dtype=jnp.uint32)] * 2, axis=1)
    cells = collections.Counter(map(tuple, np.asarray(draw(words)).tolist()))
    expected = {(a, b): min(a, b) for a in range(1, 21) for b in range(1, 21)}
    assert cells == expected


def test_rows_are_one_hot_or_zero():
    texts, cells = rows.draw(TASK, 2000, 9)
    places = collections.Counter()
    for text, (len_a, len_b) in zip(texts, cells, strict=True):
        prompt, answer = text.split("=")
        a, b = prompt.split("+")
        assert (len(a), len(b)) == (len_a, len_b)
        one, zero = (a, b) if "1" in a else (b, a)
        assert (one.count("1"), zero.count("1")) == (1, 0)
        assert len(one) <= len(zero)
        assert answer == one.ljust(len(zero), "0")
        if (len_a, len_b) == (9, 9):
            places["1" in a, one.index("1")] += 1
    assert len(places) > 9
    rows.check_answers(TASK, texts)


def test_evaluation_cell_holds_every_example_once():
    cell = TASK.cell("uniform", 5, 9, 100)
    assert cell == (5, 9, 5)
    sample = lambda example: TASK.sample(
        jax.random.key(0),
        jnp.array([5, 9]),
        Layout((8, 16), 32),
        kind=0,
        example=example,
    )
    ids = jax.jit(jax.vmap(sample))(jnp.arange(5))
    # The evaluation cell of the original.
    assert sorted(rows.texts_of(TASK, ids)) == [
        "00001+000000000=000010000",
        "00010+000000000=000100000",
        "00100+000000000=001000000",
        "01000+000000000=010000000",
        "10000+000000000=100000000",
    ]


def test_random_bits_have_every_share_of_ones():
    task = BitwiseOr(random_bits=True)
    texts, cells = rows.draw(task, 4000, 12)
    ones = collections.Counter()
    for text, (len_a, len_b) in zip(texts, cells, strict=True):
        prompt, answer = text.split("=")
        assert task.sizes(prompt + "=") == (len_a, len_b)
        assert answer == task.true_answer(prompt + "=")
        if len_a == 12:
            ones[prompt[:12].count("1")] += 1
    # With a share of its own, all counts from 0 to 12 are alike.
    assert set(ones) == set(range(13))
    assert max(ones.values()) < 3 * min(ones.values())
    assert task.cell("uniform", 5, 9, 100) == (5, 9, 100)
    assert task.examples(random.Random(0), [(3, 2)])[0] == "0110|1"
    rows.check_answers(task, texts)


def test_vectors_are_written_as_they_are_typed():
    prompt = TASK.prompt("001|00000")
    assert prompt == TASK.prompt("001+00000") == "001+00000="
    assert TASK.true_answer(prompt) == TASK.read_answer(prompt, "00100") == "00100"
    assert TASK.true_answer(TASK.prompt("0101|11")) == "1101"
    assert TASK.row_width(20, 20) == 63
    with pytest.raises(ValueError, match=r"is not a bitwise OR; allowed: two binary"):
        TASK.prompt("001+2")
