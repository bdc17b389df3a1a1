"""Answers against decoding token by token, and what is said of them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arith_jax import vocab
from arith_jax.config.experiment import Experiment
from arith_jax.evaluation.answers import (
    Answer,
    answers,
    answers_to,
    read_question,
    reader,
    solved_examples,
)
from arith_jax.evaluation.evaluate import blocks_for
from arith_jax.model.decode import decode
from arith_jax.model.forward import forward
from arith_jax.model.transformer import Transformer
from arith_jax.released import load_released
from configs import abacus_arithmetic

TEXTS = ["0+0", "7+9", "999+1", "98765+43210", "123456789+98", "5050505+4949495"]
LONG = ["9" * 60 + "+1", "3" * 50 + "+" + "6" * 55, "12+" + "8" * 61]


@pytest.fixture(scope="module")
def disturbed():
    """The released model with noise on its parameters, which is often wrong."""
    experiment, _, params = load_released()
    leaves, tree = jax.tree.flatten(params)
    rng = np.random.default_rng(1)
    noisy = [leaf + 0.4 * leaf.std() * rng.normal(size=leaf.shape) for leaf in leaves]
    params = jax.tree.unflatten(tree, [jnp.float32(leaf) for leaf in noisy])
    return experiment, params


def decoded(experiment, params, text, num_new):
    """What greedy decoding writes, token by token."""
    prompt = experiment.data.task.vocab.encode(experiment.data.task.prompt(text))
    ids = jnp.array([prompt + [vocab.PAD] * (64 - len(prompt))])
    model = Transformer(experiment.model, experiment.execution)
    lengths = jnp.array([len(prompt)])
    tokens = decode(model, params, ids, lengths, num_new=12, stop=False)[0]
    return experiment.data.task.vocab.decode(tokens[:num_new].tolist())


def test_wrong_answers_are_what_decoding_writes(disturbed):
    experiment, params = disturbed
    given = answers(experiment, params, TEXTS)
    assert 0 < sum(answer.is_right for answer in given) < len(TEXTS)
    for text, answer in zip(TEXTS, given, strict=True):
        num_new = read_question(experiment, text).num_new
        assert answer.tokens == decoded(experiment, params, text, num_new)
        assert answer.expression == text
        assert answer.truth == str(sum(map(int, text.split("+"))))
        assert answer.answer == answer.tokens[::-1]


def test_answers_do_not_depend_on_the_draft(disturbed):
    experiment, params = disturbed
    questions = [read_question(experiment, text) for text in [*TEXTS, *LONG]]
    assert {question.width for question in questions} == {64, 128, 192}
    others = [question._replace(draft="31") for question in questions]
    first, second = (answers_to(experiment, params, q) for q in (questions, others))
    for one, other in zip(first, second, strict=True):
        assert one.tokens == other.tokens
        np.testing.assert_allclose(one.probabilities, other.probabilities, rtol=1e-5)
    assert sum(answer.is_right for answer in second) == 0


def test_short_examples_after_a_run_share_a_program():
    experiment, _, params = load_released()
    reader.cache_clear()
    lines = solved_examples(experiment, params)
    widths = {read_question(experiment, line.split(" =")[0]).width for line in lines}
    assert len(widths) == 3
    assert all(line.endswith("(right)") for line in lines)
    assert reader.cache_info().misses == 1


def test_probabilities_are_those_of_each_token_and_of_the_end():
    experiment, model, params = load_released()
    (answer,) = answers(experiment, params, ["98+120"])
    text = "89+021=812"
    ids = jnp.array([experiment.data.task.vocab.encode(text)])
    positions = experiment.data.scheme.position_ids(ids)
    shares = jax.nn.softmax(forward(model, params, ids, positions), axis=-1)
    wanted = [*experiment.data.task.vocab.encode("812"), vocab.EOS]
    expected = shares[0, jnp.arange(6, 10), jnp.array(wanted)]
    np.testing.assert_allclose(answer.probabilities, expected, rtol=1e-5)


def test_rows_in_blocks_have_the_same_answers():
    experiment, _, params = load_released()
    narrow = dataclasses.replace(experiment.eval, dense_width=100)
    blocked = dataclasses.replace(experiment, eval=narrow)
    assert blocks_for(blocked, 192) is not None
    assert blocks_for(experiment, 192) is None
    first, second = (answers(one, params, LONG) for one in (experiment, blocked))
    for one, other in zip(first, second, strict=True):
        assert one.tokens == other.tokens
        np.testing.assert_allclose(one.probabilities, other.probabilities, rtol=1e-4)


def test_memory_without_a_window_grows_with_the_row_not_with_its_square():
    experiment, _, _ = load_released("abacus_soft_add")
    text = "1" + "0" * 7999
    assert read_question(experiment, f"{text}+{text}").width >= 24_000
    with pytest.raises(ValueError, match=r"would take .* GiB; allowed: 8 GiB"):
        read_question(experiment, "1+1" + "0" * 10**6)


def test_the_least_certain_token_may_be_the_end():
    answer = Answer("1+2", "3", "3", "3", (0.9, 0.8))
    assert answer.least_certain == (2, "", 0.8)
    assert answer._replace(probabilities=(0.7, 0.8)).least_certain == (1, "3", 0.7)


def test_in_a_mixture_each_calculation_has_answers_of_its_own_length():
    experiment = Experiment.from_dict(abacus_arithmetic.get_config("smoke"))
    count = lambda text: read_question(experiment, text).num_new
    assert count("1" * 200 + "+" + "9" * 200) == 202  # a carry, and the end
    assert count("12*34") > count("12+34") == 4


def test_a_looped_model_is_asked_at_another_depth(smoke):
    trained = load_released()
    with pytest.raises(ValueError, match="num_recurrences=2: must be at least 1, of a"):
        trained.solve(["1+2"], num_recurrences=2)
    changes = {"num_recurrences": 3, "injection": "recurrence"}
    looped = dataclasses.replace(
        trained.experiment,
        model=dataclasses.replace(trained.experiment.model, **changes),
    )
    model = trained._replace(experiment=looped)
    with pytest.raises(ValueError, match="num_recurrences=0: must be at least 1"):
        model.solve(["1+2"], num_recurrences=0)
    usual, third, first = (model.solve(TEXTS, num_recurrences=n) for n in (None, 3, 1))
    assert usual == third
    assert [answer.probabilities for answer in first] != [
        answer.probabilities for answer in third
    ]
