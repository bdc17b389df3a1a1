"""Teacher forcing against real decoding, on trained and untrained models."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arith_jax import data, decode, losses, model, solve
from arith_jax.addition import Addition
from tests.models import moved
from tests.test_model import with_positions

TASK = Addition()
NOISE = 0.6  # in standard deviations of each parameter
init_params = jax.jit(model.init_params, static_argnums=0)


def batch_of(lengths, digits):
    rows = jnp.array([[0, a, b, i] for i, (a, b) in enumerate(lengths)])
    width = TASK.row_width(digits, digits)
    make = jax.jit(data.evaluation_batch, static_argnums=(0, 3, 4))
    return make(TASK, jax.random.key(3), rows, (digits, digits), width)


def decoded_rows(config, params, batch):
    """Whether greedy decoding writes exactly the answer and EOS, row by row."""
    ids = np.asarray(batch.ids)
    lengths = (ids == TASK.vocab.id("=")).argmax(axis=1) + 1
    width = int(lengths.max())
    prompts = np.where(np.arange(width) < lengths[:, None], ids[:, :width], 0)
    positions = np.where(prompts > 0, np.asarray(batch.positions)[:, :width], 0)
    tokens = decode.decode(
        config,
        params,
        jnp.array(prompts),
        jnp.array(lengths),
        ids.shape[1] - int(lengths.min()),
        jnp.array(positions),
    )
    found = []
    for row, start, new in zip(ids, lengths, np.asarray(tokens), strict=True):
        answer = row[start:]
        answer = answer[: np.argmax(answer == 3) + 1]
        found.append(np.array_equal(new[: len(answer)], answer))
    return np.array(found), tokens


@pytest.fixture(scope="module")
def weights():
    """The released model: its config, its weights with noise on them, and as they are.

    With the noise it is right now and then, and wrong in every way.
    """
    trained = solve.load_model(solve.RELEASED)
    leaves, tree = jax.tree.flatten(trained.weights)
    keys = jax.random.split(jax.random.key(5), len(leaves))
    noisy = [
        leaf + NOISE * jnp.std(leaf) * jax.random.normal(key, leaf.shape)
        for leaf, key in zip(leaves, keys, strict=True)
    ]
    config = dataclasses.replace(trained.model, unroll=False)
    return config, jax.tree.unflatten(tree, noisy), trained.weights


def all_lengths(most, count):
    pairs = [(a, b) for a in range(1, most + 1) for b in range(1, most + 1)]
    return (pairs * (count // len(pairs) + 1))[:count]


def test_teacher_forcing_equals_decoding_disturbed_and_trained(weights):
    config, disturbed, trained = weights
    batch = batch_of(all_lengths(6, 500), 6)
    for params, least, most in ((disturbed, 10, 480), (trained, 500, 500)):
        logits = jax.jit(model.forward, static_argnums=0)(config, params, *batch[:2])
        forced = np.asarray(losses.correct_rows(logits, batch))
        decoded, _ = decoded_rows(config, params, batch)
        assert least <= forced.sum() <= most
        np.testing.assert_array_equal(forced, decoded)


VARIANTS = {
    "window": {},
    "nope": {"positions": (), "abacus_far": "bias"},
    "looped": {
        "positions": ("abacus", "fire", "rope"),
        "abacus_far": "bias",
        "table_size": 64,
        "recurrences": 2,
        "injection": "recurrence",
        "initial_state": "noise",
        "norm": "post",
    },
    "learned, rotary abacus": {
        "positions": ("learned", "rotary_abacus"),
        "abacus_far": "bias",
        "table_size": 64,
        "length_scale": True,
        "injection": "layer",
    },
}


@pytest.mark.parametrize("name", VARIANTS)
def test_cached_decoding_writes_what_whole_passes_would(tiny, name):
    config = dataclasses.replace(tiny, **VARIANTS[name])
    params = moved(init_params(config, jax.random.key(0)))
    lengths = [(1, 1), (2, 5), (5, 3), (4, 4)] * 30
    batch = batch_of(lengths, 5)
    decoded, tokens = decoded_rows(config, params, batch)
    # Feed what was generated back through whole passes: it must be their argmax.
    ids = np.asarray(batch.ids)
    starts = (ids == TASK.vocab.id("=")).argmax(axis=1) + 1
    width = int(starts.max()) + tokens.shape[1]
    rows = np.zeros((len(ids), width), np.int32)
    for row, start, old, new in zip(rows, starts, ids, np.asarray(tokens), strict=True):
        row[:start] = old[:start]
        row[start : start + len(new)] = new
    fed = data.as_batch(TASK, jnp.array(rows))
    logits = jax.jit(model.forward, static_argnums=0)(config, params, *fed[:2])
    expected = np.asarray(jnp.argmax(logits, axis=-1))
    checked = 0
    for row, start, new in zip(expected, starts, np.asarray(tokens), strict=True):
        ended = np.flatnonzero(new == 3)
        count = ended[0] + 1 if len(ended) else len(new)
        np.testing.assert_array_equal(row[start - 1 : start - 1 + count], new[:count])
        assert np.all(new[count:] == 0)
        checked += count
    assert checked > 300
    logits = jax.jit(model.forward, static_argnums=0)(config, params, *batch[:2])
    forced = np.asarray(losses.correct_rows(logits, batch))
    np.testing.assert_array_equal(forced, decoded)


def test_trained_model_answers_both_orders_alike(weights, smoke):
    config, _, params = weights
    rng = np.random.default_rng(0)
    pairs = rng.integers(1, 10**3, (60, 2)).tolist()
    run = lambda texts: decode.answers(config, smoke.data, params, texts)
    ab = run([f"{a}+{b}" for a, b in pairs])
    ba = run([f"{b}+{a}" for a, b in pairs])
    right = [answer == str(a + b) for answer, (a, b) in zip(ab, pairs, strict=True)]
    assert sum(right) == 60
    alike = [x == y for x, y in zip(ab, ba, strict=True)]
    assert sum(alike) == 60


def test_numbers_past_the_table_are_refused(tiny, smoke):
    config = dataclasses.replace(with_positions(tiny, ("abacus",)), table_size=12)
    params = init_params(config, jax.random.key(0))
    answers = decode.answers(config, smoke.data, params, ["1234567890+1"])
    assert len(answers) == 1
    with pytest.raises(ValueError, match=r"model.table_size=12 is too small.*need 13"):
        decode.answers(config, smoke.data, params, ["12345678901+1"])
