"""Small models on every task and position scheme: decoding, grading and answers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arith_jax import vocab
from arith_jax.data.batch import evaluation_batch, training_batch
from arith_jax.evaluation.answers import answers, read_question
from arith_jax.model.decode import decode
from arith_jax.model.forward import forward
from arith_jax.model.transformer import Transformer, init_params
from arith_jax.tasks.make import make_task
from arith_jax.tasks.task import Layout
from arith_jax.training.loop import train
from arith_jax.training.losses import correct_answers
from arith_jax.training.state import make_state
from tests import helpers
from tests.tasks import rows
from tests.tasks.test_tasks import documented_task

CASES = {
    "subtraction": (make_task("subtraction", {}), "abacus"),
    "complement": (make_task("addsub", {"complement": True}), "abacus"),
    "multiplication": (make_task("multiplication", {}), "abacus"),
    "sorting": (make_task("sorting", {}), "abacus"),
    "bitwise_or": (make_task("bitwise_or", {"random_bits": True}), "abacus"),
    "hints": (make_task("addition", {"index_hints": True}), "abacus"),
    "coupled": (make_task("subtraction", {}), "coupled"),
    "scratchpad": (make_task("multiplication", {"scratchpad": True}), "lines"),
    "list": (make_task("sorting", {"scratchpad": True}), "items"),
    "passes": (make_task("radix_sorting", {}), "passes"),
    "terms": (make_task("multi_addition", {"scratchpad": True}), "terms"),
    "division": (make_task("division", {}), "groups"),
    "roots": (make_task("square_root", {}), "roots"),
    "mirrored": (make_task("copying", {"reverse": True}), "mirrored"),
    "lines": (
        make_task("arithmetic", {"scratchpad": True, "complement": True}),
        "lines",
    ),
    "documented": (documented_task()(), "abacus"),
}
EXPRESSIONS = {
    "complement": ["12-34", "7+8"],
    "multiplication": ["12*345", "0x0"],
    "sorting": ["30,4,17,4", "5"],
    "bitwise_or": ["0110|1"],
    "hints": ["12+345"],
    "coupled": ["345-12"],
    "scratchpad": ["12*345", "0x0"],
    "list": ["30,4,17,4"],
    "passes": ["30,4,17,4", "0"],
    "terms": ["12+34+5", "0+0"],
    "division": ["47/3", "2/35"],
    "roots": ["sqrt(150)", "√7"],
    "mirrored": ["0312", "7"],
    "documented": ["98+120"],
}
# Positions of every kind, in a model that sees everything.
SEES_ALL = {
    "positions": ("abacus", "relative_abacus"),
    "abacus_far": "bias",
    "table_size": 64,
}
jit_forward = jax.jit(forward, static_argnums=0)


def experiment_on(smoke, name, **changes):
    """A small model on the numbers of one and two digits of a task."""
    task, position_ids = CASES[name]
    data = dataclasses.replace(
        smoke.data,
        task=task,
        position_ids=position_ids,
        max_digits=2,
        max_numbers=2 if task.has_lists else 0,
    )
    model = dataclasses.replace(
        smoke.model, vocab_size=len(task.vocab), scheme=data.scheme, **SEES_ALL
    )
    return helpers.changed(
        dataclasses.replace(smoke, data=data, model=model), **changes
    )


def untrained(experiment):
    """A model and parameters with which no part is silent."""
    model = Transformer(experiment.model, experiment.execution)
    return model, helpers.moved(init_params(model, jax.random.key(1)))


def evaluation_rows(experiment, count):
    """Examples of all cells of one and two digits."""
    task, scheme = experiment.data.task, experiment.data.scheme
    requests = [[0, a, b, i] for a in (1, 2) for b in (1, 2) for i in range(count)]
    make = jax.jit(evaluation_batch, static_argnums=(0, 3, 4))
    layout = Layout((2, 2), task.row_width(2, 2))
    return make(task, jax.random.key(0), jnp.array(requests), layout, scheme)


def continuations(model, params, task, batch, num_new):
    """Greedy continuations of the prompts of a batch, and where they begin."""
    ids = np.asarray(batch.ids)
    starts = (ids == task.vocab.id("=")).argmax(axis=1) + 1
    is_prompt = np.arange(ids.shape[1]) < starts[:, None]
    prompts, lengths = jnp.array(np.where(is_prompt, ids, 0)), jnp.array(starts)
    tokens = decode(model, params, prompts, lengths, num_new=num_new)
    return np.asarray(tokens), starts


@pytest.mark.parametrize(
    "name",
    helpers.slow_but(CASES, ("hints", "coupled", "division")),
)
def test_decoding_writes_what_whole_passes_would(smoke, name):
    """So whatever the true answer is, feeding it grades like greedy decoding."""
    experiment = experiment_on(smoke, name, model__num_layers=1)
    task, scheme = experiment.data.task, experiment.data.scheme
    model, params = untrained(experiment)
    batch = evaluation_rows(experiment, 10)
    tokens, starts = continuations(model, params, task, batch, 9)
    fed = np.zeros((len(tokens), starts.max() + 9), np.int32)
    for row, start, old, new in zip(
        fed, starts, np.asarray(batch.ids), tokens, strict=True
    ):
        row[:start], row[start : start + 9] = old[:start], new
    positions = scheme.position_ids(jnp.array(fed))
    logits = jit_forward(model, params, jnp.array(fed), positions)
    # Of logits that are not numbers every argmax is 0, here and in decoding.
    assert np.isfinite(logits).all()
    predicted, num_checked = np.asarray(jnp.argmax(logits, axis=-1)), 0
    for row, start, new in zip(predicted, starts, tokens, strict=True):
        ends = np.flatnonzero(new == vocab.EOS)
        count = ends[0] + 1 if len(ends) else len(new)
        assert row[start - 1 : start - 1 + count].tolist() == new[:count].tolist()
        num_checked += count
    assert num_checked > 150
    assert len(np.unique(tokens)) > 2


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CASES if name != "documented"])
def test_teacher_forcing_equals_greedy_decoding_half_trained(smoke, name):
    experiment = experiment_on(
        smoke,
        name,
        # Hints stand between a digit and its carry, which takes longer to learn.
        data__max_digits=1 if name == "hints" else 2,
        optim__batch_size=128,
        optim__micro_batch_size=128,
        optim__ema_decay=0.0,
        train__steps=300,
        train__minutes=0.0,
    )
    task = experiment.data.task
    model = Transformer(experiment.model, experiment.execution)
    batch = evaluation_rows(experiment, 50)
    shares = []
    for progress in train(experiment, make_state(experiment)):
        if progress.step not in (5, 10, 15, 30, 60, 120, 200, 300):
            continue
        params = progress.state.params
        logits = jit_forward(model, params, batch.ids, batch.positions)
        forced = np.asarray(correct_answers(logits, batch))
        width = task.answer_width(2, 2) + 1
        tokens, starts = continuations(model, params, task, batch, width)
        right = []
        for row, start, new in zip(np.asarray(batch.ids), starts, tokens, strict=True):
            answer = row[start : np.argmax(row == vocab.EOS) + 1]
            right.append(np.array_equal(new[: len(answer)], answer))
        np.testing.assert_array_equal(forced, right)
        shares.append(np.mean(forced))
    # Neither nothing nor everything right, at some step at least.
    assert any(0.03 < share < 0.97 for share in shares)


@pytest.mark.parametrize(
    "name",
    helpers.slow_but(EXPRESSIONS, ("coupled", "list", "documented")),
)
def test_answers_are_greedy_whole_passes(smoke, name):
    experiment = experiment_on(smoke, name, model__num_layers=1)
    task, scheme = experiment.data.task, experiment.data.scheme
    model, params = untrained(experiment)
    prompts = [task.prompt(text) for text in EXPRESSIONS[name]]
    ids = np.zeros((len(prompts), 64), np.int32)
    for row, prompt in zip(ids, prompts, strict=True):
        row[: len(prompt)] = task.vocab.encode(prompt)
    starts = np.array([len(prompt) for prompt in prompts])
    for place in range(9):
        positions = scheme.position_ids(jnp.array(ids))
        logits = jit_forward(model, params, jnp.array(ids), positions)
        assert np.isfinite(logits).all()
        for row, start, values in zip(ids, starts, logits, strict=True):
            row[start + place] = jnp.argmax(values[start + place - 1])
    given = answers(experiment, params, EXPRESSIONS[name])
    for row, start, answer in zip(ids, starts, given, strict=True):
        num_new = read_question(experiment, answer.expression).num_new
        written = task.vocab.decode(row[start : start + min(9, num_new)].tolist())
        # As far as the nine passes, or to the end of the answer.
        assert answer.tokens[:9] == written
    assert max(len(answer.tokens) for answer in given) > 2


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_expressions_that_a_model_cannot_answer_are_refused(smoke, name):
    small = experiment_on(smoke, name, model__table_size=2)
    with pytest.raises(ValueError, match=r"model.table_size=2 is too small"):
        answers(small, {}, EXPRESSIONS[name])
    with pytest.raises(ValueError, match=r"expression '1:2' "):
        answers(small, {}, ["1:2"])


def test_coupled_positions_put_operators_before_digits(smoke):
    data = dataclasses.replace(smoke.data, position_ids="coupled", max_offset=5)
    batch = jax.jit(training_batch, static_argnums=(0, 3))(
        data, jax.random.key(0), 0, 200
    )
    starts = set()
    for ids, positions in zip(
        np.asarray(batch.ids), np.asarray(batch.positions), strict=True
    ):
        place, expected = 0, []
        for symbol in vocab.ARITHMETIC.decode(ids.tolist()):
            place = place + 1 if symbol.isdigit() else 0
            expected.append(place)
        count = len(expected)
        start = positions[0] - 1
        starts.add(int(start))
        assert (positions[:count] - start).tolist() == expected
        assert np.all(positions[count:] == 0)
    # The operator has the first id, 1 to 6.
    assert starts == set(range(1, 7))
    assert data.max_position_id((3, 3)) == 5


def test_documented_task_fills_training_batches(smoke):
    data = dataclasses.replace(smoke.data, task=CASES["documented"][0], max_digits=4)
    batch = jax.jit(training_batch, static_argnums=(0, 3))(
        data, jax.random.key(0), 0, 50
    )
    texts = rows.texts_of(data.task, batch.ids)
    rows.check_answers(data.task, texts)
    for text, labels, mask in zip(
        texts, np.asarray(batch.labels), np.asarray(batch.mask), strict=True
    ):
        answer = text.partition("=")[2]
        assert labels[mask].tolist() == [*data.task.vocab.encode(answer), vocab.EOS]
