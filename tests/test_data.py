import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arith_jax import data, vocab


@functools.partial(jax.jit, static_argnums=(0, 3))
def batch_of(config, key, step, size):
    return data.training_batch(config, key, step, size)


@pytest.fixture(scope="module")
def config(smoke):
    return dataclasses.replace(smoke.data, max_digits=6, max_offset=9)


def test_batch_is_decided_by_key_and_step(config):
    key = jax.random.key(0)
    first, again = batch_of(config, key, 3, 8), batch_of(config, key, 3, 8)
    assert all(map(jnp.array_equal, first, again))
    for other in (
        batch_of(config, key, 4, 8),
        batch_of(config, jax.random.key(1), 3, 8),
    ):
        assert not jnp.array_equal(first.ids, other.ids)


def test_mask_is_answer_and_eos(config):
    batch = batch_of(config, jax.random.key(0), 0, 64)
    for ids, mask in zip(*map(np.asarray, (batch.ids, batch.mask)), strict=True):
        text = vocab.ARITHMETIC.decode(ids.tolist())
        counted = vocab.ARITHMETIC.decode(ids[mask].tolist())
        assert counted == text.split("=")[1]
        assert ids[mask][-1] == vocab.EOS
        assert mask.sum() == len(counted) + 1


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
    blanked = dataclasses.replace(config, blanks=0.4)
    batch = batch_of(blanked, jax.random.key(0), 0, 50)
    for ids, positions in zip(*map(np.asarray, batch[:2]), strict=True):
        kept = ids != vocab.PAD
        expected, count = [], 0
        for token in ids[kept]:
            count = count + 1 if 4 <= token < 14 else 0
            expected.append(count)
        offset = positions[kept].max() - max(expected)
        shifted = [place + offset if place else 0 for place in expected]
        assert positions[kept].tolist() == shifted
        assert np.all(positions[~kept] == 0)


def test_width_is_padded_to_the_multiple(config):
    assert config.width == 22
    assert dataclasses.replace(config, width_multiple=64).width == 64
    assert dataclasses.replace(config, max_digits=20, width_multiple=64).width == 64


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "division"}, r"data.task='division' is unknown; allowed: addition"),
        ({"max_digits": 0}, r"data.max_digits=0: must be at least 1"),
        ({"max_offset": -1}, r"data.max_offset=-1: must be at least 0"),
        ({"offset_per": "row"}, r"data.offset_per='row'; allowed: 'example', 'batch'"),
        ({"position_ids": "lines", "blanks": 0.5}, r"'lines' with data.blanks=0.5"),
        (
            {"position_ids": "lines", "max_offset": 2},
            r"with data.max_offset=2: 'lines' are for plain",
        ),
        (
            {"position_ids": "items", "max_offset": 0},
            r"'items' with data.task='addition': 'lines' are for plain",
        ),
        (
            {
                "task": "sorting",
                "max_numbers": 3,
                "position_ids": "items",
                "max_offset": 0,
            },
            r"'items' with data.scratchpad=False: the ids are those of an insertion",
        ),
        ({"width_multiple": 0}, r"data.width_multiple=0: must be at least 1"),
    ],
)
def test_bad_settings_are_refused(config, changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(config, **changes)
