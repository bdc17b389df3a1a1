"""That examples are right and drawn as they should be, by Python and by chi-square.

100,000 examples; `TRUTH_FACTOR=100 TRUTH_SEED=1` draws a hundred times as many, others.
"""

import functools
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from arith_jax import vocab
from arith_jax.config.data import DataConfig
from arith_jax.data import packing
from arith_jax.data.batch import evaluation_batch, training_batch
from arith_jax.tasks.make import make_task
from arith_jax.tasks.task import Layout

FACTOR = int(os.environ.get("TRUTH_FACTOR", "1"))
SEED = int(os.environ.get("TRUTH_SEED", "0"))
BATCH = 5000
# Chance that a fair draw fails a test.
MIN_P = 1e-4

TASKS = {
    "addition": ("addition", {"carry_chains": 0.2, "repeats": 0.2}),
    "padded": ("addition", {"zero_pad": True}),
    "subtraction": ("subtraction", {"carry_chains": 0.2, "repeats": 0.2}),
    "complement": ("subtraction", {"complement": True, "carry_chains": 0.2}),
    "multiplication": ("multiplication", {"repeats": 0.1}),
    "scratchpad": ("multiplication", {"scratchpad": True}),
    "arithmetic": ("arithmetic", {"carry_chains": 0.2}),
    "sorting": ("sorting", {"hard_lists": 0.3, "mixed_keys": True}),
    "sorting_lines": ("sorting", {"scratchpad": True}),
    "bitwise_or": ("bitwise_or", {}),
    "random_bits": ("bitwise_or", {"random_bits": True}),
}
# Largest trained numbers: 5,000 examples of each task with either.
SHORT, LONG = (3, 100), (3, 20)


@functools.partial(jax.jit, static_argnums=(0, 3))
def drawn_rows(data, key, step, count):
    return training_batch(data, key, step, count).ids


def texts_of(symbols, ids):
    """Rows up to `EOS`."""
    table = np.array([" ", "?", "?", "\n", *symbols.symbols])
    rows = np.ascontiguousarray(table[np.asarray(ids)]).view(f"<U{ids.shape[1]}")
    return [row.partition("\n")[0] for row in rows[:, 0].tolist()]


def number(text):
    """The number that is written least significant digit first."""
    return int(text[::-1])


def right_answer(task, prompt):
    """What Python answers to a prompt, as the task writes it."""
    if task.has_lists:
        items = [(item[0], number(item[2:])) for item in split_list(prompt)]
        order = lambda some: "".join(k for k, _ in sorted(some, key=lambda i: i[1]))
        if not task.scratchpad:
            return ",".join(order(items))
        return ",".join(order(items[: i + 1]) for i in range(len(items)))
    operator = next(symbol for symbol in prompt if symbol in "+-x")
    a, b = prompt.split(operator)
    if task.title == "bitwise OR":
        return "".join(
            map(max, zip(a.ljust(len(b), "0"), b.ljust(len(a), "0"), strict=True))
        )
    x, y, longest = number(a), number(b), max(len(a), len(b))
    if operator == "+":
        return str(x + y)[::-1]
    if operator == "x" and getattr(task, "scratchpad", False):
        lines, total = [], 0
        for digit in b:
            total = total // 10 + x * int(digit)
            lines.append(str(total).zfill(len(a) + 1)[::-1])
        assert number("".join(line[0] for line in lines[:-1]) + lines[-1]) == x * y
        return "+".join(lines)
    if operator == "x":
        return str(x * y)[::-1]
    if getattr(task, "complement", False):
        written = str((x - y) % 10**longest).zfill(longest)[::-1]
        return written + "-" * (x < y)
    return str(abs(x - y))[::-1] + "-" * (x < y)


def split_list(prompt):
    """Items of a list; keys may be commas and colons."""
    items, rest = [], prompt
    while rest:
        digits = len(rest[2:]) - len(rest[2:].lstrip("0123456789"))
        items.append(rest[: 2 + digits])
        rest = rest[3 + digits :]
    return items


@pytest.mark.parametrize("name", TASKS)
def test_training_examples_are_right(name):
    task = make_task(*TASKS[name])
    is_slow = task.has_lists or name == "scratchpad"
    for max_digits in LONG if is_slow else SHORT:
        numbers = min(max_digits, 12) if task.has_lists else 0
        data = DataConfig(task=task, max_digits=max_digits, max_numbers=numbers)
        key = jax.random.key(SEED)
        for step in range(FACTOR):
            ids = np.asarray(drawn_rows(data, key, step, BATCH))
            for text in texts_of(task.vocab, ids):
                prompt, _, answer = text.rpartition("=")
                assert answer == right_answer(task, prompt)


def is_fair(counts, expected=None):
    """Whether counts are as expected, by chi-square."""
    return scipy.stats.chisquare(counts, expected).pvalue > MIN_P


@pytest.mark.parametrize(
    "name", ["addition", "arithmetic", "sorting", "bitwise_or", "random_bits"]
)
def test_lengths_are_drawn_as_they_should_be(name):
    task, size = make_task(*TASKS[name]), (12, 9)
    words = jax.random.bits(jax.random.key(SEED), (10**5 * FACTOR, 2))
    cells = np.asarray(jax.vmap(lambda word: task.draw_cell(word, size))(words)) - 1
    counts = np.zeros(size)
    np.add.at(counts, tuple(cells.T), 1)
    # Of bitwise OR every string alike: (i, j) has min(i, j) of them.
    weights = np.minimum(*(1 + np.indices(size))) if name == "bitwise_or" else 1
    expected = np.broadcast_to(weights, size) / np.sum(np.broadcast_to(weights, size))
    assert is_fair(counts.ravel(), len(cells) * expected.ravel())
    assert not is_fair(np.roll(counts, 1, axis=0).ravel() + np.arange(108) * 9)


@pytest.mark.parametrize("problems", [2, 8])
def test_lengths_of_packed_problems_are_uniform_and_independent(problems):
    size = 12
    data = DataConfig(max_digits=size, problems_per_row=problems)
    key, num_rows = jax.random.key(SEED), 10**5 * FACTOR // problems
    lengths, _ = packing.draw_lengths(data.task, key, data, num_rows)
    # Those of a row are not independent of each other: each has its own test.
    for problem in range(problems):
        cells = np.asarray(lengths)[problem::problems] - 1
        counts = np.zeros((size, size))
        np.add.at(counts, tuple(cells.T), 1)
        assert is_fair(counts.ravel())


def test_digits_are_uniform_and_independent():
    task, length = make_task("addition", {}), 6
    count, cell = 50_000 * FACTOR, jnp.array([length, length])
    keys = jax.random.split(jax.random.key(SEED), count)
    layout = Layout((9, 9), task.row_width(9, 9))
    sample = jax.jit(jax.vmap(lambda key: task.sample(key, cell, layout)))
    rows = np.asarray(sample(keys))[:, : 2 * length + 1] - vocab.DIGIT_ZERO
    a, b = rows[:, :length], rows[:, length + 1 :]
    digits = np.concatenate([a, b], axis=1)
    lasts = (length - 1, 2 * length - 1)
    for place in range(2 * length):
        counts = np.bincount(digits[:, place], minlength=10)
        if place in lasts:  # A leading digit is not 0.
            assert counts[0] == 0
        assert is_fair(counts[int(place in lasts) :])
        for other in range(place):
            inside = [9 if i in lasts else 10 for i in (place, other)]
            table = np.zeros((10, 10))
            np.add.at(table, (digits[:, place], digits[:, other]), 1)
            assert is_fair(table[-inside[0] :, -inside[1] :].ravel())


def test_training_and_evaluation_have_no_example_in_common():
    """Of operands of 8 digits and more, drawn as a run and its evaluation draw them.

    There are 8.1e15 pairs of 8 digits. If both draw n of each, which is more than any
    run does of so short ones, n^2 / 8.1e15 are expected in common: 1e-4 for a million.
    """
    data = DataConfig(task=make_task("addition", {}), max_digits=20)
    layout = Layout((20, 20), data.task.row_width(20, 20))
    per_cell = 300 * FACTOR
    seen, evaluated = set(), set()
    operands = lambda text: text.partition("=")[0]
    for step in range(12 * FACTOR):
        ids = drawn_rows(data, jax.random.key(0), step, 10_000)
        for text in map(operands, texts_of(vocab.ARITHMETIC, ids)):
            a, _, b = text.partition("+")
            if min(len(a), len(b)) >= 8:
                seen.add(text)
    draw = jax.jit(evaluation_batch, static_argnums=(0, 3, 4))
    key = jax.random.key(2024)
    for a in range(8, 21):
        rows = [[0, a, b, i] for b in range(8, 21) for i in range(per_cell)]
        ids = draw(data.task, key, jnp.array(rows), layout, data.scheme).ids
        evaluated |= set(map(operands, texts_of(vocab.ARITHMETIC, ids)))
    assert len(seen) > 45_000 * FACTOR
    assert len(evaluated) > 50_000 * FACTOR
    assert not seen & evaluated
