import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arith_jax import vocab
from arith_jax.tasks import digits
from arith_jax.tasks.addition import Addition
from arith_jax.tasks.task import Layout
from tests.tasks import rows

KINDS = list(Addition().eval_sets)


def draw(task, count, length, kind=None, seed=0, low=1):
    texts, cells = rows.draw(task, count, length, kind, seed=seed, low=low)
    return texts, *map(np.array, zip(*cells, strict=True))


def numbers(text):
    prompt, answer = text.split("=")
    a, b = prompt.split("+")
    return a[::-1], b[::-1], answer[::-1]


@pytest.mark.parametrize(
    "length", [1, 3, 20, pytest.param(200, marks=pytest.mark.slow)]
)
def test_sums_equal_python_integers(length):
    for seed in range(5):
        texts, len_a, len_b = draw(Addition(), 5000, length, seed=seed)
        for text, digits_a, digits_b in zip(texts, len_a, len_b, strict=True):
            a, b, answer = numbers(text)
            assert int(a) + int(b) == int(answer)
            assert (len(a), len(b)) == (digits_a, digits_b)
            assert answer == str(int(answer))
            assert "0" not in (a[0], b[0])


@pytest.mark.parametrize("kind", KINDS[1:])
def test_special_sums_equal_python_integers(kind):
    texts, *_ = draw(Addition(), 2000, 30, kind)
    for text in texts:
        a, b, answer = numbers(text)
        assert int(a) + int(b) == int(answer)
        assert "0" not in (a[0], b[0])


def longest_carry(a, b):
    longest = run = carry = 0
    for x, y in zip(a[::-1].ljust(50, "0"), b[::-1].ljust(50, "0"), strict=True):
        carry = int(x) + int(y) + carry >= 10
        run = run + 1 if carry else 0
        longest = max(longest, run)
    return longest


def test_eval_sets_are_what_they_say():
    for text in draw(Addition(), 300, 12, "nines")[0]:
        a, b, answer = numbers(text)
        assert set(a) == {"9"}
        assert b != "1" or answer == "1" + "0" * len(a)
    for text in draw(Addition(), 300, 12, "equal")[0]:
        a, b, _ = numbers(text)
        assert a == b
    zeros = "".join(
        numbers(text)[0][1:] for text in draw(Addition(), 300, 12, "zeros", low=12)[0]
    )
    assert 0.6 < zeros.count("0") / len(zeros) < 0.85
    chains = [
        longest_carry(*numbers(text)[:2])
        for text in draw(Addition(), 500, 40, "chains", low=40)[0]
    ]
    assert np.mean(chains) > 18
    assert max(chains) == 40


def test_carry_chains_enrich_training_rows():
    plain, enriched = (
        np.mean(
            [
                longest_carry(*numbers(text)[:2])
                for text in draw(Addition(carry_chains=share), 500, 40, low=40)[0]
            ]
        )
        for share in (0.0, 0.5)
    )
    assert enriched > plain + 4


def test_mixed_operands_have_their_shares():
    task = Addition(carry_chains=0.3, repeats=0.5)
    texts, *_ = draw(task, 2000, 40, low=30)
    pairs = [numbers(text)[:2] for text in texts]
    few = np.array([len(set(f"{a}{b}")) <= 2 for a, b in pairs])
    chains = np.mean([longest_carry(a, b) >= 8 for a, b in pairs])
    # Uniform operands (a share of 0.2) almost never look like either.
    assert abs(few.mean() - 0.5) < 0.05
    assert 0.15 < chains < 0.5
    alike = np.array([len(str(a)) == len(str(b)) for a, b in pairs])
    assert abs(alike[few].mean() - 0.55) < 0.05
    assert alike[~few].mean() < 0.2
    assert not any(
        text.split("=")[0].replace("+", "").strip("0") == "" for text in texts
    )


def test_digits_are_uniform():
    texts, *_ = draw(Addition(), 4000, 10, low=10)
    operands = [numbers(text)[:2] for text in texts]
    inner = "".join(a[1:] + b[1:] for a, b in operands)
    for digit in "0123456789":
        assert abs(inner.count(digit) / len(inner) - 0.1) < 0.006
    lead = "".join(a[0] + b[0] for a, b in operands)
    for digit in "123456789":
        assert abs(lead.count(digit) / len(lead) - 1 / 9) < 0.02


def test_row_does_not_depend_on_padded_sizes():
    cells = jnp.array([[3, 5], [7, 1]])
    key = jax.random.key(1)
    for kind in range(len(KINDS)):
        small = rows.sample_rows(Addition(), key, cells, Layout((8, 8), 30), kind)
        large = rows.sample_rows(Addition(), key, cells, Layout((64, 64), 200), kind)
        assert rows.texts_of(Addition(), small) == rows.texts_of(Addition(), large)
        assert np.all(np.asarray(large)[:, 30:] == vocab.PAD)


def test_zero_padding_equalises_operands_only():
    texts, *_ = draw(Addition(zero_pad=True), 500, 9)
    for text in texts:
        prompt, answer = text.split("=")
        a, b = prompt.split("+")
        assert len(a) == len(b)
        assert int(a[::-1]) + int(b[::-1]) == int(answer[::-1])
        assert answer[-1] != "0"
        assert "0" not in (a[-1], b[-1]) or a[-1] != b[-1]


def test_blanks_fall_in_the_prompt_only_and_change_nothing_else():
    task = Addition(blanks=0.3)
    plain, *_ = draw(Addition(), 400, 6)
    blanked, *_ = draw(task, 400, 6)
    assert [text.replace(" ", "") for text in blanked] == plain
    prompts = [text.split("=")[0] for text in blanked]
    assert all(" " not in text.split("=")[1] for text in blanked)
    share = sum(p.count(" ") for p in prompts) / sum(
        len(p.replace(" ", "")) + 1 for p in prompts
    )
    assert 0.2 < share < 0.4


def test_every_row_ends_with_eos_inside_its_width():
    task = Addition()
    cells = jnp.full((200, 2), 9)
    layout = Layout((9, 9), 31)
    ids = np.asarray(rows.sample_rows(task, jax.random.key(0), cells, layout))
    assert task.row_width(9, 9) == 31
    assert np.all(np.sum(ids == vocab.EOS, axis=1) == 1)


def test_sums_are_written_backwards_and_read_back():
    task = Addition()
    assert task.prompt(" 98 + 120 ") == "89+021="
    assert task.true_answer("89+021=") == "812"
    assert task.read_answer("89+021=", "812") == "218"
    assert Addition(zero_pad=True).prompt("5+120=") == "500+021="
    assert task.prompt("007+0") == "7+0="


@pytest.mark.parametrize(
    ("expression", "places"),
    [("1+2", 0), ("5+5", 1), ("999+1", 3), ("1+999", 3), ("9099+1", 2), ("19+91", 2)],
)
def test_longest_carry_counts_the_places_it_travels(expression, places):
    for task in (Addition(), Addition(zero_pad=True), Addition(index_hints=True)):
        assert task.longest_carry(task.prompt(expression)) == places


def test_longest_carry_is_that_of_python_integers():
    for text in draw(Addition(), 300, 12, "chains")[0]:
        a, b, _ = numbers(text)
        prompt = text.split("=")[0] + "="
        assert Addition().longest_carry(prompt) == longest_carry(a, b)


def test_pairs_have_the_shares_of_kinds():
    task = Addition(carry_chains=0.3, repeats=0.5)
    words = jax.random.bits(jax.random.key(0), (4000, 3))
    kinds, is_alike = map(np.asarray, task.draw_pair_kinds(words))
    shares = np.bincount(kinds, minlength=len(KINDS)) / 4000
    for kind, share in (("uniform", 0.2), ("chains", 0.3), ("repeats", 0.5)):
        assert abs(shares[KINDS.index(kind)] - share) < 0.03
    # Half of the repeats, and nothing else, have operands of one length.
    is_repeats = kinds == KINDS.index("repeats")
    assert abs(is_alike[is_repeats].mean() - 0.5) < 0.05
    assert not is_alike[~is_repeats].any()
    kinds, is_alike = Addition().draw_pair_kinds(words)
    assert not kinds.any()
    assert not is_alike.any()


def test_true_answers_have_no_length_limit():
    rng = random.Random(0)
    number = "".join(rng.choices("123456789", k=9001))
    assert Addition().true_answer(f"{'9' * 9001}+1=") == "0" * 9001 + "1"
    doubled = Addition().true_answer(f"{number}+{number}=")
    assert digits.int_from_digits(doubled[::-1]) == 2 * digits.int_from_digits(
        number[::-1]
    )


@pytest.mark.parametrize(
    "text", ["", "1+", "1-2", "1+2+3", "a+b", "1.5+2", "-1+2", "٣+1"]
)
def test_expression_that_is_not_a_sum_is_refused(text):
    with pytest.raises(ValueError, match=r"expression .* is not a sum; allowed"):
        Addition().prompt(text)


@pytest.mark.parametrize("name", ["carry_chains", "repeats", "blanks"])
def test_shares_beyond_one_are_refused(name):
    with pytest.raises(ValueError, match=rf"task.{name}=1.5: must be between"):
        Addition(**{name: 1.5})


def test_shares_beyond_one_together_are_refused():
    with pytest.raises(
        ValueError, match=r"task.carry_chains=0.7 and task.repeats=0.7: tog"
    ):
        Addition(carry_chains=0.7, repeats=0.7)
