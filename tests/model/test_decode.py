"""Teacher forcing against real decoding, on trained and untrained models."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arith_jax import vocab
from arith_jax.evaluation.answers import answers
from arith_jax.model.decode import decode
from arith_jax.model.transformer import Transformer
from arith_jax.released import load_released
from arith_jax.training.losses import correct_answers
from tests.helpers import slow_but
from tests.model.examples import (
    LOOPED,
    POSITIONS,
    TABLE,
    TASK,
    batch_of,
    changed_model,
    forward,
    random_params,
)

NOISE = 0.6  # in standard deviations of each parameter


def sums(lengths):
    """A row for each pair of numbers of digits."""
    rng = np.random.default_rng(3)
    numbers = [
        [rng.integers(10 ** (digits - 1), 10**digits) for digits in pair]
        for pair in lengths
    ]
    return batch_of([TASK.prompt(f"{a}+{b}") for a, b in numbers])


def prompts_of(batch):
    """The rows up to `=`, and how long each is."""
    ids = np.asarray(batch.ids)
    lengths = (ids == TASK.vocab.id("=")).argmax(axis=1) + 1
    width = int(lengths.max())
    is_prompt = np.arange(width)[None] < lengths[:, None]
    return np.where(is_prompt, ids[:, :width], vocab.PAD), lengths


def decoded(model, params, batch):
    """Greedy continuations, and whether each is exactly the answer and `EOS`."""
    prompts, lengths = prompts_of(batch)
    num_new = batch.ids.shape[1] - int(lengths.min())
    arrays = jnp.array(prompts), jnp.array(lengths)
    tokens = np.asarray(decode(model, params, *arrays, num_new=num_new))
    is_right = []
    for row, start, new in zip(np.asarray(batch.ids), lengths, tokens, strict=True):
        answer = row[start:]
        answer = answer[: np.argmax(answer == vocab.EOS) + 1]
        is_right.append(np.array_equal(new[: len(answer)], answer))
    return tokens, np.array(is_right)


def is_right_by_teacher_forcing(model, params, batch):
    """Whether every token of the answer is the argmax of a whole pass."""
    logits = forward(model, params, batch.ids, batch.positions, num_segments=1)
    return np.asarray(jax.jit(correct_answers)(logits, batch))


@pytest.fixture(scope="module")
def released():
    """The released model, in loops, which compile in less time."""
    trained = load_released()
    execution = dataclasses.replace(trained.experiment.execution, unroll=False)
    experiment = dataclasses.replace(trained.experiment, execution=execution)
    return experiment, Transformer(experiment.model, execution), trained.params


def disturbed(params):
    """Parameters with noise: right now and then, and wrong in every way."""
    rng = np.random.default_rng(5)
    noisy = lambda x: x + NOISE * np.std(x) * rng.standard_normal(x.shape)
    return jax.tree.map(lambda x: jnp.array(noisy(x), x.dtype), params)


def test_teacher_forcing_equals_decoding_disturbed_and_trained(released):
    _, model, trained = released
    lengths = [(a, b) for a in range(1, 7) for b in range(1, 7)] * 7
    batch = sums(lengths)
    for params, at_least, at_most in (
        (disturbed(trained), 5, len(lengths) - 5),
        (trained, len(lengths), len(lengths)),
    ):
        forced = is_right_by_teacher_forcing(model, params, batch)
        assert at_least <= forced.sum() <= at_most
        _, is_right = decoded(model, params, batch)
        np.testing.assert_array_equal(forced, is_right)


VARIANTS = {
    "window": {},
    "nope": POSITIONS["nope"],
    "looped": POSITIONS["abacus, fire, rope"] | LOOPED | {"norm": "post"},
    "learned, rotary abacus": TABLE
    | {
        "positions": ("learned", "rotary_abacus"),
        "length_scale": True,
        "injection": "layer",
    },
}


@pytest.mark.parametrize("name", slow_but(VARIANTS, ("window", "looped")))
def test_cached_decoding_writes_what_whole_passes_would(tiny, name):
    model = changed_model(tiny, VARIANTS[name])
    params = random_params(model)
    batch = sums([(1, 1), (2, 5), (5, 3), (4, 4)] * 30)
    tokens, is_right = decoded(model, params, batch)
    # What was generated is fed back in whole passes: it must be their argmax.
    prompts, starts = prompts_of(batch)
    rows = np.zeros((len(prompts), prompts.shape[1] + tokens.shape[1]), np.int32)
    rows[:, : prompts.shape[1]] = prompts
    for row, start, new in zip(rows, starts, tokens, strict=True):
        row[start : start + len(new)] = new
    ids = jnp.array(rows)
    positions = model.config.scheme.position_ids(ids)
    logits = forward(model, params, ids, positions, num_segments=1)
    expected = np.asarray(jnp.argmax(logits, axis=-1))
    num_checked = 0
    for row, start, new in zip(expected, starts, tokens, strict=True):
        ends = np.flatnonzero(new == vocab.EOS)
        count = ends[0] + 1 if len(ends) else len(new)
        np.testing.assert_array_equal(row[start - 1 : start - 1 + count], new[:count])
        assert np.all(new[count:] == vocab.PAD)
        num_checked += count
    assert num_checked > 300
    forced = is_right_by_teacher_forcing(model, params, batch)
    np.testing.assert_array_equal(forced, is_right)


def test_decoding_goes_on_after_the_end_only_if_told_to(released):
    _, model, params = released
    prompts, lengths = (
        jnp.array(array) for array in prompts_of(sums([(3, 5), (1, 1)]))
    )
    ended, whole = (
        np.asarray(decode(model, params, prompts, lengths, num_new=9, stop=stop))
        for stop in (True, False)
    )
    ends = (ended == vocab.EOS).argmax(axis=1)
    assert np.all(ends > 0)
    for new, other, end in zip(ended, whole, ends, strict=True):
        np.testing.assert_array_equal(new[: end + 1], other[: end + 1])
        assert np.all(new[end + 1 :] == vocab.PAD)
        assert np.any(other[end + 1 :] != vocab.PAD)


def test_the_positions_of_a_prompt_are_those_of_the_model_s_scheme(released):
    _, model, params = released
    batch = sums([(3, 5), (5, 2)])
    prompts, lengths = (jnp.array(array) for array in prompts_of(batch))
    positions = model.config.scheme.position_ids(prompts)
    usual, given, wrong = (
        decode(model, params, prompts, lengths, num_new=8, positions=ids)
        for ids in (None, positions, jnp.zeros_like(positions))
    )
    np.testing.assert_array_equal(given, usual)
    assert not np.array_equal(wrong, usual)


def test_trained_model_answers_both_orders_alike(released):
    experiment, _, params = released
    rng = np.random.default_rng(0)
    pairs = rng.integers(1, 10**3, (60, 2)).tolist()
    expected = [str(a + b) for a, b in pairs]
    for texts in ([f"{a}+{b}" for a, b in pairs], [f"{b}+{a}" for a, b in pairs]):
        given = answers(experiment, params, texts)
        assert [answer.answer for answer in given] == expected


def test_numbers_past_the_table_are_refused(smoke):
    changes = POSITIONS["abacus"] | {"table_size": 12, "num_layers": 1}
    model = dataclasses.replace(smoke.model, **changes)
    experiment = dataclasses.replace(smoke, model=model)
    params = random_params(Transformer(model))
    assert len(answers(experiment, params, ["1234567890+1"])) == 1
    with pytest.raises(ValueError, match=r"model.table_size=12 is too small.*need 13"):
        answers(experiment, params, ["12345678901+1"])
