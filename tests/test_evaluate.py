import dataclasses
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arith_jax import data, evaluate, grading, vocab
from arith_jax.addition import Addition
from arith_jax.bitwise_or import BitwiseOr
from arith_jax.evaluate import Cell
from arith_jax.model import init_params
from arith_jax.sorting import Sorting


@pytest.fixture
def config(smoke):
    grading.grader.cache_clear()
    yield dataclasses.replace(smoke.eval, buckets=(24, 48), token_budget=240)
    grading.grader.cache_clear()


def cheat(monkeypatch, wrong_answer_token=None):
    """Replaces the model by one that knows the next token, or misses one of them."""

    def forward(model, params, ids, positions, blocks):
        following = jnp.roll(ids, -1, axis=1)
        if wrong_answer_token is not None:
            equals = jnp.argmax(ids == vocab.ARITHMETIC.id("="), axis=1)
            wrong = (equals + wrong_answer_token)[:, None] == jnp.arange(ids.shape[1])[
                None
            ]
            following = jnp.where(wrong, vocab.UNK, following)
        return jax.nn.one_hot(following, 19)

    monkeypatch.setattr(grading, "forward", forward)


REQUESTS = {"uniform": [(2, 3, 7), (9, 9, 3), (1, 1, 4)], "chains": [(5, 5, 6)]}


def test_model_that_knows_the_answer_scores_everything(smoke, config, monkeypatch):
    cheat(monkeypatch)
    cells = evaluate.exact_match(smoke.model, smoke.data, config, {}, REQUESTS)
    assert [cell[:4] for cell in cells["uniform"]] == [
        (2, 3, 7, 7),
        (9, 9, 3, 3),
        (1, 1, 4, 4),
    ]
    assert cells["chains"][0][:4] == (5, 5, 6, 6)
    assert cells["uniform"][1].per_digit_correct == [3] * 11


def test_one_wrong_token_makes_a_row_wrong_at_its_digit(smoke, config, monkeypatch):
    cheat(monkeypatch, wrong_answer_token=1)
    cells = evaluate.exact_match(smoke.model, smoke.data, config, {}, REQUESTS)
    assert all(cell.correct == 0 for cell in cells["uniform"] + cells["chains"])
    assert cells["uniform"][1].per_digit_correct == [3, 0, *[3] * 9]


def test_cells_without_examples_count_nothing(smoke, config, monkeypatch):
    cheat(monkeypatch)
    requests = {"uniform": [(2, 3, 0), (2, 2, 3), (3, 3, 0), (1, 1, 2), (3, 2, 0)]}
    cells = evaluate.exact_match(smoke.model, smoke.data, config, {}, requests)
    assert [cell[2:4] for cell in cells["uniform"]] == [
        (0, 0),
        (3, 3),
        (0, 0),
        (2, 2),
        (0, 0),
    ]
    first_tokens = [cell.per_digit_correct[0] for cell in cells["uniform"]]
    assert first_tokens == [0, 3, 0, 2, 0]


def test_examples_are_the_same_in_every_bucket_and_batch(smoke, config):
    params = jax.jit(init_params, static_argnums=0)(smoke.model, jax.random.key(0))
    other = dataclasses.replace(config, buckets=(64,), token_budget=10**4)
    found = [
        evaluate.exact_match(smoke.model, smoke.data, c, params, REQUESTS)
        for c in (config, other)
    ]
    assert found[0] == found[1]
    tokens = [cell.per_digit_correct for cell in found[0]["uniform"]]
    assert sum(map(sum, tokens)) > 0


def test_evaluation_rows_are_fixed_and_distinct():
    task = Addition()
    rows = jnp.array([[0, 30, 30, i] for i in range(200)])
    make = jax.jit(data.evaluation_batch, static_argnums=(0, 3, 4))
    batch = make(task, jax.random.key(0), rows, (32, 32), 93)
    assert len({tuple(row) for row in np.asarray(batch.ids).tolist()}) == 200
    again = make(task, jax.random.key(0), rows[5:7], (64, 64), 120)
    assert jnp.array_equal(batch.ids[5:7], again.ids[:, :93])


def test_summary_follows_the_paper_s_regions():
    cells = [
        Cell(20, 20, 9, 10, []),
        Cell(1, 21, 3, 10, []),
        Cell(100, 100, 5, 10, []),
        Cell(101, 101, 2, 10, []),
    ]
    assert evaluate.summarise(cells, Addition(), (20, 20)) == {
        "id": {"correct": 9, "total": 10},
        "ood": {"correct": 8, "total": 20},
        "ood_100plus": {"correct": 2, "total": 10},
    }
    assert set(evaluate.summarise(cells[:1], Addition(), (20, 20))) == {"id"}


def test_parts_add_up_and_a_missing_token_counts_as_right():
    long, short = Cell(3, 3, 4, 10, [9, 8, 7]), Cell(3, 3, 5, 10, [6, 5])
    assert evaluate.merged([[long], [short]]) == [Cell(3, 3, 9, 20, [15, 13, 17])]


def test_requests_cover_training_grid_diagonal_and_sets(smoke):
    config = dataclasses.replace(smoke.eval, grid_digits=10, grid_stride=5)
    requests = config.requests(Addition(), (3, 3))
    lengths = {a for a, _, _ in requests["uniform"]}
    assert lengths == {1, 2, 3, 5, 10, 12}
    assert len(requests["uniform"]) == 5 * 5 + 1
    assert set(requests) == set(Addition().kinds)
    assert all(cell[1:] == (1, 1) for cell in requests["nines"])
    assert config.longest(Addition(), (3, 3)) == (12, 12)
    assert config.bucket(64) == 64
    assert config.bucket(65) == 128
    nothing = dataclasses.replace(
        config, grid_digits=0, diagonal=(), set_samples=0, set_lengths=()
    )
    assert nothing.requests(Addition(), (3, 3)) == {"uniform": []}
    assert nothing.longest(Addition(), (3, 4)) == (3, 4)


def test_axes_of_the_grid_can_differ(smoke):
    config = dataclasses.replace(smoke.eval, grid_digits=8, grid_stride=4, diagonal=())
    cells = config.requests(Sorting(), (3, 6))["uniform"]
    assert {a for a, _, _ in cells} == {1, 2, 3, 4, 8}
    assert {b for _, b, _ in cells} == {1, 2, 3, 4, 5, 6, 8}


def test_exhaustive_cells_are_not_repeated(smoke):
    config = dataclasses.replace(smoke.eval, grid_digits=8, grid_samples=100)
    for a, b, count in config.requests(BitwiseOr(), (3, 3))["uniform"][:-1]:
        assert count == min(a, b)


def test_uniform_cells_hold_operands_of_their_lengths_whatever_training_mixes():
    task = Addition(carry_chains=0.3, repeats=0.5, blanks=0.3)
    rows = jnp.array([[0, 9, 2, i] for i in range(200)])
    make = jax.jit(data.evaluation_batch, static_argnums=(0, 3, 4))
    ids = make(task, jax.random.key(0), rows, (16, 16), 64).ids
    plain = make(Addition(), jax.random.key(0), rows, (16, 16), 64).ids
    assert jnp.array_equal(ids, plain)
    texts = [vocab.ARITHMETIC.decode(row) for row in np.asarray(ids).tolist()]
    assert {tuple(map(len, t.split("=")[0].split("+"))) for t in texts} == {(9, 2)}


def test_parts_of_a_mixture_are_counted_alone_and_together(smoke, monkeypatch):
    config = dataclasses.replace(
        smoke.eval, grid_digits=4, grid_stride=2, grid_samples=3, set_samples=2
    )
    mixed = dataclasses.replace(smoke.data, task="addsub")

    # Knows everything but the end of a negative difference.
    def forward(model, params, ids, positions, blocks):
        following = jnp.roll(ids, -1, axis=1)
        minus, eos = vocab.ARITHMETIC.id("-"), vocab.EOS
        wrong = (ids == minus) & (following == eos)
        return jax.nn.one_hot(jnp.where(wrong, vocab.UNK, following), 19)

    monkeypatch.setattr(grading, "forward", forward)
    grading.grader.cache_clear()
    done = evaluate.evaluate(smoke.model, mixed, config, {})
    grading.grader.cache_clear()
    sums, differences = done.parts["addition"], done.parts["subtraction"]
    assert all(cell.correct == cell.total for cell in sums)
    for cell in differences:
        # A longer subtrahend makes every difference negative.
        assert cell.correct == (0 if cell.a < cell.b else cell.correct)
        assert cell.correct == (cell.total if cell.a > cell.b else cell.correct)
    for one, two, both in zip(sums, differences, done.cells, strict=True):
        assert both[:4] == (one.a, one.b, one.correct + two.correct, 2 * one.total)
        assert len(both.per_digit_correct) == one.a + one.b - min(one.a, one.b) + 2
    assert done.exact_match["id"]["total"] == 2 * 3 * 9
    assert {"addition_nines", "subtraction_chains"} <= set(done.sets)
    assert done.first_answer == {}


def test_sorting_counts_the_smallest_number_too(smoke, monkeypatch):
    config = dataclasses.replace(smoke.eval, grid_digits=4, grid_stride=4, diagonal=())
    data_config = dataclasses.replace(smoke.data, task="sorting", max_numbers=2)

    # Knows everything but `EOS`.
    def forward(model, params, ids, positions, blocks):
        following = jnp.roll(ids, -1, axis=1)
        following = jnp.where(following == vocab.EOS, vocab.UNK, following)
        return jax.nn.one_hot(following, 118)

    monkeypatch.setattr(grading, "forward", forward)
    grading.grader.cache_clear()
    done = evaluate.evaluate(smoke.model, data_config, config, {})
    grading.grader.cache_clear()
    for region, counts in done.exact_match.items():
        assert counts["correct"] == 0 < counts["total"]
        first = done.first_answer[region]
        assert first["correct"] == first["total"] == counts["total"]
    regions = {"id", "ood", "ood_digits", "ood_numbers", "ood_both"}
    assert set(done.exact_match) == regions
    assert set(done.sets) == {"full", "close", "ties"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"token_budget": 0}, r"eval.token_budget=0 and eval.logit_budget="),
        ({"grid_stride": 0}, r"eval.grid_stride=0 and eval.grid_samples=4"),
        ({"buckets": ()}, r"eval.buckets=\(\): needs at least one width"),
    ],
)
def test_bad_settings_are_refused(smoke, changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(smoke.eval, **changes)


def test_only_abacus_ids_attend_in_blocks(smoke):
    def blocks(**changes):
        config = dataclasses.replace(smoke.data, **changes)
        return evaluate.blocks_for(smoke.eval, smoke.model, config, 10_000)

    assert blocks() is not None
    assert blocks(position_ids="coupled") is None
    assert blocks(position_ids="lines") is None
    assert blocks(task="multiplication", scratchpad=True) is None


SPLIT = """
import jax
from arith_jax import evaluate
from arith_jax.experiment import Experiment
from arith_jax.model import init_params
from configs import abacus_add

smoke = Experiment.from_dict(abacus_add.get_config("smoke").to_dict())
params = init_params(smoke.model, jax.random.key(0))
done = evaluate.evaluate(smoke.model, smoke.data, smoke.eval, params)
right = [cell.per_digit_correct for cell in done.cells]
print(jax.local_device_count(), right)
"""


@pytest.mark.slow
def test_batches_split_among_devices_are_graded_alike():
    printed = []
    for count in (1, 3):
        flags = f"--xla_force_host_platform_device_count={count}"
        env = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
        command = [sys.executable, "-c", SPLIT]
        done = subprocess.run(command, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        found, right = done.stdout.split(maxsplit=1)
        assert int(found) == count
        printed.append(right)
    assert printed[0] == printed[1]
