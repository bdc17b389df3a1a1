"""What holds for all tasks, for mixtures and index hints; the page on new tasks."""

import pathlib
import random
import re
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arith_jax import vocab
from arith_jax.positions.passes import Passes
from arith_jax.positions.schemes import Abacus, Coupled, Kinds, Mirrored
from arith_jax.positions.written_schemes import Groups, Items, Lines, Roots, Terms
from arith_jax.tasks.addition import Addition
from arith_jax.tasks.make import TASKS, default_options, make_task
from arith_jax.tasks.mixture import Mixture
from arith_jax.tasks.multiplication import Multiplication
from arith_jax.tasks.sorting import Sorting
from arith_jax.tasks.subtraction import Subtraction
from arith_jax.tasks.task import Layout, Task
from tests.tasks import rows

CASES = {name: make_task(name, {}) for name in TASKS}
CASES["complement"] = make_task("addsub", {"complement": True})
CASES["scratchpad"] = make_task("multiplication", {"scratchpad": True})
CASES["sums"] = make_task("multi_addition", {"scratchpad": True, "hard_lists": 0.5})
CASES["reverse"] = make_task("copying", {"reverse": True})
CASES["hints"] = make_task("addsub", {"index_hints": True})
DOCUMENT = pathlib.Path(__file__).parents[2] / "docs" / "new_task.md"


@pytest.mark.parametrize("name", CASES)
def test_evaluation_sets_are_drawn_in_a_process_of_64_bits_too(name):
    task, layout = CASES[name], Layout((6, 5), CASES[name].row_width(6, 5))
    cell, kind = jnp.array([6, 5], jnp.int32), jnp.array(0, jnp.int32)
    draw = lambda key, cell, kind: task.sample(key, cell, layout, kind=kind)
    with jax.enable_x64(True):
        row = jax.eval_shape(draw, jax.random.key(0), cell, kind)
    assert row.shape == (layout.width,)


@pytest.mark.parametrize("name", CASES)
def test_rows_of_every_task_are_right_and_as_large_as_it_says(name):
    task = CASES[name]
    assert isinstance(task, Task)
    texts, cells = rows.draw(task, 200, (6, 5))
    for text, (a, b) in zip(texts, cells, strict=True):
        assert text.count("=") == 1
        prompt, answer = text.split("=")
        size_a, size_b = task.sizes(prompt + "=")
        assert size_a == a
        # A list holds numbers of at most b digits.
        assert size_b == b or (task.has_lists and size_b < b)
        assert len(text) + 1 <= task.row_width(a, b)
        assert len(answer) <= task.answer_width(a, b)
        plain = "".join(s if s in "0123456789" else " " for s in text).split()
        if name != "hints":
            assert max(map(len, plain)) <= task.max_number_length(a, b)
            if task.max_numbers_per_row:
                assert len(plain) <= task.max_numbers_per_row
    if name != "hints":
        rows.check_answers(task, texts)
    if task.max_numbers_per_row:
        symbols = [sum(not s.isdigit() for s in text) + 1 for text in texts]
        assert max(symbols) <= task.max_symbols_per_row


@pytest.mark.parametrize("name", CASES)
def test_examples_of_every_task_have_the_sizes_asked_for(name):
    task, sizes = CASES[name], [(3, 4), (5, 2)]
    texts = task.examples(random.Random(0), sizes)
    assert len(texts) == 3 * len(task.subtasks)
    # Those of each part of a mixture: a telling one, and one of each size.
    for telling, *others in zip(*[iter(texts)] * 3, strict=True):
        assert max(task.sizes(task.prompt(telling))) > 1
        for text, (a, b) in zip(others, sizes, strict=True):
            size_a, size_b = task.sizes(task.prompt(text))
            assert size_a == a
            expected = a if rows.has_one_size(task) else b
            assert size_b == expected or (task.has_lists and size_b < b)


@pytest.mark.parametrize("name", CASES)
def test_cells_of_every_eval_set_hold_the_examples_asked_for_or_all(name):
    task = CASES[name]
    for kind in task.eval_sets:
        a, b, count = task.cell(kind, 4, 4, 3)
        assert (a, b, count) in ((4, 4, 3), (4, 1, 1), (1, 4, 3))
    assert set(task.subtasks) <= set(task.eval_sets)


@pytest.mark.parametrize(
    ("name", "options", "schemes", "is_packable"),
    [
        ("addition", {}, {"abacus", "coupled", "kinds", "lines"}, True),
        ("addition", {"blanks": 0.1}, {"abacus", "coupled", "kinds"}, False),
        ("addition", {"index_hints": True}, {"abacus", "coupled", "kinds"}, False),
        (
            "multiplication",
            {"scratchpad": True},
            {"abacus", "coupled", "kinds", "lines"},
            True,
        ),
        ("arithmetic", {}, {"abacus", "coupled", "kinds", "lines"}, False),
        ("arithmetic", {"blanks": 0.1}, {"abacus", "coupled", "kinds"}, False),
        ("sorting", {}, {"abacus", "coupled"}, False),
        ("sorting", {"scratchpad": True}, {"abacus", "coupled", "items"}, False),
        ("bitwise_or", {}, {"abacus", "coupled"}, False),
        ("multi_addition", {}, {"abacus", "coupled"}, False),
        (
            "multi_addition",
            {"scratchpad": True},
            {"abacus", "coupled", "terms"},
            False,
        ),
        ("division", {}, {"abacus", "coupled", "groups"}, False),
        ("square_root", {}, {"abacus", "coupled", "roots"}, False),
        ("copying", {}, {"abacus", "coupled"}, False),
        ("copying", {"reverse": True}, {"abacus", "coupled", "mirrored"}, False),
        ("radix_sorting", {}, {"abacus", "coupled", "passes"}, False),
    ],
)
def test_tasks_have_the_schemes_that_fit_their_rows(
    name, options, schemes, is_packable
):
    task = make_task(name, options)
    symbols = task.vocab
    expected = {
        "abacus": Abacus(),
        "coupled": Coupled(),
        "lines": Lines(equals_id=17, operator_id=16),
        "items": Items(equals_id=17),
        "kinds": Kinds(),
        "mirrored": Mirrored(equals_id=17),
        "terms": Terms(equals_id=17),
        "groups": Groups(equals_id=17, begins_id=14),
        "roots": Roots(equals_id=17, begins_id=14, sign_id=20),
        "passes": Passes(equals_id=17, left_out_id=118),
    }
    assert symbols.encode("=") == [17]
    assert task.schemes == {scheme: expected[scheme] for scheme in schemes}
    assert task.is_packable == is_packable
    if not is_packable and name not in ("addition", "multiplication"):
        with pytest.raises(NotImplementedError, match="do not share rows"):
            task.draw_pair_kinds(jnp.zeros((2, 3), jnp.uint32))


def test_only_sums_have_carries():
    assert CASES["arithmetic"].longest_carry("999+1=") == 3
    for name, text in (
        ("arithmetic", "999x1="),
        ("arithmetic", "001-1="),
        ("sorting", "A:1,B:2="),
        ("bitwise_or", "01+1="),
        ("multi_addition", "99+1+1="),
        ("division", "01/3="),
        ("square_root", "√0510="),
        ("copying", "0312="),
    ):
        assert CASES[name].longest_carry(text) is None


def test_parts_of_a_mixture_have_equal_shares_and_separate_sets():
    mixture = CASES["arithmetic"]
    texts, _ = rows.draw(mixture, 900, 9)
    shares = [sum(op in t.split("=")[0] for t in texts) / 900 for op in "+-x"]
    assert all(abs(share - 1 / 3) < 0.06 for share in shares)
    for kind, operator in (
        ("addition", "+"),
        ("subtraction", "-"),
        ("multiplication_equal", "x"),
        ("subtraction_powers", "-"),
    ):
        texts, _ = rows.draw(mixture, 40, 9, kind)
        assert all(operator in text.split("=")[0] for text in texts)
        rows.check_answers(mixture, texts)
    assert texts[0].split("-")[0].strip("0") == "1"


def test_mixture_reads_expressions_of_every_part():
    mixture = CASES["complement"]
    assert mixture.prompt("12+34") == "21+43="
    assert mixture.true_answer(mixture.prompt("42-57")) == "58-"
    assert mixture.read_answer("24-75=", "58-") == "-15"
    for text, message in (("12*34", "is none of addition, subtr"), ("1+", "not a sum")):
        with pytest.raises(ValueError, match=message):
            mixture.prompt(text)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("additive", {}, r"task.name='additive' is unknown; did you mean 'addit"),
        ("sorting", {"blanks": 0.1}, r"task.blanks=0.1: sorting has no such option"),
        ("addition", {"complement": True}, r"task.complement=True: addition has no su"),
        # Off, too.
        ("addition", {"complement": False}, r"task.complement=False: addition has no"),
        ("addition", {"carry_chain": 0.1}, r"allowed: carry_chains, zero_pad, repeats"),
        ("multiplication", {"carry_chains": 0.1}, r"multiplication has no such option"),
        ("bitwise_or", {"index_hints": True}, r"no such option; allowed: random_bits"),
    ],
)
def test_unknown_tasks_and_options_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        make_task(name, options)


def test_options_reach_the_parts_that_have_them():
    mixture = make_task("arithmetic", {"carry_chains": 0.2, "complement": True})
    add, mul = Addition(carry_chains=0.2), Multiplication()
    sub = Subtraction(carry_chains=0.2, complement=True)
    assert mixture == Mixture((add, sub, mul))


def test_default_options_are_those_of_all_parts():
    assert default_options("sorting") == {
        "scratchpad": False,
        "mixed_keys": False,
        "hard_lists": 0.0,
    }
    assert default_options("bitwise_or") == {"random_bits": False}
    mul, sub = default_options("multiplication"), default_options("subtraction")
    assert mul.keys() - sub.keys() == {"scratchpad"}
    assert sub.keys() - mul.keys() == {"carry_chains", "complement"}
    assert default_options("arithmetic") == sub | mul
    for name in TASKS:
        assert make_task(name, default_options(name)) == make_task(name, {})
    assert make_task("sorting", {"scratchpad": True}) == Sorting(scratchpad=True)


def test_hints_are_random_in_training_and_start_at_a_in_evaluation():
    task = Addition(index_hints=True)
    assert task.row_width(20, 20) == 125
    texts, _ = rows.draw(task, 300, 12)
    starts = {text[0] for text in texts}
    assert len(starts) > 80
    for text in texts:
        a, b, answer = re.split(r"[+=]", text)
        first = vocab.HINTS.index(a[0])
        for number in (a, b, answer):
            hints = (first + np.arange(len(number) // 2)) % 102
            assert number[::2] == "".join(vocab.HINTS[i] for i in hints)
        assert int(a[-1::-2]) + int(b[-1::-2]) == int(answer[-1::-2])
    texts, _ = rows.draw(task, 100, 12, "uniform")
    rows.check_answers(task, texts)
    assert task.prompt("120+98") == "A0B2C1+A8B9="
    assert task.true_answer("A0B2C1+A8B9=") == "A8B1C2"
    assert task.read_answer("A0B2C1+A8B9=", "A8B1C2") == "218"


def test_hints_follow_blanks():
    task = Addition(index_hints=True, blanks=0.3)
    for text in rows.draw(task, 100, 6)[0]:
        a, b, answer = re.split(r"[+=]", text.replace(" ", ""))
        assert int(a[-1::-2]) + int(b[-1::-2]) == int(answer[-1::-2])
        assert a[0] == b[0] == answer[0]


def documented_task():
    """The class of docs/new_task.md, executed as a module."""
    code = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert len(code) == 1
    module = types.ModuleType("arith_jax_modular_addition")
    # Dataclasses look their module up.
    sys.modules[module.__name__] = module
    exec(code[0], module.__dict__)
    return module.ModularAddition


@pytest.mark.parametrize("modulus", [2, 97, 10_000])
def test_rows_of_the_documented_task_are_right(modulus):
    task = documented_task()(modulus=modulus)
    assert isinstance(task, Task)
    for length in (1, 40):
        texts, _ = rows.draw(task, 500, length)
        rows.check_answers(task, texts)
        for text in texts:
            a, b, answer = re.split(r"[+=]", text)
            assert (int(a[::-1]) + int(b[::-1])) % modulus == int(answer[::-1])


def test_documented_task_has_its_option_and_is_written_as_the_page_says():
    task = documented_task()()
    assert task.prompt("98+120") == "89+021="
    assert task.true_answer("89+021=") == "42"
    assert task.modulus == 97
    assert task.is_packable
