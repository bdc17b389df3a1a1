import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arith_jax import data, losses, model, packing, positions, vocab
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
        problems_per_row=2,
        carry_chains=0.2,
        repeats=0.2,
    )


@pytest.fixture(scope="module", params=[2, 4])
def packed(config, request):
    config = dataclasses.replace(config, problems_per_row=request.param)
    return batch_of(config, jax.random.key(0), 0, 64)


def unpack(packed, width):
    """Rows of one problem each, `EOS` put back, from nothing but ids and starts."""
    packed = jax.device_get(packed)
    problems = packed.lengths.shape[1]
    ids = np.zeros((problems * len(packed.ids), width), np.int32)
    positions, mask = np.zeros_like(ids), np.zeros(ids.shape, bool)
    for row in range(len(packed.ids)):
        end = np.flatnonzero(packed.ids[row])[-1] + 1
        bounds = [0, *np.cumsum(packed.lengths[row]).tolist()]
        assert bounds[-1] == end
        for number, (start, stop) in enumerate(itertools.pairwise(bounds)):
            length, out = stop - start, problems * row + number
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
    starts = positions.problem_starts(packed.lengths, packed.ids.shape[1])
    packed, starts = jax.device_get((packed, starts))
    problems = packed.lengths.shape[1]
    for row in range(len(packed.ids)):
        for number, start in enumerate(sorted(set(starts[row].tolist()))):
            own, out = starts[row] == start, problems * row + number
            counted = packed.labels[row][packed.mask[row] & own]
            assert counted.tolist() == labels[out][mask[out]].tolist()
            assert counted[-1] == vocab.EOS


@pytest.mark.parametrize("problems", [2, 8])
def test_each_problem_alone_has_the_distribution_of_unpacked_ones(config, problems):
    plain = dataclasses.replace(config, carry_chains=0.0, repeats=0.0)
    task = plain.make_task()
    draw = jax.jit(packing.draw_lengths, static_argnums=(0, 2, 3, 4))
    lengths, kinds = jax.device_get(draw(task, jax.random.key(1), 12000, 6, problems))
    assert not np.any(kinds)
    for place in range(problems):
        count = np.zeros((6, 6))
        np.add.at(count, tuple((lengths[place::problems] - 1).T), 1)
        assert np.all(np.abs(count / 12000 - 1 / 36) < 0.006)
    mixed = config.make_task()
    lengths, kinds = jax.device_get(draw(mixed, jax.random.key(1), 12000, 6, problems))
    for place in range(problems):
        a, b = lengths[place::problems].T
        kind = kinds[place::problems]
        share = [np.mean(kind == index) for index in range(6)]
        np.testing.assert_allclose(share, [0.6, 0, 0.2, 0, 0, 0.2], atol=0.015)
        repeats = kind == 5
        # Half are made alike, a sixth of the others are by chance.
        assert abs(np.mean((a == b)[repeats]) - (1 / 2 + 1 / 12)) < 0.04
        assert abs(np.mean((a == b)[~repeats]) - 1 / 6) < 0.02
        assert np.all(np.abs(np.bincount(a, minlength=7)[1:] / 12000 - 1 / 6) < 0.015)


@pytest.mark.parametrize(
    ("problems", "most", "rounded"), [(2, 79, 80), (4, 153, 160), (8, 304, 304)]
)
def test_rows_are_as_wide_as_the_longest(config, problems, most, rounded):
    wide = dataclasses.replace(
        config, max_digits=20, width_multiple=16, problems_per_row=problems
    )
    assert wide.width == rounded
    task = config.make_task()
    lengths, _ = packing.draw_lengths(task, jax.random.key(0), 2000, 20, problems)
    widths = [task.row_width(a, b) - 1 for a, b in np.asarray(lengths).tolist()]
    totals = np.sum(np.reshape(widths, (2000, problems)), axis=1)
    assert totals.max() == most
    # Two sums of operands of one length take 69, which is what any two take at least.
    assert totals.min() >= 69 * problems // 2


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
    problems = packed.lengths.shape[1]
    # One wrong token in the second problem of row 0, one in the first of row 1.
    starts = positions.problem_starts(packed.lengths, packed.ids.shape[1])
    for row, number in ((0, 1), (1, 0)):
        start = np.sum(packed.lengths[row, :number])
        own = packed.mask[row] & (starts[row] == start)
        logits = logits.at[row, np.flatnonzero(own)[0]].set(jnp.eye(19)[vocab.UNK])
    right = losses.correct_rows(logits, packed)
    assert np.flatnonzero(~np.asarray(right)).tolist() == [1, problems]
    measured = losses.measure(logits, packed, jnp.zeros(()))
    assert measured.exact_match == (len(right) - 2) / len(right)


@pytest.mark.parametrize("problems", [2, 8])
def test_training_steps_pack(smoke, problems):
    changed = abacus_add.get_config("smoke")
    changed.data.problems_per_row = problems
    experiment = Experiment.from_dict(changed.to_dict())
    batch = batch_of(experiment.data, jax.random.key(0), 0, 16)
    assert batch.ids.shape == (16 // problems, experiment.data.width)
    assert experiment.data.width < problems * smoke.data.width


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("optim", "micro_batch_size", 6, r"=6: must be a multiple of data.problems_p"),
        ("train", "loss_reduction", "none", r"'none' counts the padding that data.p"),
        ("data", "problems_per_row", 3, r"problems_per_row=3: must be a power of two"),
        ("data", "problems_per_row", 0, r"problems_per_row=0: must be a power of two"),
        ("data", "blanks", 0.1, r"problems_per_row=4 with data.blanks=0.1: only plain"),
    ],
)
def test_what_does_not_fit_packing_is_refused(section, key, value, message):
    changed = abacus_add.get_config("smoke")
    changed.data.problems_per_row = 4
    if section == "optim":
        changed.optim.batch_size = value
    changed[section][key] = value
    with pytest.raises(ValueError, match=message):
        Experiment.from_dict(changed.to_dict())


def test_blocks_need_rows_of_one_problem(packed):
    with pytest.raises(ValueError, match="rows of one problem"):
        model.make_context(packed.positions, Blocks(32, 3), packed.lengths)
