import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arith_jax import vocab
from arith_jax.config.experiment import Experiment
from arith_jax.data import packing
from arith_jax.data.batch import make_batch, row_width, training_batch
from arith_jax.model.banded import Blocks
from arith_jax.model.context import make_context
from arith_jax.model.transformer import Transformer, init_params
from arith_jax.tasks.addition import Addition
from arith_jax.training import losses
from arith_jax.training.losses import Depth
from configs import abacus_add
from tests.helpers import assert_trees_close, moved, slow_but

# Together these use every index and id of a context.
SCHEMES = {
    "window": {},
    "abacus": {"positions": ("abacus", "relative_abacus", "rotary_abacus")},
    "sequence": {
        "positions": ("rope", "fire", "learned"),
        "abacus_far": "bias",
        "length_scale": True,
    },
    "recurrent": {"num_recurrences": 2, "injection": "recurrence"},
}


batch_of = jax.jit(training_batch, static_argnums=(0, 3))


@pytest.fixture(scope="module")
def config(smoke):
    return dataclasses.replace(
        smoke.data,
        task=Addition(carry_chains=0.2, repeats=0.2),
        max_digits=6,
        max_offset=9,
        problems_per_row=2,
    )


@pytest.fixture(scope="module", params=[2, pytest.param(4, marks=pytest.mark.slow)])
def packed(config, request):
    config = dataclasses.replace(config, problems_per_row=request.param)
    return batch_of(config, jax.random.key(0), 0, 64)


def lengths_of(packed):
    """Tokens of each problem, from its segment, without the padding of the last."""
    is_token = np.asarray(packed.ids) != vocab.PAD
    numbers = range(packed.num_segments)
    segment = np.asarray(packed.segment)
    return np.stack([((segment == n) & is_token).sum(axis=1) for n in numbers], axis=1)


def unpack(packed, width):
    """Rows of one problem each, `EOS` put back, from nothing but ids and segments."""
    packed, problems = jax.device_get(packed), packed.num_segments
    ids = np.zeros((problems * len(packed.ids), width), np.int32)
    positions, mask = np.zeros_like(ids), np.zeros(ids.shape, bool)
    for row, lengths in enumerate(lengths_of(packed)):
        bounds = [0, *np.cumsum(lengths).tolist()]
        for number, (start, stop) in enumerate(itertools.pairwise(bounds)):
            length, out = stop - start, problems * row + number
            ids[out, :length] = packed.ids[row, start:stop]
            ids[out, length] = vocab.EOS
            positions[out, :length] = packed.positions[row, start:stop]
            equals = vocab.ARITHMETIC.decode(ids[out, :length].tolist()).index("=")
            mask[out, equals:length] = True
    batch = make_batch(Addition(), jnp.array(ids), Addition().schemes["abacus"])
    return batch.replace(positions=jnp.array(positions), mask=jnp.array(mask))


def test_packed_problems_are_true_and_keep_their_positions(config, packed):
    for row in np.asarray(unpack(packed, 30).ids).tolist():
        expression, answer = vocab.ARITHMETIC.decode(row).split("=")
        a, b = (int(part[::-1]) for part in expression.split("+"))
        assert answer == str(a + b)[::-1]
    batch = unpack(packed, 30)
    offset = jnp.max(batch.positions[:, :1], axis=1) - 1
    again = make_batch(config.task, batch.ids, config.scheme, offset=offset)
    np.testing.assert_array_equal(batch.positions, again.positions)
    np.testing.assert_array_equal(batch.mask, again.mask)
    assert len(set(offset.tolist())) == 10
    assert np.any(offset[::2] != offset[1::2])


def test_labels_are_what_follows_in_the_same_problem(packed):
    alone = unpack(packed, 30)
    problems = packed.num_segments
    for row in range(len(packed.ids)):
        for number in range(problems):
            inside, out = packed.segment[row] == number, problems * row + number
            counted = packed.labels[row][packed.mask[row] & inside]
            expected = alone.labels[out][alone.mask[out]]
            assert counted.tolist() == expected.tolist()
            assert counted[-1] == vocab.EOS


@pytest.mark.parametrize("problems", [2, 8])
def test_each_problem_alone_has_the_distribution_of_unpacked_ones(config, problems):
    config = dataclasses.replace(config, problems_per_row=problems)
    draw = jax.jit(packing.draw_lengths, static_argnums=(0, 2, 3))
    drawn = draw(Addition(), jax.random.key(1), config, 12000)
    lengths, kinds = jax.device_get(drawn)
    assert not np.any(kinds)
    for place in range(problems):
        count = np.zeros((6, 6))
        np.add.at(count, tuple((lengths[place::problems] - 1).T), 1)
        assert np.all(np.abs(count / 12000 - 1 / 36) < 0.006)
    drawn = draw(config.task, jax.random.key(1), config, 12000)
    lengths, kinds = jax.device_get(drawn)
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
    ("problems", "longest", "rounded"), [(2, 79, 80), (4, 153, 160), (8, 304, 304)]
)
def test_rows_are_as_wide_as_the_longest(config, problems, longest, rounded):
    wide = dataclasses.replace(
        config, max_digits=20, width_multiple=16, problems_per_row=problems
    )
    assert row_width(wide) == rounded
    task = config.task
    lengths, _ = packing.draw_lengths(task, jax.random.key(0), wide, 2000)
    widths = [task.row_width(a, b) - 1 for a, b in np.asarray(lengths).tolist()]
    totals = np.sum(np.reshape(widths, (2000, problems)), axis=1)
    assert totals.max() == longest
    # Two sums of operands of one length take 69, which is what any two take at least.
    assert totals.min() >= 69 * problems // 2


@pytest.mark.parametrize(
    "scheme",
    slow_but(("window", "sequence", "abacus", "recurrent"), ("window",)),
)
def test_packed_loss_and_gradients_are_those_of_rows_of_their_own(scheme, tiny, packed):
    config = dataclasses.replace(tiny, num_layers=1, table_size=60, **SCHEMES[scheme])
    model = Transformer(config)
    params = moved(init_params(model, jax.random.key(2)))
    depth = Depth(0, config.num_recurrences)

    @jax.jit
    def loss_and_gradients(params, batch):
        def loss_of(params):
            key = jax.random.key(0)
            return losses.progressive_loss(model, params, batch, key, depth=depth)

        return jax.value_and_grad(loss_of, has_aux=True)(params)

    (_, metrics), gradients = loss_and_gradients(params, packed)
    (_, alone), expected = loss_and_gradients(params, unpack(packed, 24))
    # Sums over a batch in another order differ in the last bits.
    pairs = zip(jax.tree.leaves(metrics), jax.tree.leaves(alone), strict=True)
    for metric, other in pairs:
        np.testing.assert_allclose(metric, other, rtol=1e-6)
    assert max(jnp.max(jnp.abs(x)) for x in jax.tree.leaves(expected)) > 1e-2
    assert_trees_close(gradients, expected, 1e-5)


def test_exact_match_counts_problems(packed):
    logits = jax.nn.one_hot(packed.labels, 19)
    assert jnp.all(losses.correct_answers(logits, packed))
    problems = packed.num_segments
    # One wrong token in the second problem of row 0, one in the first of row 1.
    for row, number in ((0, 1), (1, 0)):
        counted = packed.mask[row] & (packed.segment[row] == number)
        place = np.flatnonzero(counted)[0]
        logits = logits.at[row, place].set(jnp.eye(19)[vocab.UNK])
    right = losses.correct_answers(logits, packed)
    assert np.flatnonzero(~np.asarray(right)).tolist() == [1, problems]
    measured = losses.measure(logits, packed, jnp.zeros(()))
    assert measured.exact_match == (len(right) - 2) / len(right)


@pytest.mark.parametrize("problems", [2, 8])
def test_problems_of_a_training_step_share_rows(smoke, problems):
    config = abacus_add.get_config("smoke")
    config.data.problems_per_row = problems
    data = Experiment.from_dict(config).data
    batch = batch_of(data, jax.random.key(0), 0, 16)
    assert batch.ids.shape == (16 // problems, row_width(data))
    assert row_width(data) < problems * row_width(smoke.data)


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("optim", "micro_batch_size", 6, r"=6: must be a multiple of data.problems_p"),
        ("loss", "reduction", "none", r"'none' counts the padding that data.problems"),
        ("data", "problems_per_row", 3, r"problems_per_row=3: must be a power of two"),
        ("data", "problems_per_row", 0, r"problems_per_row=0: must be a power of two"),
        ("data", "position_ids", "coupled", r"=4 with data.position_ids='coupled': on"),
        ("data", "predict_prompt", True, r"=4 with data.predict_prompt=True: only pla"),
        ("task", "blanks", 0.1, r"problems_per_row=4 with the task Addition.*: only"),
    ],
)
def test_what_does_not_fit_packing_is_refused(section, key, value, message):
    config = abacus_add.get_config("smoke")
    config.data.problems_per_row = 4
    if section == "optim":
        config.optim.batch_size = value
    config[section][key] = value
    with pytest.raises(ValueError, match=message):
        Experiment.from_dict(config)


def test_blocks_need_rows_of_one_problem(config, packed):
    with pytest.raises(ValueError, match="rows of one segment"):
        make_context(
            config.scheme,
            packed.positions,
            segment=packed.segment,
            num_segments=packed.num_segments,
            blocks=Blocks(32, 3),
        )


def test_kinds_of_packed_problems_are_those_of_rows_of_their_own(smoke):
    data = dataclasses.replace(
        smoke.data, position_ids="kinds", max_digits=3, problems_per_row=2
    )
    draw = jax.jit(training_batch, static_argnums=(0, 3))
    batch = draw(data, jax.random.key(0), 0, 40)
    num_digits = 0
    for row, positions, segment in zip(
        *map(np.asarray, (batch.ids, batch.positions, batch.segment)), strict=True
    ):
        for number in range(2):
            ids = row[segment == number]
            expected = data.scheme.position_ids(jnp.array(ids[None]))[0]
            np.testing.assert_array_equal(positions[segment == number], expected)
            num_digits += int((expected % 2 == 0).sum())
    assert num_digits > 200
