import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arith_jax.tasks.square_root import MAX_SIZE, SquareRoot
from arith_jax.tasks.task import Layout
from tests.tasks import rows

TASK = SquareRoot()


def number_of(text):
    """The number of a row."""
    return int(text.partition("=")[0][:0:-1])


@pytest.mark.parametrize("kind", [None, *TASK.eval_sets])
def test_roots_equal_python_integers(kind):
    texts, cells = rows.draw(TASK, 300, 5, kind, seed=1)
    for text, (length, _) in zip(texts, cells, strict=True):
        prompt, answer = text.split("=")
        root = math.isqrt(number_of(text))
        remainder = number_of(text) - root**2
        assert len(prompt) == 2 * length + 1
        assert len(str(root)) == length
        expected = f"{root} remainder {remainder}"
        assert TASK.read_answer(prompt + "=", answer) == expected
        if kind == "square":
            assert remainder == 0
        if kind == "largest":
            assert remainder == 2 * root
        if kind == "nines":
            assert set(str(root)) <= {"9", "0"}
    rows.check_answers(TASK, texts)


def test_roots_of_any_number_are_read_off_its_lines():
    for number in [*range(1, 400), 10**12, 10**12 - 1, 10**17 + 3]:
        prompt = TASK.prompt(f"sqrt({number})")
        root = math.isqrt(number)
        expected = f"{root} remainder {number - root**2}"
        assert TASK.read_answer(prompt, TASK.true_answer(prompt)) == expected


def test_a_root_of_nines_fills_its_row():
    for length in (1, 3, 20):
        prompt = TASK.prompt(f"√{10 ** (2 * length) - 1}")
        assert TASK.sizes(prompt) == (length, length)
        answer = TASK.true_answer(prompt)
        assert len(answer) == TASK.answer_width(length, length)
        assert len(prompt + answer) + 1 == TASK.row_width(length, length)


def test_remainders_are_nearly_uniform_and_edges_have_their_share():
    cells, layout = jnp.full((3000, 2), 1), Layout((2, 2), 200)
    ids = rows.sample_rows(TASK, jax.random.key(0), cells, layout, 0)
    numbers = list(map(number_of, rows.texts_of(TASK, ids)))
    # Of the root 9, which has 19 remainders.
    counts = np.bincount([n - 81 for n in numbers if n >= 81], minlength=19)
    assert len(counts) == 19
    assert counts.min() > 0.3 * counts.mean()
    texts, _ = rows.draw(SquareRoot(edges=0.6), 900, 4, low=4)
    roots = [math.isqrt(number_of(text)) for text in texts]
    rest = [number_of(t) - root**2 for t, root in zip(texts, roots, strict=True)]
    square = np.mean(np.array(rest) == 0)
    largest = np.mean(np.array(rest) == 2 * np.array(roots))
    nines = np.mean([set(str(root)) <= {"9", "0"} for root in roots])
    for share in (square, largest, nines):
        assert 0.14 < share < 0.27
    with pytest.raises(ValueError, match=r"task.edges=2.0: must be between 0 and 1"):
        SquareRoot(edges=2.0)


def test_square_roots_are_written_backwards_and_read_back():
    assert TASK.prompt("sqrt(150)") == TASK.prompt(" √0150 =") == "√0510="
    answer = "100:100-000:300-799+0500:1200-9200:3200-6000:5200-1899/6000"
    assert TASK.true_answer("√0510=") == answer
    assert TASK.read_answer("√0510=", answer) == "12 remainder 6"
    # What a half-trained model may write.
    assert TASK.read_answer("√0510=", "") == "0 remainder ?"
    assert TASK.read_answer("√0510=", "100:100-000:3") == "0 remainder ?"


@pytest.mark.parametrize("text", ["", "12", "√0", "√-1", "sqrt(1", "√" + "9" * 247])
def test_what_is_no_square_root_is_refused(text):
    with pytest.raises(ValueError, match=r"is not a square root; allowed: that of"):
        TASK.prompt(text)


def test_the_largest_root_has_its_lines_and_groups():
    scheme = TASK.schemes["roots"]
    # The last line that can be, and the last group.
    levels = 8 + MAX_SIZE + 2, 8 + 21 * MAX_SIZE, 8 + 2 * (MAX_SIZE - 1)
    last = jnp.array([levels[0] - 1 + 2**11 * (levels[1] + 2**12 * levels[2])])
    token = jnp.array(TASK.vocab.encode("1"))
    after = scheme.next_position_id(last, token, last[None])
    assert tuple(int(x[0, 0]) for x in scheme.query_levels(after[None])) == levels


@pytest.mark.parametrize("kind", range(4))
def test_a_row_does_not_depend_on_padded_sizes(kind):
    cells, key = jnp.array([[3, 3], [4, 4]]), jax.random.key(1)
    small = rows.sample_rows(TASK, key, cells, Layout((4, 4), 480), kind)
    large = rows.sample_rows(TASK, key, cells, Layout((8, 8), 1300), kind)
    texts = rows.texts_of(TASK, small)
    assert texts == rows.texts_of(TASK, large)
    rows.check_answers(TASK, texts)
