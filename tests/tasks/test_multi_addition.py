import collections
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arith_jax.tasks.multi_addition import MultiAddition
from arith_jax.tasks.task import Layout
from tests.tasks import rows

TASK, WRITTEN = MultiAddition(), MultiAddition(scratchpad=True)


@pytest.mark.parametrize("kind", [None, *TASK.eval_sets])
def test_running_sums_equal_python_integers(kind):
    texts, cells = rows.draw(WRITTEN, 400, (12, 7), kind, seed=1)
    for text, (count, length) in zip(texts, cells, strict=True):
        prompt, answer = text.split("=")
        numbers = [int(number[::-1]) for number in prompt.split("+")]
        assert len(numbers) == count
        assert all(str(n)[::-1] in prompt for n in numbers)  # no leading zeros
        sums = [str(total)[::-1] for total in itertools.accumulate(numbers)]
        assert answer == "+".join(sums)
        lengths = {len(number) for number in prompt.split("+")}
        assert max(lengths) <= length
        if kind in ("full", "chains"):
            assert lengths == {length}
    rows.check_answers(WRITTEN, texts)


def test_an_answer_at_once_is_the_last_sum():
    texts, _ = rows.draw(TASK, 300, (9, 5))
    for text in texts:
        prompt, answer = text.split("=")
        assert int(answer[::-1]) == sum(int(n[::-1]) for n in prompt.split("+"))
    rows.check_answers(TASK, texts)


def test_every_other_number_of_a_chain_makes_nines():
    texts, cells = rows.draw(WRITTEN, 50, (6, 9), "chains", low=6)
    for text, (_, length) in zip(texts, cells, strict=True):
        sums = text.split("=")[1].split("+")
        for line in sums[1::2]:
            # But for the leading digit, which must not be 0, and carries beyond it.
            assert line[: length - 1] == "9" * (length - 1)


def test_lengths_are_uniform_and_hard_lists_have_their_share():
    texts, _ = rows.draw(TASK, 800, (5, 8), low=8)
    lengths = [len(n) for text in texts for n in text.split("=")[0].split("+")]
    counts = collections.Counter(lengths)
    assert set(counts) == set(range(1, 9))
    assert max(counts.values()) < 1.25 * min(counts.values())
    texts, _ = rows.draw(MultiAddition(hard_lists=0.5), 800, (6, 8), low=6)
    numbers = [text.split("=")[0].split("+") for text in texts]
    full = [len({len(n) for n in part}) == 1 for part in numbers if len(part) == 6]
    assert 0.42 < np.mean(full) < 0.6
    sums = [sum(int(n[::-1]) for n in part[:2]) for part in numbers]
    chains = [set(str(total)[1:]) == {"9"} for total in sums]
    assert 0.12 < np.mean(chains) < 0.35


def test_sums_are_written_backwards_and_read_back():
    prompt = WRITTEN.prompt(" 12+ 34 +005")
    assert prompt == "21+43+5="
    assert WRITTEN.true_answer(prompt) == "21+64+15"
    assert WRITTEN.read_answer(prompt, "21+64+15") == "51"
    assert (TASK.true_answer(prompt), TASK.read_answer(prompt, "15")) == ("15", "51")
    assert WRITTEN.sizes(prompt) == (3, 2)
    assert WRITTEN.read_answer(prompt, "") == ""
    assert (WRITTEN.row_width(1, 3), WRITTEN.row_width(3, 2)) == (8, 9 + 10 + 1)
    assert (TASK.answer_width(11, 2), TASK.max_number_length(12, 2)) == (4, 4)


@pytest.mark.parametrize("text", ["", "12", "1+", "1+2-3", "1+-2", "a+b", "1+1+x"])
def test_what_is_no_sum_is_refused(text):
    with pytest.raises(ValueError, match=r"is not a sum; allowed: 2 to 32760 non-nega"):
        TASK.prompt(text)


@pytest.mark.parametrize("kind", range(3))
def test_a_row_does_not_depend_on_padded_sizes(kind):
    cells, key = jnp.array([[3, 5], [7, 1]]), jax.random.key(1)
    small = rows.sample_rows(WRITTEN, key, cells, Layout((7, 5), 120), kind)
    large = rows.sample_rows(WRITTEN, key, cells, Layout((16, 24), 200), kind)
    texts = rows.texts_of(WRITTEN, small)
    assert texts == rows.texts_of(WRITTEN, large)
    rows.check_answers(WRITTEN, texts)
