import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arith_jax.config.evaluation import EvalConfig
from arith_jax.tasks.copying import Copying
from arith_jax.tasks.task import Layout
from tests.tasks import rows


@pytest.mark.parametrize("reverse", [False, True])
def test_strings_are_written_again(reverse):
    task = Copying(reverse=reverse)
    for kind in (None, *task.eval_sets):
        texts, cells = rows.draw(task, 300, 30, kind)
        for text, (length, _) in zip(texts, cells, strict=True):
            string, answer = text.split("=")
            assert len(string) == length
            assert answer == (string[::-1] if reverse else string)
            assert kind != "repeats" or len(set(string)) <= 2
        rows.check_answers(task, texts)
        if kind != "repeats":
            joined = "".join(text.split("=")[0] for text in texts)
            shares = [joined.count(digit) / len(joined) for digit in "0123456789"]
            assert max(abs(share - 0.1) for share in shares) < 0.02


def test_both_digits_of_repeats_are_uniform_and_used():
    texts, _ = rows.draw(Copying(), 400, 40, "repeats", low=40)
    counts = [len(set(text[:40])) for text in texts]
    # Of pairs of digits a tenth are equal.
    assert 0.04 < np.mean(np.array(counts) == 1) < 0.17


@pytest.mark.parametrize("reverse", [False, True])
def test_a_row_does_not_depend_on_padded_sizes(reverse):
    task, cells, key = Copying(reverse=reverse), jnp.array([[3, 3]]), jax.random.key(1)
    small = rows.sample_rows(task, key, cells, Layout((3, 3), 8), 1)
    large = rows.sample_rows(task, key, cells, Layout((8, 8), 20), 1)
    assert rows.texts_of(task, small) == rows.texts_of(task, large)


def test_strings_keep_their_zeros():
    task = Copying(reverse=True)
    assert task.prompt(" 0070 =") == "0070="
    assert task.true_answer("0070=") == task.read_answer("0070=", "0700") == "0700"
    for text in ("", "1 2", "-1", "12+3", "1:2", "٣"):
        with pytest.raises(ValueError, match=r"is not a string of digits; allowed: on"):
            task.prompt(text)


def test_sizes_of_training_are_equal_and_uniform():
    words = jax.random.bits(jax.random.key(0), (4000, 2))
    cells = np.asarray(jax.vmap(lambda w: Copying().draw_cell(w, (8, 8)))(words))
    np.testing.assert_array_equal(cells[:, 0], cells[:, 1])
    assert np.bincount(cells[:, 0]).tolist()[0] == 0
    assert np.bincount(cells[:, 0])[1:].min() > 400


def test_the_examples_of_a_grid_are_on_its_diagonal():
    config = EvalConfig(grid_digits=4, grid_samples=3, diagonal=(9,))
    cells = config.requests(Copying(), (4, 4))["uniform"]
    assert len(cells) == 4 * 4 + 1
    evaluated = [cell for cell in cells if cell[2]]
    assert evaluated == [(n, n, 3) for n in range(1, 5)] + [(9, 9, 100)]
