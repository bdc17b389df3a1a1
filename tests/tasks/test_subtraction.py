import jax
import jax.numpy as jnp
import pytest

from arith_jax.tasks.subtraction import Subtraction
from arith_jax.tasks.task import Layout
from tests.tasks import rows

SIGNED, COMPLEMENT = Subtraction(), Subtraction(complement=True)
KINDS = list(SIGNED.eval_sets)


@pytest.mark.parametrize("task", [SIGNED, COMPLEMENT])
@pytest.mark.parametrize("length", [1, 3, 40])
def test_differences_equal_python_integers(task, length):
    texts, cells = rows.draw(task, 3000, length)
    rows.check_answers(task, texts)
    signs = 0
    for text, cell in zip(texts, cells, strict=True):
        prompt, answer = text.split("=")
        a, b = prompt.split("-")
        assert (len(a), len(b)) == cell
        value = int(a[::-1]) - int(b[::-1])
        assert int(task.read_answer(prompt + "=", answer)) == value
        signs += value < 0
    assert 900 < signs < 1700


@pytest.mark.parametrize("task", [SIGNED, COMPLEMENT])
@pytest.mark.parametrize("kind", KINDS[1:])
def test_special_differences_equal_python_integers(task, kind):
    texts, _ = rows.draw(task, 500, 12, kind)
    rows.check_answers(task, texts)


def test_eval_sets_are_what_they_say():
    for text in rows.draw(SIGNED, 100, 9, "equal")[0]:
        assert text.endswith("=0")
    for text in rows.draw(SIGNED, 100, 9, "powers")[0]:
        assert text.split("-")[0].strip("0") == "1"
    longest = 0
    for text in rows.draw(SIGNED, 300, 30, "chains", low=30)[0]:
        a, b = text.split("=")[0].split("-")
        borrows = run = 0
        for x, y in zip(a, b, strict=True):
            borrows = int(x) - int(y) - borrows < 0
            run = run + 1 if borrows else 0
            longest = max(longest, run)
    assert longest == 30


@pytest.mark.parametrize(
    ("expression", "signed", "complement"),
    [
        ("42-57", "51-", "58-"),
        ("57-42", "51", "51"),
        ("120-98", "22", "220"),
        ("98-120", "22-", "879-"),
        ("7-7", "0", "0"),
        ("0-0", "0", "0"),
        ("0-120", "021-", "088-"),
        ("100-1", "99", "990"),
        ("1-100", "99-", "109-"),
        ("1000-999", "1", "1000"),
    ],
)
def test_results_are_written_in_one_of_two_ways(expression, signed, complement):
    for task, answer in ((SIGNED, signed), (COMPLEMENT, complement)):
        prompt = task.prompt(expression)
        assert task.true_answer(prompt) == answer
        a, b = expression.split("-")
        assert task.read_answer(prompt, answer) == str(int(a) - int(b))


def test_malformed_complement_is_shown_as_written():
    prompt = COMPLEMENT.prompt("120-98")
    assert COMPLEMENT.read_answer(prompt, "22") == "22"
    assert COMPLEMENT.read_answer(prompt, "2-20") == "02-2"


def test_chain_share_enriches_training_rows():
    cancelled = [
        sum(x == y for x, y in zip(*text.split("=")[0].split("-"), strict=True))
        for share in (0.0, 0.6)
        for text in rows.draw(Subtraction(carry_chains=share), 300, 20, low=20)[0]
    ]
    assert sum(cancelled[300:]) > 2 * sum(cancelled[:300])


@pytest.mark.parametrize("text", ["1+2", "1--2", "-1-2", "1-2-3", "a-b", "1.5-2"])
def test_expression_that_is_not_a_difference_is_refused(text):
    with pytest.raises(ValueError, match=r"is not a difference; allowed: two non-neg"):
        SIGNED.prompt(text)


def test_rows_fit_their_width():
    cells = jnp.full((100, 2), 9)
    for task in (SIGNED, COMPLEMENT):
        layout = Layout((9, 9), task.row_width(9, 9))
        ids = rows.sample_rows(task, jax.random.key(0), cells, layout)
        assert bool(jnp.all(jnp.sum(ids == 3, axis=1) == 1))
