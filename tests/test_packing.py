import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arith_jax import data, losses, model, packing, vocab
from arith_jax.banded import Blocks
from arith_jax.experiment import Experiment
from configs import abacus_add
from tests import models

# Together these use every index and id of a context.
SCHEMES = {
    "window": {},
    "abacus": {"positions": ("abacus", "relative_abacus", "rotary_abacus")},
    "sequence": {
        "positions": ("rope", "fire", "learned"),
        "abacus_far": "bias",
        "length_scale": True,
    },
    "recurrent": {"recurrences": 2, "max_backprop": 2, "injection": "recurrence"},
}


@functools.partial(jax.jit, static_argnums=(0, 3))
def batch_of(config, key, step, size):
    return data.training_batch(config, key, step, size)


@pytest.fixture(scope="module")
def config(smoke):
    return dataclasses.replace(
        smoke.data,
        max_digits=6,
        max_offset=9,
        pack=True,
        carry_chains=0.2,
        repeats=0.2,
    )


@pytest.fixture(scope="module")
def packed(config):
    return batch_of(config, jax.random.key(0), 0, 64)


def unpack(packed, width):
    """Rows of one problem each, `EOS` put back, from nothing but ids and starts."""
    packed = jax.device_get(packed)
    ids = np.zeros((2 * len(packed.ids), width), np.int32)
    positions, mask = np.zeros_like(ids), np.zeros(ids.shape, bool)
    for row in range(len(packed.ids)):
        second = packed.start[row].max()
        end = second + np.flatnonzero(packed.ids[row, second:])[-1] + 1
        for half, (start, stop) in enumerate(((0, second), (second, end))):
            length, out = stop - start, 2 * row + half
            ids[out, :length] = packed.ids[row, start:stop]
            ids[out, length] = vocab.EOS
            positions[out, :length] = packed.positions[row, start:stop]
            equals = vocab.ARITHMETIC.decode(ids[out, :length].tolist()).index("=")
            mask[out, equals + 1 : length + 1] = True
    return data.Batch(*map(jnp.array, (ids, positions, mask)))


def test_packed_problems_are_true_and_keep_their_positions(config, packed):
    for row in np.asarray(unpack(packed, 30).ids).tolist():
        expression, answer = vocab.ARITHMETIC.decode(row).split("=")
        a, b = (int(part[::-1]) for part in expression.split("+"))
        assert answer == str(a + b)[::-1]
    batch = unpack(packed, 30)
    offset = jnp.max(batch.positions[:, :1], axis=1) - 1
    again = data.as_batch(config.make_task(), batch.ids, offset)
    np.testing.assert_array_equal(batch.positions, again.positions)
    assert len(set(offset.tolist())) == 10
    assert np.any(offset[::2] != offset[1::2])


def test_labels_are_what_follows_in_the_own_problem(packed):
    labels, mask = losses.targets(unpack(packed, 30))
    packed = jax.device_get(packed)
    for row in range(len(packed.ids)):
        for half in (0, 1):
            own = (packed.start[row] > 0) == bool(half)
            counted = packed.labels[row][packed.mask[row] & own]
            expected = labels[2 * row + half][mask[2 * row + half]]
            assert counted.tolist() == expected.tolist()
            assert counted[-1] == vocab.EOS


def test_each_problem_alone_has_the_distribution_of_unpacked_ones(config):
    plain = dataclasses.replace(config, carry_chains=0.0, repeats=0.0)
    task = plain.make_task()
    draw = jax.jit(packing.draw_pairs, static_argnums=(0, 2, 3))
    lengths, kinds = jax.device_get(draw(task, jax.random.key(1), 12000, 6))
    assert not np.any(kinds)
    for half in (lengths[::2], lengths[1::2]):
        count = np.zeros((6, 6))
        np.add.at(count, tuple((half - 1).T), 1)
        assert np.all(np.abs(count / 12000 - 1 / 36) < 0.006)
    mixed = config.make_task()
    lengths, kinds = jax.device_get(draw(mixed, jax.random.key(1), 12000, 6))
    for half in (0, 1):
        a, b = lengths[half::2].T
        share = [np.mean(kinds[half::2] == kind) for kind in range(6)]
        np.testing.assert_allclose(share, [0.6, 0, 0.2, 0, 0, 0.2], atol=0.015)
        repeats = kinds[half::2] == 5
        # Half are made alike, a sixth of the others are by chance.
        assert abs(np.mean((a == b)[repeats]) - (1 / 2 + 1 / 12)) < 0.04
        assert abs(np.mean((a == b)[~repeats]) - 1 / 6) < 0.02
        assert np.all(np.abs(np.bincount(a, minlength=7)[1:] / 12000 - 1 / 6) < 0.015)


def test_rows_are_as_wide_as_the_longest_pair(config):
    task = config.make_task()
    assert packing.row_width(task, 20) == 79
    wide = dataclasses.replace(config, max_digits=20, width_multiple=16)
    assert wide.width == 80
    lengths, _ = packing.draw_pairs(task, jax.random.key(0), 2000, 20)
    widths = [task.row_width(a, b) - 1 for a, b in np.asarray(lengths).tolist()]
    totals = np.add(widths[::2], widths[1::2])
    assert totals.max() == 79
    assert totals.min() >= 69


@pytest.mark.parametrize(
    "scheme",
    [
        *("window", "sequence"),
        pytest.param("abacus", marks=pytest.mark.slow),
        pytest.param("recurrent", marks=pytest.mark.slow),
    ],
)
def test_packed_loss_and_gradients_are_those_of_rows_of_their_own(scheme, tiny, packed):
    cfg = dataclasses.replace(tiny, layers=1, table_size=60, **SCHEMES[scheme])
    params = models.moved(model.init_params(cfg, jax.random.key(2)))

    @jax.jit
    def loss_and_gradients(params, batch):
        def loss_of(params):
            return losses.progressive_loss(
                cfg, params, batch, jax.random.key(0), 0, cfg.recurrences, 1.0
            )

        return jax.value_and_grad(loss_of, has_aux=True)(params)

    (_, metrics), gradients = loss_and_gradients(params, packed)
    (_, alone), expected = loss_and_gradients(params, unpack(packed, 24))
    # Sums over a batch in another order differ in the last bits.
    np.testing.assert_allclose(metrics, alone, rtol=1e-6)
    assert max(jnp.max(jnp.abs(x)) for x in jax.tree.leaves(expected)) > 1e-2
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), gradients, expected
    )


def test_exact_match_counts_problems(packed):
    logits = jax.nn.one_hot(packed.labels, 19)
    assert jnp.all(losses.correct_rows(logits, packed))
    # One wrong token in the second problem of row 0, one in the first of row 1.
    for row, half in ((0, 1), (1, 0)):
        own = packed.mask[row] & ((packed.start[row] > 0) == bool(half))
        logits = logits.at[row, np.flatnonzero(own)[0]].set(jnp.eye(19)[vocab.UNK])
    right = losses.correct_rows(logits, packed)
    size = len(packed.ids)
    assert np.flatnonzero(~np.asarray(right)).tolist() == [1, size]
    measured = losses.measure(logits, packed, jnp.zeros(()))
    assert measured.exact_match == (2 * size - 2) / (2 * size)


def test_training_steps_pack(smoke):
    changed = abacus_add.get_config("smoke")
    changed.data.pack = True
    experiment = Experiment.from_dict(changed.to_dict())
    batch = batch_of(experiment.data, jax.random.key(0), 0, 16)
    assert batch.ids.shape == (8, experiment.data.width)
    assert experiment.data.width < 2 * smoke.data.width


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("optim", "micro_batch_size", 1, r"micro_batch_size=1: must be even with"),
        ("train", "loss_reduction", "none", r"'none' counts the padding that data.p"),
    ],
)
def test_what_does_not_fit_packing_is_refused(section, key, value, message):
    changed = abacus_add.get_config("smoke")
    changed.data.pack = True
    changed[section][key] = value
    with pytest.raises(ValueError, match=message):
        Experiment.from_dict(changed.to_dict())


def test_blocks_need_rows_of_one_problem(packed):
    with pytest.raises(ValueError, match="rows of one problem"):
        model.make_context(packed.positions, Blocks(32, 3), packed.start)
