import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arith_jax import vocab
from arith_jax.sorting import Sorting, ranks
from tests import rows

TASK = Sorting()


def items_of(text):
    """Keys and values, read symbol by symbol: comma and colon can be keys."""
    found, place = [], 0
    while True:
        key, colon = text[place], text[place + 1]
        assert colon == ":"
        end = place + 2
        while text[end].isdigit():
            end += 1
        found.append((key, text[place + 2 : end]))
        if text[end] == "=":
            return found, text[end + 1 :]
        assert text[end] == ","
        place = end + 1


@pytest.mark.parametrize("kind", [None, *TASK.kinds])
def test_lists_are_sorted_like_by_python(kind):
    texts, cells = rows.draw(TASK, 600, (12, 7), kind, seed=1)
    for text, (count, most) in zip(texts, cells, strict=True):
        items, answer = items_of(text)
        assert len(items) == count
        values = [int(written[::-1]) for _, written in items]
        lengths = [len(written) for _, written in items]
        assert [len(str(value)) for value in values] == lengths
        assert max(lengths) <= most
        assert min(values) > 0
        order = sorted(range(count), key=lambda i: values[i])
        assert answer == ",".join(items[i][0] for i in order)
        keys = "".join(key for key, _ in items)
        assert keys in 2 * vocab.HINTS
        if kind in ("full", "close"):
            assert set(lengths) == {most}
        if kind == "close" and most > 3:
            assert len({written[3:] for _, written in items}) == 1
        if kind == "ties":
            assert len(set(values)) <= 2
    rows.check_truth(TASK, texts)


def test_largest_lists_fit_their_row():
    assert TASK.row_width(10, 10) == 150
    texts, _ = rows.draw(TASK, 20, (30, 30), "full", low=30)
    assert {len(text) for text in texts} == {TASK.row_width(30, 30) - 1}
    rows.check_truth(TASK, texts)


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


def test_share_of_hard_lists():
    texts, _ = rows.draw(Sorting(hard_lists=0.5), 800, (6, 8), low=8)
    full = [len({len(written) for _, written in items_of(t)[0]}) == 1 for t in texts]
    assert 0.4 < np.mean(full) < 0.6
    close = [len({written[3:] for _, written in items_of(t)[0]}) == 1 for t in texts]
    assert 0.15 < np.mean(close) < 0.35
    with pytest.raises(ValueError, match=r"data.hard_lists=2.0: must be between"):
        Sorting(hard_lists=2.0)


def test_row_does_not_depend_on_padded_sizes():
    cells = jnp.array([3, 7]), jnp.array([5, 1])
    key = jax.random.key(1)
    for kind in range(len(TASK.kinds)):
        small = rows.rows_of(TASK, key, *cells, (7, 5), 80, kind)
        large = rows.rows_of(TASK, key, *cells, (16, 24), 200, kind)
        assert rows.texts_of(TASK, small) == rows.texts_of(TASK, large)


def test_lists_of_people():
    prompt = TASK.prompt("30, 4,17 ,4")
    assert prompt == "A:03,B:4,C:71,D:4="
    assert TASK.truth(prompt) == "B,D,C,A"
    assert TASK.read(prompt, "B,D,C,A") == "4,4,17,30"
    assert TASK.read(prompt, "B,Z") == "4,?"
    assert TASK.sizes(prompt) == (4, 2)
    assert TASK.truth(TASK.prompt("7")) == "A"


def test_comma_and_colon_can_be_keys():
    text = "::8,;:9,/:3,,:08="
    assert TASK.truth(text) == "/,:,;,,"
    assert TASK.sizes(text) == (4, 2)


@pytest.mark.parametrize(
    "text", ["", "1,,2", "3;4", "-1,2", "a,b", ",".join("1" * 103)]
)
def test_expression_that_is_not_a_list_is_refused(text):
    with pytest.raises(ValueError, match=r"is not a list to sort; allowed: 1 to 102"):
        TASK.prompt(text)


def test_regions_tell_which_size_is_beyond_training():
    most = (10, 10)
    assert TASK.regions(10, 10, most) == ("id",)
    assert TASK.regions(10, 30, most) == ("ood", "ood_digits")
    assert TASK.regions(30, 10, most) == ("ood", "ood_numbers")
    assert TASK.regions(11, 11, most) == ("ood", "ood_both")
