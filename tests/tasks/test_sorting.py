import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arith_jax import vocab
from arith_jax.tasks.sorting import Sorting, ranks
from arith_jax.tasks.task import Layout
from tests.tasks import rows

TASK = Sorting()


def items_of(text):
    """Keys and values, read symbol by symbol: comma and colon can be keys."""
    items, place = [], 0
    while True:
        key, colon = text[place], text[place + 1]
        assert colon == ":"
        end = place + 2
        while text[end].isdigit():
            end += 1
        items.append((key, text[place + 2 : end]))
        if text[end] == "=":
            return items, text[end + 1 :]
        assert text[end] == ","
        place = end + 1


@pytest.mark.parametrize("kind", [None, *TASK.eval_sets])
def test_lists_are_sorted_like_by_python(kind):
    texts, cells = rows.draw(TASK, 600, (12, 7), kind, seed=1)
    for text, (count, length) in zip(texts, cells, strict=True):
        items, answer = items_of(text)
        assert len(items) == count
        values = [int(written[::-1]) for _, written in items]
        lengths = [len(written) for _, written in items]
        assert [len(str(value)) for value in values] == lengths
        assert max(lengths) <= length
        assert min(values) > 0
        order = sorted(range(count), key=lambda i: values[i])
        assert answer == ",".join(items[i][0] for i in order)
        keys = "".join(key for key, _ in items)
        assert keys in 2 * vocab.HINTS
        if kind in ("full", "close"):
            assert set(lengths) == {length}
        if kind == "close" and length > 3:
            assert len({written[3:] for _, written in items}) == 1
        if kind == "ties":
            assert len(set(values)) <= 2
    rows.check_answers(TASK, texts)


def test_largest_lists_fit_their_row():
    assert TASK.row_width(10, 10) == 150
    texts, _ = rows.draw(TASK, 20, (30, 30), "full", low=30)
    assert {len(text) for text in texts} == {TASK.row_width(30, 30) - 1}
    rows.check_answers(TASK, texts)


def test_ranks_are_stable_and_leave_out_what_does_not_count():
    numbers = jnp.array([[0, 5], [0, 5], [9, 4], [0, 5], [1, 0]])
    valid = jnp.array([True, True, True, True, False])
    assert ranks(numbers, valid).tolist() == [1, 2, 0, 3, 5]


def test_numbers_have_uniform_lengths():
    texts, _ = rows.draw(TASK, 800, (5, 8), low=8)
    items = [item for text in texts for item in items_of(text)[0]]
    counts = collections.Counter(len(written) for _, written in items)
    assert set(counts) == set(range(1, 9))
    assert max(counts.values()) < 1.25 * min(counts.values())
    starts = {items_of(text)[0][0][0] for text in texts}
    assert len(starts) > 90


def test_hard_lists_have_their_share():
    texts, _ = rows.draw(Sorting(hard_lists=0.5), 800, (6, 8), low=6)
    numbers = [[written for _, written in items_of(text)[0]] for text in texts]
    ties = [len(set(written)) <= 2 for written in numbers if len(written) == 6]
    assert 0.2 < np.mean(ties) < 0.32
    full = [
        len({len(w) for w in written}) == 1 < len(set(written)) for written in numbers
    ]
    assert 0.2 < np.mean(full) < 0.4
    with pytest.raises(ValueError, match=r"task.hard_lists=2.0: must be between"):
        Sorting(hard_lists=2.0)


def test_keys_of_training_examples_can_be_any():
    task = Sorting(mixed_keys=True)
    texts, _ = rows.draw(task, 400, (6, 2), low=6)
    keys = ["".join(key for key, _ in items_of(text)[0]) for text in texts]
    assert all(len(set(key)) == 6 for key in keys)
    places = np.array([[vocab.HINTS.index(symbol) for symbol in key] for key in keys])
    distances = np.abs(places[:, 0] - places[:, 1])
    assert np.mean(distances > 6) > 0.8
    assert set(places.ravel()) == set(range(102))
    rows.check_answers(task, texts)
    # What is evaluated is as in the paper.
    texts, _ = rows.draw(task, 50, (6, 2), "uniform", low=6)
    for text in texts:
        assert "".join(key for key, _ in items_of(text)[0]) in 2 * vocab.HINTS


WRITTEN = Sorting(scratchpad=True)


@pytest.mark.parametrize("kind", [None, "ties"])
def test_scratchpads_are_insertion_sorts(kind):
    texts, cells = rows.draw(WRITTEN, 300, (12, 4), kind, seed=3)
    for text, (count, _) in zip(texts, cells, strict=True):
        items, answer = items_of(text)
        values = {key: int(written[::-1]) for key, written in items}
        assert len(answer) == WRITTEN.answer_width(count, 4)
        place = 0
        for line in range(1, count + 1):
            known = [key for key, _ in items[:line]]
            expected = "".join(sorted(known, key=values.__getitem__))
            assert answer[place : place + line] == expected
            if line < count:
                assert answer[place + line] == ","
            place += line + 1
    rows.check_answers(WRITTEN, texts)


def test_lists_are_read_off_scratchpads():
    prompt = WRITTEN.prompt("30,4,17")
    assert WRITTEN.true_answer(prompt) == "A,BA,BCA"
    assert WRITTEN.read_answer(prompt, "A,BA,BCA") == "4,17,30"
    assert WRITTEN.first_answer == ""
    assert WRITTEN.row_width(3, 2) == len(prompt) + 3 + len("A,BA,BCA") + 1 - 2


def test_row_does_not_depend_on_padded_sizes():
    cells = jnp.array([[3, 5], [7, 1]])
    key = jax.random.key(1)
    for kind in range(len(TASK.eval_sets)):
        small = rows.sample_rows(TASK, key, cells, Layout((7, 5), 80), kind)
        large = rows.sample_rows(TASK, key, cells, Layout((16, 24), 200), kind)
        assert rows.texts_of(TASK, small) == rows.texts_of(TASK, large)


def test_lists_are_written_with_keys_and_read_back():
    prompt = TASK.prompt("30, 4,17 ,4")
    assert prompt == "A:03,B:4,C:71,D:4="
    assert TASK.true_answer(prompt) == "B,D,C,A"
    assert TASK.read_answer(prompt, "B,D,C,A") == "4,4,17,30"
    assert TASK.read_answer(prompt, "B,Z") == "4,?"
    assert TASK.sizes(prompt) == (4, 2)
    assert TASK.true_answer(TASK.prompt("7")) == "A"


def test_comma_and_colon_can_be_keys():
    text = "::8,;:9,/:3,,:08="
    assert TASK.true_answer(text) == "/,:,;,,"
    assert TASK.sizes(text) == (4, 2)


@pytest.mark.parametrize(
    "text", ["", "1,,2", "3;4", "-1,2", "a,b", ",".join("1" * 103)]
)
def test_expression_that_is_not_a_list_is_refused(text):
    with pytest.raises(ValueError, match=r"is not a list to sort; allowed: 1 to 102"):
        TASK.prompt(text)


def test_regions_tell_which_size_is_beyond_training():
    trained = (10, 10)
    assert TASK.regions(10, 10, trained) == ("id",)
    assert TASK.regions(10, 30, trained) == ("ood", "ood_digits")
    assert TASK.regions(30, 10, trained) == ("ood", "ood_numbers")
    assert TASK.regions(11, 11, trained) == ("ood", "ood_both")
