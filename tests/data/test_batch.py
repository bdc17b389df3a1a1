import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arith_jax import vocab
from arith_jax.config.data import DataConfig
from arith_jax.data import batch as batches
from arith_jax.data.batch import row_width, training_batch, with_new_offset
from arith_jax.tasks.addition import Addition
from arith_jax.tasks.sorting import Sorting


@functools.partial(jax.jit, static_argnums=(0, 3))
def batch_of(config, key, step, size):
    return training_batch(config, key, step, size)


@pytest.fixture(scope="module")
def config(smoke):
    return dataclasses.replace(smoke.data, max_digits=6, max_offset=9)


def test_batch_is_decided_by_key_and_step(config):
    key = jax.random.key(0)
    first, again = batch_of(config, key, 3, 8), batch_of(config, key, 3, 8)
    assert all(map(jnp.array_equal, *map(jax.tree.leaves, (first, again))))
    for other in (
        batch_of(config, key, 4, 8),
        batch_of(config, jax.random.key(1), 3, 8),
    ):
        assert not jnp.array_equal(first.ids, other.ids)


def test_labels_that_count_are_the_answer_and_eos(config):
    batch = batch_of(config, jax.random.key(0), 0, 64)
    columns = map(np.asarray, (batch.ids, batch.labels, batch.mask))
    for ids, labels, mask in zip(*columns, strict=True):
        text = vocab.ARITHMETIC.decode(ids.tolist())
        counted = vocab.ARITHMETIC.decode(labels[mask].tolist())
        assert counted == text.split("=")[1]
        assert labels[mask][-1] == vocab.EOS
        assert mask.sum() == len(counted) + 1
        # Each is predicted from the token before it.
        assert ids[mask][0] == vocab.ARITHMETIC.id("=")
        assert ids[mask][1:].tolist() == labels[mask][:-1].tolist()
    assert jnp.all(batch.segment == 0)
    assert batch.num_segments == 1


def test_prompts_are_predicted_if_asked(config):
    config = dataclasses.replace(config, predict_prompt=True)
    batch = batch_of(config, jax.random.key(0), 0, 16)
    is_next = jnp.pad(batch.ids != vocab.PAD, ((0, 0), (0, 1)))[:, 1:]
    np.testing.assert_array_equal(batch.mask, is_next)


def test_lengths_are_uniform_and_independent(config):
    batch = batch_of(config, jax.random.key(0), 0, 6000)
    count = np.zeros((6, 6))
    for row in np.asarray(batch.ids).tolist():
        a, b = vocab.ARITHMETIC.decode(row).split("=")[0].split("+")
        count[len(a) - 1, len(b) - 1] += 1
    assert np.all(np.abs(count / 6000 - 1 / 36) < 0.009)


@pytest.mark.parametrize(("per", "distinct"), [("example", 10), ("batch", 1)])
def test_offset_is_drawn_per_example_or_per_batch(config, per, distinct):
    config = dataclasses.replace(config, offset_per=per)
    batch = batch_of(config, jax.random.key(2), 0, 500)
    # Every row starts with a digit, whose position is the offset plus one.
    starts = np.asarray(batch.positions)[:, 0] - 1
    assert len(set(starts.tolist())) == distinct
    assert starts.min() >= 0
    assert starts.max() <= 9
    assert jnp.all(batch.positions[~vocab.is_digit(batch.ids)] == 0)


def test_blanks_do_not_move_abacus_positions(config):
    blanked = dataclasses.replace(config, task=Addition(blanks=0.4))
    batch = batch_of(blanked, jax.random.key(0), 0, 50)
    columns = map(np.asarray, (batch.ids, batch.positions))
    for ids, positions in zip(*columns, strict=True):
        is_written = ids != vocab.PAD
        expected, count = [], 0
        for token in ids[is_written]:
            count = count + 1 if 4 <= token < 14 else 0
            expected.append(count)
        offset = positions[is_written].max() - max(expected)
        shifted = [place + offset if place else 0 for place in expected]
        assert positions[is_written].tolist() == shifted
        assert np.all(positions[~is_written] == 0)


@pytest.mark.parametrize("problems", [1, 4])
def test_a_new_offset_moves_the_digits_of_each_problem_together(config, problems):
    config = dataclasses.replace(config, problems_per_row=problems)
    batch = batch_of(config, jax.random.key(0), 0, 16)
    draw = jax.jit(with_new_offset, static_argnums=0)
    again = draw(config, batch, jax.random.key(1))
    is_digit = np.asarray(batch.positions) > 0
    np.testing.assert_array_equal(is_digit, again.positions > 0)
    moves = set()
    for row in range(len(batch.ids)):
        for segment in range(problems):
            inside = is_digit[row] & (np.asarray(batch.segment)[row] == segment)
            change = np.asarray(again.positions - batch.positions)[row][inside]
            assert len(set(change.tolist())) == 1
            moves.add(int(change[0]))
    assert len(moves) > 5
    assert np.asarray(again.positions).max() <= config.max_position_id((6, 6)) + 9


def test_width_is_padded_to_the_multiple(config):
    assert row_width(config) == 22
    assert row_width(dataclasses.replace(config, width_multiple=64)) == 64
    assert row_width(DataConfig(max_digits=20, width_multiple=64)) == 64


def test_targets_are_left_out_where_most_tokens_count(config):
    assert batches.max_targets(config) == 8
    predicting = dataclasses.replace(config, predict_prompt=True)
    assert batches.max_targets(predicting) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_digits": 0}, r"data.max_digits=0: must be at least 1"),
        ({"max_offset": -1}, r"data.max_offset=-1: must be at least 0"),
        ({"offset_per": "row"}, r"data.offset_per='row' is unknown; allowed: example"),
        ({"max_numbers": 3}, r"data.max_numbers=3: must be 0 for addition"),
        ({"task": Sorting()}, r"data.max_numbers=0: must be at least 1 for sorting"),
        (
            {"position_ids": "lines", "task": Addition(blanks=0.5)},
            r"data.position_ids='lines' does not fit .*: abacus, coupled, kinds$",
        ),
        (
            {"position_ids": "lines", "max_offset": 2},
            r"data.max_offset=2 with data.position_ids='lines': these ids have no off",
        ),
        ({"position_ids": "items"}, r"data.position_ids='items' does not fit Additi"),
        (
            {"position_ids": "items", "task": Sorting(), "max_numbers": 3},
            r"'items' does not fit Sorting.*; allowed: abacus, coupled$",
        ),
        ({"width_multiple": 0}, r"data.width_multiple=0: must be at least 1"),
    ],
)
def test_bad_settings_are_refused(config, changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(config, **changes)
