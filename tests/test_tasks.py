"""What holds for every task: mixtures, hints, positions, and the page on new tasks."""

import dataclasses
import pathlib
import random
import re
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arith_jax import data, decode, losses, model, positions, tasks, train, vocab
from arith_jax.addition import Addition
from arith_jax.mixture import Mixture
from arith_jax.subtraction import Subtraction
from arith_jax.tasks import make_task
from arith_jax.train import Clock
from tests import models, rows

NAMES = (
    *("addition", "subtraction", "multiplication", "addsub", "arithmetic"),
    *("sorting", "bitwise_or"),
)
TASKS = {name: make_task(name, {}) for name in NAMES}
TASKS["complement"] = make_task("addsub", {"complement": True})
TASKS["hints"] = make_task("addsub", {"index_hints": True})
DOCUMENT = pathlib.Path(__file__).parent.parent / "docs" / "new_task.md"


@pytest.mark.parametrize("name", TASKS)
def test_every_task_keeps_its_promises(name):
    task = TASKS[name]
    assert isinstance(task, tasks.Task)
    most = (6, 5)
    texts, cells = rows.draw(task, 200, most)
    assert "=" in task.vocab.symbols
    for text, (a, b) in zip(texts, cells, strict=True):
        assert text.count("=") == 1
        prompt, answer = text.split("=")
        prompt += "="
        a_read, b_read = task.sizes(prompt)
        assert a_read == a
        # A list holds numbers of at most b digits.
        assert b_read == b or (name == "sorting" and b_read < b)
        assert len(text) + 1 <= task.row_width(a, b)
        assert len(answer) <= task.answer_width(a, b)
        plain = "".join(s if s in "0123456789" else " " for s in text).split()
        if name != "hints":
            assert max(map(len, plain)) <= task.longest_number(a, b)
    if name != "hints":
        rows.check_truth(task, texts)
    if task.num_numbers:
        symbols = [sum(not s.isdigit() for s in text) + 1 for text in texts]
        assert max(symbols) <= task.num_symbols
    rng = random.Random(0)
    for expression in task.examples(rng, [(3, 4)]):
        prompt = task.prompt(expression)
        assert task.read(prompt, task.truth(prompt))
    for kind in task.kinds:
        a, b, count = task.cell(kind, 4, 4, 3)
        assert max(a, b) == 4
        assert 1 <= count <= 3


def test_parts_of_a_mixture_have_equal_shares_and_own_sets():
    mixture = TASKS["arithmetic"]
    texts, _ = rows.draw(mixture, 900, 9)
    shares = [sum(op in t.split("=")[0] for t in texts) / 900 for op in "+-x"]
    assert all(abs(share - 1 / 3) < 0.06 for share in shares)
    for kind, operator in (
        ("addition", "+"),
        ("subtraction", "-"),
        ("multiplication_equal", "x"),
        ("subtraction_powers", "-"),
    ):
        texts, _ = rows.draw(mixture, 40, 9, kind)
        assert all(operator in text.split("=")[0] for text in texts)
        rows.check_truth(mixture, texts)
    assert texts[0].split("-")[0].strip("0") == "1"


def test_mixture_reads_expressions_of_every_part():
    mixture = TASKS["complement"]
    assert mixture.prompt("12+34") == "21+43="
    assert mixture.truth(mixture.prompt("42-57")) == "58-"
    assert mixture.read("24-75=", "58-") == "-15"
    for text, message in (("12*34", "is none of addition, subtr"), ("1+", "not a sum")):
        with pytest.raises(ValueError, match=message):
            mixture.prompt(text)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("division", {}, r"data.task='division' is unknown; allowed: addition, subtr"),
        ("sorting", {"blanks": 0.1}, r"data.blanks=0.1: sorting has no such option"),
        ("addition", {"complement": True}, r"data.complement=True: addition has no su"),
        ("multiplication", {"carry_chains": 0.1}, r"multiplication has no such option"),
        ("bitwise_or", {"index_hints": True}, r"bitwise_or has no such option"),
    ],
)
def test_unknown_tasks_and_options_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        make_task(name, options)


def test_options_reach_the_parts_that_have_them():
    mixture = make_task("arithmetic", {"carry_chains": 0.2, "complement": True})
    assert isinstance(mixture, Mixture)
    add, sub, mul = mixture.tasks
    assert (add.carry_chains, sub.carry_chains, mul.carry_chains) == (0.2, 0.2, 0.0)
    assert isinstance(sub, Subtraction)
    assert sub.complement


def test_hints_are_random_in_training_and_start_at_a_in_evaluation():
    task = Addition(index_hints=True)
    assert task.row_width(20, 20) == 125
    texts, _ = rows.draw(task, 300, 12)
    starts = {text[0] for text in texts}
    assert len(starts) > 80
    for text in texts:
        a, b, answer = re.split(r"[+=]", text)
        first = vocab.HINTS.index(a[0])
        for number in (a, b, answer):
            hints = (first + np.arange(len(number) // 2)) % 102
            assert number[::2] == "".join(vocab.HINTS[i] for i in hints)
        assert int(a[-1::-2]) + int(b[-1::-2]) == int(answer[-1::-2])
    texts, _ = rows.draw(task, 100, 12, "uniform")
    rows.check_truth(task, texts)
    assert task.prompt("120+98") == "A0B2C1+A8B9="
    assert task.truth("A0B2C1+A8B9=") == "A8B1C2"
    assert task.read("A0B2C1+A8B9=", "A8B1C2") == "218"


def test_hints_follow_blanks():
    task = Addition(index_hints=True, blanks=0.3)
    for text in rows.draw(task, 100, 6)[0]:
        a, b, answer = re.split(r"[+=]", text.replace(" ", ""))
        assert int(a[-1::-2]) + int(b[-1::-2]) == int(answer[-1::-2])
        assert a[0] == b[0] == answer[0]


# Small models that see everything; position ids by both rules.
CASES = {
    "subtraction": ("subtraction", {}, "abacus"),
    "complement": ("addsub", {"complement": True}, "abacus"),
    "multiplication": ("multiplication", {}, "abacus"),
    "sorting": ("sorting", {}, "abacus"),
    "bitwise_or": ("bitwise_or", {}, "abacus"),
    "hints": ("addition", {"index_hints": True}, "abacus"),
    "coupled": ("subtraction", {}, "coupled"),
    "scratchpad": ("multiplication", {"scratchpad": True}, "lines"),
    "list": ("sorting", {"scratchpad": True}, "items"),
    "lines": ("arithmetic", {"scratchpad": True, "complement": True}, "lines"),
}


def config_of(smoke, name):
    task, options, ids = CASES[name]
    numbers = 2 if task == "sorting" else 0
    return dataclasses.replace(
        smoke.data,
        task=task,
        position_ids=ids,
        max_digits=2,
        max_numbers=numbers,
        **options,
    )


def network_of(tiny, config):
    task = config.make_task()
    return dataclasses.replace(
        tiny,
        position_levels=positions.NUM_LEVELS.get(config.position_ids, 1),
        vocab_size=len(task.vocab),
        positions=("abacus", "relative_abacus"),
        abacus_far="bias",
        table_size=64,
    )


def decoded(network, params, config, batch, num_new):
    """Greedy continuations of the prompts of a batch, and where they begin."""
    ids = np.asarray(batch.ids)
    equals = config.make_task().vocab.id("=")
    starts = (ids == equals).argmax(axis=1) + 1
    is_prompt = np.arange(ids.shape[1]) < starts[:, None]
    tokens = decode.decode(
        network,
        params,
        jnp.array(np.where(is_prompt, ids, 0)),
        jnp.array(starts),
        num_new,
        jnp.array(np.where(is_prompt, np.asarray(batch.positions), 0)),
        scheme=config.position_ids,
    )
    return np.asarray(tokens), starts


def evaluation_rows(config, count):
    task = config.make_task()
    requests = [[0, a, b, i] for a in (1, 2) for b in (1, 2) for i in range(count)]
    make = jax.jit(data.evaluation_batch, static_argnums=(0, 3, 4, 5))
    rows, width = jnp.array(requests), task.row_width(2, 2)
    return make(task, jax.random.key(0), rows, (2, 2), width, config.position_ids)


forward = jax.jit(model.forward, static_argnums=0)


@pytest.mark.parametrize(
    "name",
    models.slow_but(CASES, ("complement", "scratchpad", "list", "hints", "coupled")),
)
def test_decoding_writes_what_whole_passes_would(smoke, tiny, name):
    """So whatever the true answer is, feeding it grades like greedy decoding."""
    config = config_of(smoke, name)
    task = config.make_task()
    network = dataclasses.replace(network_of(tiny, config), layers=1)
    params = models.moved(model.init_params(network, jax.random.key(0)))
    batch = evaluation_rows(config, 10)
    tokens, starts = decoded(network, params, config, batch, 9)
    fed = np.zeros((len(tokens), starts.max() + 9), np.int32)
    for row, start, old, new in zip(
        fed, starts, np.asarray(batch.ids), tokens, strict=True
    ):
        row[:start], row[start : start + 9] = old[:start], new
    fed_batch = data.as_batch(task, jnp.array(fed), 0, config.position_ids)
    logits = forward(network, params, fed_batch.ids, fed_batch.positions)
    predicted, checked = np.asarray(jnp.argmax(logits, axis=-1)), 0
    for row, start, new in zip(predicted, starts, tokens, strict=True):
        ended = np.flatnonzero(new == vocab.EOS)
        count = ended[0] + 1 if len(ended) else len(new)
        assert row[start - 1 : start - 1 + count].tolist() == new[:count].tolist()
        checked += count
    assert checked > 150
    assert len(np.unique(tokens)) > 2


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_teacher_forcing_equals_greedy_decoding_half_trained(smoke, tiny, name):
    config = config_of(smoke, name)
    # Hints stand between a digit and its carry, which takes longer to learn.
    config = dataclasses.replace(config, max_digits=1 if name == "hints" else 2)
    task = config.make_task()
    network = network_of(tiny, config)
    optimizer = dataclasses.replace(
        smoke.optim, batch_size=128, micro_batch_size=128, ema_decay=0.0
    )
    budget = dataclasses.replace(smoke.train, steps=300)
    state = train.make_state(network, optimizer, 0)
    batch = evaluation_rows(config, 50)
    seen = []
    configs = (network, config, optimizer, budget)
    for progress in train.train(configs, state, 0, Clock()):
        if progress.step not in (30, 60, 120, 200, 300):
            continue
        params = progress.state.params
        logits = forward(network, params, batch.ids, batch.positions)
        forced = np.asarray(losses.correct_rows(logits, batch))
        width = task.answer_width(2, 2) + 1
        tokens, starts = decoded(network, params, config, batch, width)
        right = []
        for row, start, new in zip(np.asarray(batch.ids), starts, tokens, strict=True):
            answer = row[start : np.argmax(row == vocab.EOS) + 1]
            right.append(np.array_equal(new[: len(answer)], answer))
        np.testing.assert_array_equal(forced, right)
        seen.append(np.mean(forced))
    # Neither nothing nor everything right, at some step at least.
    assert any(0.03 < share < 0.97 for share in seen)


ASKED = {
    "complement": ["12-34", "7+8"],
    "multiplication": ["12*345", "0x0"],
    "sorting": ["30,4,17,4", "5"],
    "bitwise_or": ["001|00000"],
    "hints": ["12+345"],
    "coupled": ["345-12"],
    "scratchpad": ["12*345", "0x0"],
    "list": ["30,4,17,4"],
}


@pytest.mark.parametrize("name", ASKED)
def test_models_of_every_task_answer_expressions(smoke, tiny, name):
    config = config_of(smoke, name)
    network = dataclasses.replace(network_of(tiny, config), layers=1)
    params = model.init_params(network, jax.random.key(0))
    answers = decode.answers(network, config, params, ASKED[name])
    assert len(answers) == len(ASKED[name])
    small = dataclasses.replace(network, table_size=2)
    with pytest.raises(ValueError, match=r"model.table_size=2 is too small"):
        decode.answers(small, config, params, ASKED[name])
    with pytest.raises(ValueError, match=r"expression '1/2' "):
        decode.answers(network, config, params, ["1/2"])


@pytest.mark.parametrize("name", ["coupled", "scratchpad", "list"])
def test_answers_are_greedy_whole_passes(smoke, tiny, name, monkeypatch):
    config = config_of(smoke, name)
    task = config.make_task()
    monkeypatch.setattr(type(task), "read", lambda task, prompt, answer: answer)
    network = dataclasses.replace(network_of(tiny, config), layers=1)
    params = models.moved(model.init_params(network, jax.random.key(0)))
    expression = ASKED[name][0]
    prompt = task.prompt(expression)
    ids = np.zeros((1, 64), np.int32)
    ids[0, : len(prompt)] = task.vocab.encode(prompt)
    for place in range(len(prompt), len(prompt) + 9):
        batch = data.as_batch(task, jnp.array(ids), 0, config.position_ids)
        logits = forward(network, params, batch.ids, batch.positions)
        ids[0, place] = jnp.argmax(logits[0, place - 1])
    written = task.vocab.decode(ids[0, len(prompt) : len(prompt) + 9].tolist())
    [answer] = decode.answers(network, config, params, [expression])
    assert len(written) > 4
    assert answer.startswith(written)


def test_coupled_positions_put_operators_before_digits(smoke):
    config = dataclasses.replace(smoke.data, position_ids="coupled", max_offset=5)
    batch = jax.jit(data.training_batch, static_argnums=(0, 3))(
        config, jax.random.key(0), 0, 200
    )
    starts = set()
    for ids, found in zip(*map(np.asarray, batch[:2]), strict=True):
        place, expected = 0, []
        for symbol in vocab.ARITHMETIC.decode(ids.tolist()):
            place = place + 1 if symbol.isdigit() else 0
            expected.append(place)
        count = len(expected)
        start = found[0] - 1
        starts.add(int(start))
        assert (found[:count] - start).tolist() == expected
        assert np.all(found[count:] == 0)
    # The operator has the first id, 1 to 6.
    assert starts == set(range(1, 7))
    assert config.longest_position((3, 3)) == 5


def load_document():
    """The class of docs/new_task.md, executed as a module."""
    code = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert len(code) == 1
    module = types.ModuleType("arith_jax_modular_addition")
    # Dataclasses look their module up.
    sys.modules[module.__name__] = module
    exec(code[0], module.__dict__)
    return module.ModularAddition


@pytest.mark.parametrize("modulus", [2, 97, 10_000])
def test_documented_task_works(modulus):
    task = load_document()(modulus=modulus)
    assert isinstance(task, tasks.Task)
    for length in (1, 40):
        texts, _ = rows.draw(task, 500, length)
        rows.check_truth(task, texts)
        for text in texts:
            a, b, answer = re.split(r"[+=]", text)
            assert (int(a[::-1]) + int(b[::-1])) % modulus == int(answer[::-1])


def test_documented_task_trains_and_answers(smoke, tiny, monkeypatch):
    task = load_document()()
    assert task.prompt("98+120") == "89+021="
    assert task.truth("89+021=") == "42"
    monkeypatch.setattr(data.DataConfig, "make_task", lambda config: task)
    batch = data.training_batch(smoke.data, jax.random.key(0), 0, 4)
    assert batch.ids.shape == (4, smoke.data.width)
    params = model.init_params(tiny, jax.random.key(0))
    assert len(decode.answers(tiny, smoke.data, params, ["98+120"])) == 1
