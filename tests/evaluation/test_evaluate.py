import dataclasses
import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arith_jax import vocab
from arith_jax.config.evaluation import EvalConfig
from arith_jax.config.experiment import Experiment
from arith_jax.data.batch import evaluation_batch
from arith_jax.evaluation import evaluate
from arith_jax.evaluation.evaluate import Cell, exact_match
from arith_jax.model.transformer import Transformer, init_params
from arith_jax.positions.schemes import Abacus
from arith_jax.tasks.addition import Addition
from arith_jax.tasks.bitwise_or import BitwiseOr
from arith_jax.tasks.multiplication import Multiplication
from arith_jax.tasks.sorting import Sorting
from arith_jax.tasks.task import Layout
from configs import base
from tests.helpers import ENVIRONMENT, changed


@pytest.fixture
def experiment(smoke):
    return changed(smoke, eval__buckets=(24, 48), eval__token_budget=240)


def knows_the_answer(model, params, ids, positions, *, num_segments, blocks):
    """Logits of a model that knows the next token."""
    return jax.nn.one_hot(jnp.roll(ids, -1, axis=1), 19)


def misses_the_second_token(model, params, ids, positions, *, num_segments, blocks):
    """Logits of a model that knows all but the second token of the answer."""
    equals = jnp.argmax(ids == vocab.ARITHMETIC.id("="), axis=1)[:, None]
    is_missed = equals + 1 == jnp.arange(ids.shape[1])[None]
    following = jnp.where(is_missed, vocab.UNK, jnp.roll(ids, -1, axis=1))
    return jax.nn.one_hot(following, 19)


REQUESTS = {"uniform": [(2, 3, 7), (9, 9, 3), (1, 1, 4)], "chains": [(5, 5, 6)]}


def test_model_that_knows_the_answer_scores_everything(experiment):
    cells = exact_match(experiment, {}, REQUESTS, forward=knows_the_answer)
    assert [cell[:4] for cell in cells["uniform"]] == [
        (2, 3, 7, 7),
        (9, 9, 3, 3),
        (1, 1, 4, 4),
    ]
    assert cells["chains"][0][:4] == (5, 5, 6, 6)
    assert cells["uniform"][1].per_digit_correct == [3] * 11


def test_one_wrong_token_makes_a_row_wrong_at_its_digit(experiment):
    cells = exact_match(experiment, {}, REQUESTS, forward=misses_the_second_token)
    assert all(cell.correct == 0 for cell in cells["uniform"] + cells["chains"])
    assert cells["uniform"][1].per_digit_correct == [3, 0, *[3] * 9]


def test_cells_without_examples_count_nothing(experiment):
    requests = {"uniform": [(2, 3, 0), (2, 2, 3), (3, 3, 0), (1, 1, 2), (3, 2, 0)]}
    cells = exact_match(experiment, {}, requests, forward=knows_the_answer)
    assert [cell[2:4] for cell in cells["uniform"]] == [
        (0, 0),
        (3, 3),
        (0, 0),
        (2, 2),
        (0, 0),
    ]
    first_tokens = [cell.per_digit_correct[0] for cell in cells["uniform"]]
    assert first_tokens == [0, 3, 0, 2, 0]


def test_examples_are_the_same_in_every_bucket_and_batch(experiment):
    model = Transformer(experiment.model)
    params = jax.jit(init_params, static_argnums=0)(model, jax.random.key(0))
    other = changed(experiment, eval__buckets=(64,), eval__token_budget=10**4)
    results = [exact_match(e, params, REQUESTS) for e in (experiment, other)]
    assert results[0] == results[1]
    tokens = [cell.per_digit_correct for cell in results[0]["uniform"]]
    assert sum(map(sum, tokens)) > 0


def test_evaluation_rows_are_fixed_and_distinct():
    rows = jnp.array([[0, 30, 30, i] for i in range(200)])
    make = jax.jit(evaluation_batch, static_argnums=(0, 3, 4))

    def ids_of(rows, size, width):
        layout = Layout((size, size), width)
        return make(Addition(), jax.random.key(0), rows, layout, Abacus()).ids

    ids = ids_of(rows, 32, 93)
    assert len({tuple(row) for row in np.asarray(ids).tolist()}) == 200
    assert jnp.array_equal(ids[5:7], ids_of(rows[5:7], 64, 120)[:, :93])


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


def test_subtasks_add_up_and_a_missing_token_counts_as_right():
    long, short = Cell(3, 3, 4, 10, [9, 8, 7]), Cell(3, 3, 5, 10, [6, 5])
    assert evaluate.merged([[long], [short]]) == [Cell(3, 3, 9, 20, [15, 13, 17])]


def test_requests_cover_training_grid_diagonal_and_sets(smoke):
    config = dataclasses.replace(smoke.eval, grid_digits=10, grid_stride=5)
    requests = config.requests(Addition(), (3, 3))
    lengths = {a for a, _, _ in requests["uniform"]}
    assert lengths == {1, 2, 3, 5, 10, 12}
    assert len(requests["uniform"]) == 3 * 3 + 2 * 2 + 1
    assert set(requests) == set(Addition().eval_sets)
    assert all(cell[1:] == (1, 1) for cell in requests["nines"])
    assert config.max_evaluated(Addition(), (3, 3)) == (12, 12)
    assert config.bucket(64) == 64
    assert config.bucket(65) == 128
    nothing = dataclasses.replace(
        config, grid_digits=0, diagonal=(), set_samples=0, set_lengths=()
    )
    assert nothing.requests(Addition(), (3, 3)) == {"uniform": []}
    assert nothing.max_evaluated(Addition(), (3, 4)) == (3, 4)


def test_axes_of_the_grid_can_differ(smoke):
    config = dataclasses.replace(smoke.eval, grid_digits=8, grid_stride=4, diagonal=())
    cells = config.requests(Sorting(), (3, 6))["uniform"]
    assert {a for a, _, _ in cells} == {1, 2, 3, 4, 8}
    assert {b for _, b, _ in cells} == {1, 2, 3, 4, 5, 6, 8}
    assert config.max_evaluated(Sorting(), (3, 6)) == (8, 8)
    assert config.max_evaluated(Sorting(), (3, 30)) == (8, 8)


def test_cells_beyond_the_trained_ones_are_a_fair_sample_of_the_grid():
    """Short operands beside longer ones are no larger a share than in the grid."""
    config = EvalConfig(grid_digits=100, grid_stride=5, diagonal=())
    cells = [cell[:2] for cell in config.requests(Addition(), (20, 20))["uniform"]]
    inside = [cell for cell in cells if max(cell) <= 20]
    beyond = [cell for cell in cells if max(cell) > 20]
    assert len(inside) == 20 * 20
    assert 25 * len(beyond) == 100 * 100 - 20 * 20
    assert 25 * sum(min(cell) <= 20 for cell in beyond) == 2 * 20 * 80
    assert config.max_evaluated(Addition(), (20, 20)) == (100, 100)
    thin = EvalConfig(grid_digits=30, grid_stride=20, diagonal=())
    assert thin.max_evaluated(Addition(), (25, 25)) == (25, 25)


def test_exhaustive_cells_are_not_repeated(smoke):
    config = dataclasses.replace(smoke.eval, grid_digits=8, grid_samples=100)
    for a, b, count in config.requests(BitwiseOr(), (3, 3))["uniform"][:-1]:
        assert count == min(a, b)


def test_uniform_cells_hold_operands_of_their_lengths_whatever_training_mixes():
    task = Addition(carry_chains=0.3, repeats=0.5, blanks=0.3)
    rows = jnp.array([[0, 9, 2, i] for i in range(200)])
    make = jax.jit(evaluation_batch, static_argnums=(0, 3, 4))
    key, layout = jax.random.key(0), Layout((16, 16), 64)
    ids = make(task, key, rows, layout, Abacus()).ids
    plain = make(Addition(), key, rows, layout, Abacus()).ids
    assert jnp.array_equal(ids, plain)
    texts = [vocab.ARITHMETIC.decode(row) for row in np.asarray(ids).tolist()]
    assert {tuple(map(len, t.split("=")[0].split("+"))) for t in texts} == {(9, 2)}


def test_subtasks_of_a_mixture_are_counted_alone_and_together():
    config = base.start("smoke", "mixture", "addsub")
    base.shrink_to_smoke(config)
    config.eval.grid_digits, config.eval.grid_stride = 4, 2
    config.eval.grid_samples, config.eval.set_samples = 3, 2

    def forward(model, params, ids, positions, *, num_segments, blocks):
        """Knows everything but the end of a negative difference."""
        following = jnp.roll(ids, -1, axis=1)
        wrong = (ids == vocab.ARITHMETIC.id("-")) & (following == vocab.EOS)
        return jax.nn.one_hot(jnp.where(wrong, vocab.UNK, following), 19)

    done = evaluate.evaluate(Experiment.from_dict(config), {}, forward=forward)
    sums, differences = done.subtasks["addition"], done.subtasks["subtraction"]
    assert all(cell.correct == cell.total for cell in sums)
    # A longer subtrahend makes every difference negative, a shorter one none.
    assert {cell.correct for cell in differences if cell.a < cell.b} == {0}
    for cell in differences:
        assert cell.a <= cell.b or cell.correct == cell.total > 0
    for one, two, both in zip(sums, differences, done.cells, strict=True):
        assert both[:4] == (one.a, one.b, one.correct + two.correct, 2 * one.total)
        assert len(both.per_digit_correct) == max(one.a, one.b) + 2
    assert done.exact_match["id"]["total"] == 2 * 3 * 9
    assert {"addition_nines", "subtraction_chains"} <= set(done.sets)
    assert done.first_answer == {}


def test_sorting_counts_the_smallest_number_too():
    config = base.start("smoke", "lists", "sorting")
    config.data.max_numbers = 2
    base.shrink_to_smoke(config)
    config.data.max_digits = 3
    config.eval.grid_digits, config.eval.grid_stride, config.eval.diagonal = 4, 2, ()

    def forward(model, params, ids, positions, *, num_segments, blocks):
        """Knows everything but `EOS`."""
        following = jnp.roll(ids, -1, axis=1)
        following = jnp.where(following == vocab.EOS, vocab.UNK, following)
        return jax.nn.one_hot(following, 118)

    done = evaluate.evaluate(Experiment.from_dict(config), {}, forward=forward)
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
        ({"token_budget": 0}, r"eval.token_budget=0: must be at least 1"),
        ({"grid_stride": 0}, r"eval.grid_stride=0 and eval.grid_samples=4"),
        ({"buckets": ()}, r"eval.buckets=\(\): needs at least one width"),
    ],
)
def test_bad_settings_are_refused(smoke, changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(smoke.eval, **changes)


def test_only_abacus_ids_attend_in_blocks(smoke):
    def blocks(**changes):
        data = dataclasses.replace(smoke.data, **changes)
        experiment = dataclasses.replace(smoke, data=data)
        return evaluate.blocks_for(experiment, 10_000)

    assert blocks() is not None
    assert blocks(position_ids="coupled") is None
    assert blocks(position_ids="lines") is None
    assert blocks(task=Multiplication(scratchpad=True)) is None


SPLIT = """
import jax
from arith_jax.config.experiment import Experiment
from arith_jax.evaluation.evaluate import evaluate
from arith_jax.model.transformer import Transformer, init_params
from configs import abacus_add

smoke = Experiment.from_dict(abacus_add.get_config("smoke"))
params = init_params(Transformer(smoke.model), jax.random.key(0))
done = evaluate(smoke, params)
right = [cell.per_digit_correct for cell in done.cells]
print(jax.local_device_count(), right)
"""


def test_batches_split_among_devices_are_graded_alike(smoke):
    flags = (
        f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"
    )
    done = subprocess.run(
        [sys.executable, "-c", SPLIT],
        env=ENVIRONMENT | {"XLA_FLAGS": flags},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    devices, right = done.stdout.split(maxsplit=1)
    assert int(devices) == 2
    params = init_params(Transformer(smoke.model), jax.random.key(0))
    alone = evaluate.evaluate(smoke, params)
    assert json.loads(right) == [cell.per_digit_correct for cell in alone.cells]
