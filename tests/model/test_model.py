import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arith_jax import vocab
from arith_jax.config.experiment import Experiment
from arith_jax.config.model import Execution, McLeishConfig
from arith_jax.model import attention, pieces
from arith_jax.model.banded import Blocks
from arith_jax.model.context import make_context, visible
from arith_jax.model.forward import attention_weights, initial_state, layer_params
from arith_jax.model.forward import forward as run_forward
from arith_jax.model.layers import Norm, make_layer
from arith_jax.model.transformer import Transformer, init_params, num_params
from arith_jax.positions.schemes import Abacus
from arith_jax.positions.written_schemes import Lines
from arith_jax.tasks.copying import Copying
from arith_jax.tasks.division import Division
from arith_jax.tasks.multi_addition import MultiAddition
from arith_jax.tasks.multiplication import Multiplication
from arith_jax.tasks.radix_sorting import RadixSorting
from arith_jax.tasks.sorting import Sorting
from arith_jax.tasks.square_root import SquareRoot
from configs.paper import addition
from tests.helpers import assert_trees_close, changed, slow_but
from tests.model.examples import (
    LOOPED,
    POSITIONS,
    RULES,
    batch_of,
    changed_model,
    forward,
    random_params,
    relative_distance,
)

jitted_init = jax.jit(init_params, static_argnums=0)

# Tasks whose work is written out, and the position scheme of each.
WRITTEN = {
    "lines": Multiplication(scratchpad=True),
    "items": Sorting(scratchpad=True),
    "terms": MultiAddition(scratchpad=True),
    "groups": Division(),
    "roots": SquareRoot(),
    "passes": RadixSorting(),
}


def influence(model, params, batch):
    """Size of the gradient of each token's logits [t] to each token's state [s].

    Of the first row; the state is the one before the first recurrence.
    """
    ids, positions = batch.ids[:1], batch.positions[:1]
    shape = (*ids.shape, model.config.width)
    state = np.random.default_rng(1).standard_normal(shape).astype(np.float32)

    def logit_sum(state, place, params):
        logits = run_forward(model, params, ids, positions, state=state)
        return jnp.sum(logits[0, place])

    gradients = jax.jit(jax.vmap(jax.grad(logit_sum), (None, 0, None)))
    places = jnp.arange(ids.shape[1])
    return np.abs(gradients(jnp.array(state), places, params)[:, 0]).sum(axis=-1)


def in_a_loop(model, params, batch, num_frozen, num_trained):
    """Logits by a Python loop over recurrences and layers.

    Without gradient through the first recurrences.
    """
    config = model.config
    context = make_context(config.scheme, batch.positions)
    layer = make_layer(config, model.execution)
    run = lambda method, *args: model.apply({"params": params}, *args, method=method)
    emb = run("embed", batch.ids, context)
    state = initial_state(model, emb, None, context.query.index)
    for recurrence in range(num_frozen + num_trained):
        stacked, injected = params["layers"], emb
        if recurrence < num_frozen:
            frozen = state, stacked, injected
            state, stacked, injected = jax.lax.stop_gradient(frozen)
        if config.injection == "recurrence":
            state = state + injected
        for index in range(config.num_layers):
            weights = jax.tree.map(lambda x, i=index: x[i], stacked)
            state, _ = layer.apply({"params": weights}, state, injected, context)
    return run("readout", state)


def squares(logits):
    """The sum of squares of logits, as a function of parameters, and its gradient."""
    return jax.jit(jax.value_and_grad(lambda *args: jnp.sum(logits(*args) ** 2)))


@pytest.mark.parametrize(
    "name",
    slow_but(POSITIONS, ("nope", "relative", "abacus, fire, rope")),
)
def test_a_token_depends_on_itself_and_its_past_only(tiny, name):
    model = changed_model(tiny, POSITIONS[name])
    reach = influence(model, random_params(model), batch_of())
    assert np.all(np.triu(reach, 1) == 0)
    assert np.all(np.diag(reach) > 0)
    assert np.any(np.tril(reach, -1) > 0)


def test_one_layer_of_window_attention_reaches_near_digits_and_symbols(tiny):
    model = changed_model(tiny, {"num_layers": 1, "abacus_window": 1})
    batch = batch_of(["12345678+87654321="])
    reach = influence(model, random_params(model), batch)
    ids = np.asarray(batch.positions[0])
    is_near = np.abs(ids[:, None] - ids[None]) <= 1
    expected = (is_near | (ids == 0)[None]) & np.tri(len(ids), dtype=bool)
    np.testing.assert_array_equal(reach > 0, expected)


@pytest.mark.parametrize(
    ("scheme", "prompt"),
    [
        ("lines", "321x654="),
        ("items", "A:03,B:714,C:5="),
        ("terms", "21+43+5="),
        ("groups", "74/3="),
        ("roots", "√0510="),
    ],
)
def test_attention_without_content_is_the_bias_of_the_levels(tiny, scheme, prompt):
    """Queries and keys are zero, so what is left are biases and what is visible."""
    task = WRITTEN[scheme]
    batch = batch_of([prompt], task, scheme)
    changes = {"num_layers": 1, "scheme": task.schemes[scheme]}
    changes |= POSITIONS["nope"] | {"vocab_size": len(task.vocab)}
    model = changed_model(tiny, changes)
    params = random_params(model)
    attention = params["layers"]["attention"]
    attention["qkv_kernel"] = jnp.zeros_like(attention["qkv_kernel"])
    run = jax.jit(attention_weights, static_argnums=0)
    actual = run(model, params, batch.ids, batch.positions)[0, 0, 0]
    ids = np.asarray(batch.positions[0])
    if scheme in ("lines", "terms"):
        levels = {"line": (ids // 2**15, 1 if scheme == "lines" else 2)}
    else:
        name = "column" if scheme == "items" else "group"
        lines, window = {"items": (1, 2), "groups": (1, 1), "roots": (3, 2)}[scheme]
        rest = ids // 2**11
        levels = {"line": (rest % 2**12, lines), name: (rest // 2**12, window)}
    logits, is_far = 0.0, np.zeros((len(ids), len(ids)), bool)
    for name, (ids, window) in levels.items():
        weight = np.asarray(attention[f"relative_{name}"]["bias"][0])
        assert len(weight) == 2 * window + 3
        edge, difference = window + 1, ids[:, None] - ids[None]
        clipped = np.clip(difference, -edge, edge) + edge
        logits = logits + 20 * weight[clipped].transpose(2, 0, 1)
        is_far |= (np.abs(difference) > window) & (ids[None] > 0)
    if scheme == "items":
        # Items see themselves, and are seen from everywhere else.
        line, column = levels["line"][0], levels["column"][0]
        is_other_item = (column[:, None] == 0) & (line[:, None] != line[None])
        is_far = np.where(column[None] > 0, is_far, is_other_item)
    is_hidden = is_far | ~np.tri(len(ids), dtype=bool)
    expected = np.exp(np.where(is_hidden, -np.inf, logits))
    expected /= expected.sum(axis=-1, keepdims=True)
    assert_trees_close(actual, expected, 1e-5)


@functools.partial(jax.jit, static_argnums=(0, 2))
def visible_keys(scheme, positions, window):
    """Which keys each query of the first row can see."""
    return visible(scheme, make_context(scheme, positions), window)[0]


def test_written_lines_see_as_many_tokens_at_any_length():
    counts = []
    for a, b in (("318275", "694138"), ("318275318275", "694138694138")):
        prompt = f"{a}x{b}="
        batch = batch_of([prompt], WRITTEN["lines"], "lines")
        text = WRITTEN["lines"].vocab.decode(batch.ids[0].tolist())
        seen = visible_keys(WRITTEN["lines"].schemes["lines"], batch.positions, 2)
        seen = np.asarray(seen) & (np.asarray(batch.ids[0]) != vocab.PAD)
        counts.append(int(seen[np.asarray(batch.mask[0])].sum(axis=1).max()))
        # The middle of a line sees five digits of `a`, as many one line up, three of
        # `b`, its line's last two and itself, the operator.
        digits = len(a)
        query = len(prompt) - 1 + 2 * (digits + 2) + 4
        shown = "".join(s for s, v in zip(text, seen[query], strict=False) if v)
        up = text[query - digits - 4 : query - digits + 1]
        assert shown == a[1:6] + "x" + b[1:4] + up + text[query - 2 : query + 1]
    assert counts[0] == counts[1] <= 20


def seen_in(name, prompt, window=2):
    """A row of written work, and a function: what a token of it can see."""
    task = WRITTEN[name]
    batch = batch_of([prompt], task, name)
    text = prompt + task.true_answer(prompt)
    seen = np.asarray(visible_keys(task.schemes[name], batch.positions, window))
    return text, lambda query: "".join(
        symbol for symbol, v in zip(text, seen[query], strict=False) if v
    )


@pytest.mark.parametrize("length", [6, 12])
def test_running_sums_see_as_many_tokens_at_any_length(length):
    numbers = ["318275694138"[:length], "402913847561"[:length]] * (length // 2)
    text, shown = seen_in("terms", "+".join(numbers) + "=")
    line = text.index("=") + 1 + len("+".join(numbers[:1])) + 1
    # In the second line, after its fourth digit: five of the number beside it, of the
    # next and of the line above; the symbols before both; its line's last two and it.
    query = line + 3
    up = text[line - len(numbers[0]) - 1 :][1:6]
    sees = f"+{numbers[1][1:6]}+{numbers[0][1:6]}"
    assert shown(query) == sees + up + text[query - 2 : query + 1]
    # The last line has no number after it.
    assert shown(len(text) - 1).count("+") == 1


@pytest.mark.parametrize(("reverse", "name"), [(False, "abacus"), (True, "mirrored")])
def test_copies_see_their_source_and_whether_there_is_more(reverse, name):
    task, string = Copying(reverse=reverse), "9876543210"
    batch = batch_of([string + "="], task, name)
    text = string + "=" + task.true_answer(string + "=")
    seen = np.asarray(visible_keys(task.schemes[name], batch.positions, 2))
    source = string[::-1] if reverse else string
    for place in range(len(string) + 1):
        shown = [s for s, v in zip(text, seen[10 + place], strict=False) if v]
        around = range(max(place - 3, 0), min(place + 2, 10))
        # The next one, those beside it, and what is written; no next one at the end.
        expected = [source[i] for i in around]
        expected += [source[i] for i in range(max(place - 3, 0), place)] + ["="]
        assert sorted(shown) == sorted(expected)


def test_lines_of_a_division_see_what_they_need():
    text, shown = seen_in("groups", "87654321/4321=", window=2)
    answer = text.index("=")
    # The first line brings down the last digit written, and sees the next.
    assert shown(answer) == "21" + "/" + "43" + "="
    # A line after `-`, at its second digit: the divisor's first four, the line above
    # with its symbol, and its line with its own.
    line = text.index("-", answer)
    above = text[answer : answer + 5]
    assert shown(line + 2) == "21/4321" + above + text[line : line + 3]
    longer, shown_longer = seen_in("groups", "87654321" * 4 + "/4321=", window=2)
    line = longer.index("-", longer.index("+", longer.index("=")))
    assert longer[line - 6 : line - 5] == "+"
    assert len(shown_longer(line + 2)) == len("321/4321") + 5 + 3


def test_lines_of_a_sorted_list_see_what_they_need():
    task, prompt = WRITTEN["items"], "A:0317,B:41,C:7102,D:98="
    batch = batch_of([prompt], task, "items")
    text = prompt + task.true_answer(prompt)
    seen = np.asarray(visible_keys(task.schemes["items"], batch.positions, 1))

    def shown(query):
        return "".join(s for s, v in zip(text, seen[query], strict=False) if v)

    assert text.endswith("=A,BA,BCA,BDCA")
    # A digit sees its item; here the last one of C.
    assert shown(text.index("2,D")) == "C:02"
    # The third line compares C, whose fourth digit is the last, with A and B: every
    # key, the digits beside that place, the column of the line above, and its line.
    line = text.index(",BCA")
    assert shown(line + 1) == "A:17,B:,C:02,D:" + ",BA" + ",B"
    assert shown(line + 3) == "A:17,B:,C:02,D:" + "BA" + "BCA"


@pytest.mark.parametrize(
    "name", slow_but(("relative", "rotary abacus", "nope"), ("relative",))
)
def test_an_offset_changes_nothing_where_ids_are_compared(tiny, name):
    model = changed_model(tiny, POSITIONS[name] | {"abacus_far": "mask"})
    params, batch = random_params(model), batch_of()
    shifted = jnp.where(batch.positions > 0, batch.positions + 70, 0)
    logits, with_offset = (
        forward(model, params, batch.ids, positions, num_segments=1)
        for positions in (batch.positions, shifted)
    )
    np.testing.assert_array_equal(logits, with_offset)


def test_a_shift_of_all_ids_changes_nothing_where_none_is_hidden(tiny):
    model = changed_model(tiny, POSITIONS["relative, bias"])
    params, batch = random_params(model), batch_of()
    logits, shifted = (
        forward(model, params, batch.ids, batch.positions + shift, num_segments=1)
        for shift in (0, 100)
    )
    assert_trees_close(shifted, logits, 1e-5)


def test_rows_of_a_table_moved_with_the_ids_change_nothing(tiny):
    model = changed_model(tiny, POSITIONS["abacus"])
    params, batch = random_params(model), batch_of()
    shift, table = 30, params["abacus"]["embedding"]
    table = table.at[1 + shift : 20 + shift].set(table[1:20])
    other = table.at[1 + shift, 0].add(1.0)
    shifted = jnp.where(batch.positions > 0, batch.positions + shift, 0)

    def logits(table, positions):
        changed = params | {"abacus": {"embedding": table}}
        return forward(model, changed, batch.ids, positions, num_segments=1)

    plain = logits(table, batch.positions)
    assert_trees_close(logits(table, shifted), plain, 1e-6)
    assert relative_distance(logits(other, shifted), plain) > 1e-3


# How rows can be told apart from their padding, or from other rows.
ALONE = POSITIONS | {"looped": LOOPED}
USUAL = ("relative", "abacus", "fire, rope", "looped")


@pytest.mark.parametrize("name", slow_but(ALONE, USUAL))
def test_permuting_the_rows_permutes_the_logits(tiny, name):
    model = changed_model(tiny, ALONE[name])
    params, batch = random_params(model), batch_of()
    order = jnp.array([2, 0, 4, 1, 3])
    plain = forward(model, params, batch.ids, batch.positions, num_segments=1)
    assert jnp.max(jnp.abs(plain - plain[order])) > 0.1 * jnp.max(jnp.abs(plain))
    ids, positions = batch.ids[order], batch.positions[order]
    permuted = forward(model, params, ids, positions, num_segments=1)
    assert_trees_close(permuted, plain[order], 1e-5)


def padded(ids, before, width):
    """Rows with so many `PAD` before them each, and as many after as fit."""
    rows = np.full((len(ids), width), vocab.PAD, np.int32)
    for row, values, count in zip(rows, np.asarray(ids), before, strict=True):
        row[count : count + len(values)] = values
    return jnp.array(rows)


@pytest.mark.parametrize("name", slow_but(ALONE, USUAL))
def test_padding_before_and_after_a_row_changes_no_logits(tiny, name):
    model, before = changed_model(tiny, ALONE[name]), (0, 1, 4, 16, 64)
    params, batch = random_params(model), batch_of()
    plain = forward(model, params, batch.ids, batch.positions, num_segments=1)
    length = batch.ids.shape[1]
    # The row without `PAD` before it has 64 after it.
    ids = padded(batch.ids, before, length + max(before))
    positions = model.config.scheme.position_ids(ids)
    logits = forward(model, params, ids, positions)
    for row, expected, count in zip(logits, plain, before, strict=True):
        assert_trees_close(row[count : count + length], expected, 1e-5)


def test_segments_need_their_number(tiny):
    model, batch = changed_model(tiny, {}), batch_of()
    with pytest.raises(ValueError, match="segment needs num_segments"):
        run_forward(
            model, {}, batch.ids, batch.positions, segment=jnp.zeros_like(batch.ids)
        )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scheme", "prompts"),
    [
        ("lines", ["321x654=", "32x5=", "9x999="]),
        ("items", ["A:03,B:714,C:5=", "b:6,c:41=", "X:9="]),
        ("terms", ["21+43+5=", "7+8=", "999+1="]),
        ("groups", ["74/3=", "7/21=", "5/5="]),
        ("roots", ["√0510=", "√70=", "√9999="]),
        ("passes", ["A:03,B:714=", "b:6,c:41=", "X:9="]),
    ],
)
def test_padding_changes_no_logits_of_written_work(tiny, scheme, prompts):
    task, before = WRITTEN[scheme], (0, 5, 33)
    changes = {"scheme": task.schemes[scheme], "vocab_size": len(task.vocab)}
    model = changed_model(tiny, changes)
    params, batch = random_params(model), batch_of(prompts, task, scheme)
    plain = forward(model, params, batch.ids, batch.positions, num_segments=1)
    length = batch.ids.shape[1]
    ids = padded(batch.ids, before, length + max(before))
    logits = forward(model, params, ids, model.config.scheme.position_ids(ids))
    for row, expected, tokens, count in zip(
        logits, plain, batch.ids, before, strict=True
    ):
        is_token = np.asarray(tokens != vocab.PAD)
        actual = row[count : count + length][is_token]
        assert_trees_close(actual, expected[is_token], 1e-5)


@pytest.mark.parametrize("name", slow_but(RULES, ("ours", "looped")))
def test_attention_weights_are_what_the_layers_use(tiny, name):
    model = changed_model(tiny, RULES[name])
    config, params, batch = model.config, random_params(model), batch_of()
    context = make_context(config.scheme, batch.positions)
    rows, width = batch.ids.shape

    @jax.jit
    def first_layer(params):
        """Weights; output of the first attention; the same from weights and values."""
        emb = model.apply({"params": params}, batch.ids, context, method="embed")
        state = initial_state(model, emb, None, context.query.index)
        if config.injection != "none":
            state = state + emb
        layer = make_layer(config, model.execution)
        first_params = layer_params(params, config.num_layers)[0]
        if config.norm == "sandwich":
            norm = Norm(config.norm_eps)
            state = norm.apply({"params": first_params["attention_in_norm"]}, state)
        attention = first_params["attention"]
        out, _ = layer.attention.apply({"params": attention}, state, context)
        weights = attention_weights(model, params, batch.ids, batch.positions)
        values = (state @ attention["qkv_kernel"][:, 2]).reshape(
            rows, width, config.num_heads, config.head_width
        )
        mixed = jnp.einsum("bhts,bshc->bthc", weights[0, 0], values)
        rebuilt = mixed.reshape(rows, width, -1) @ attention["out"]["kernel"]
        return weights, out, rebuilt

    weights, out, rebuilt = first_layer(params)
    assert_trees_close(rebuilt, out, 1e-5)
    stack = (config.num_recurrences, config.num_layers, rows, config.num_heads)
    assert weights.shape == (*stack, width, width)
    np.testing.assert_allclose(weights.sum(axis=-1), 1.0, rtol=1e-5)
    window = config.abacus_window if config.abacus_far == "mask" else None
    is_hidden = ~np.asarray(visible(config.scheme, context, window))
    assert np.all(np.where(is_hidden[:, None], weights, 0) == 0)


def test_length_scale_multiplies_the_logits_of_each_query(tiny):
    changes = POSITIONS["relative, bias"] | {"num_layers": 1}
    plain = changed_model(tiny, changes)
    scaled = changed_model(tiny, changes | {"length_scale": True})
    params, batch = random_params(plain), batch_of()
    run = jax.jit(attention_weights, static_argnums=0)
    weights, actual = (
        np.asarray(run(model, params, batch.ids, batch.positions))
        for model in (plain, scaled)
    )
    num_visible = np.arange(1, batch.ids.shape[1] + 1)
    factor = np.log(num_visible + 1) / np.log(32)
    expected = np.where(weights > 0, weights ** factor[:, None], 0)
    expected /= expected.sum(axis=-1, keepdims=True)
    assert_trees_close(actual, expected, 1e-5)


@pytest.mark.parametrize("name", slow_but(RULES, ("looped",)))
def test_layers_scanned_and_in_turn_are_a_python_loop(tiny, name):
    scanned = changed_model(tiny, RULES[name])
    in_turn = Transformer(scanned.config, Execution(unroll=True))
    params, batch = random_params(scanned), batch_of()
    count = scanned.config.num_recurrences
    loop = lambda params: in_a_loop(scanned, params, batch, 0, count)
    expected, expected_gradient = squares(loop)(params)
    for model in (scanned, in_turn):
        logits = lambda params, model=model: run_forward(
            model, params, batch.ids, batch.positions, num_segments=1
        )
        actual, gradient = squares(logits)(params)
        assert_trees_close(actual, expected, 1e-5)
        assert_trees_close(gradient, expected_gradient, 1e-5)


@pytest.mark.parametrize(
    ("numbers_frozen", "num_trained", "unroll"),
    [
        ((0, 2), 1, False),
        ((2,), 0, False),
        pytest.param((1,), 1, True, marks=pytest.mark.slow),
        pytest.param((1,), 2, False, marks=pytest.mark.slow),
        pytest.param((0, 2), 2, True, marks=pytest.mark.slow),
        pytest.param((2,), 0, True, marks=pytest.mark.slow),
    ],
)
def test_no_gradient_flows_through_the_first_recurrences(
    tiny, numbers_frozen, num_trained, unroll
):
    # From the embedding, so that the initial state has a gradient, too.
    changes = LOOPED | {"initial_state": "embedding", "num_layers": 1}
    model = changed_model(tiny, changes, execution=Execution(unroll=unroll))
    params, batch = random_params(model), batch_of()
    by_forward = squares(
        lambda params, num_frozen: run_forward(
            model,
            params,
            batch.ids,
            batch.positions,
            num_frozen=num_frozen,
            num_trained=num_trained,
            num_segments=1,
        )
    )
    for number in numbers_frozen:
        loop = lambda params, n=number: in_a_loop(model, params, batch, n, num_trained)
        expected, expected_gradient = squares(loop)(params)
        actual, gradient = by_forward(params, jnp.asarray(number))
        assert_trees_close(actual, expected, 1e-5)
        assert_trees_close(gradient, expected_gradient, 1e-5)
        if num_trained == 0:
            for leaf in jax.tree.leaves((gradient["layers"], gradient["token"])):
                assert jnp.all(leaf == 0)


def test_the_number_of_frozen_recurrences_matters(tiny):
    model = changed_model(tiny, LOOPED)
    params, batch = random_params(model), batch_of()
    shallow, deep = (
        forward(
            model,
            params,
            batch.ids,
            batch.positions,
            num_frozen=number,
            num_trained=1,
            num_segments=1,
        )
        for number in (0, 3)
    )
    assert relative_distance(shallow, deep) > 1e-2


@pytest.mark.parametrize("unroll", [True, False])
def test_long_rows_are_attended_to_in_pieces_with_the_same_result(
    tiny, unroll, monkeypatch
):
    changes = {"abacus_far": "bias", "length_scale": True}
    changes["positions"] = ("relative_abacus", "fire")
    model = changed_model(tiny, changes, execution=Execution(unroll=unroll))
    params, batch = random_params(model), batch_of()
    arguments = (model, params, batch.ids[:, :15], batch.positions[:, :15])
    whole = run_forward(*arguments, num_segments=1)
    in_segments = run_forward(*arguments)
    width, sizes = 15, []
    weigh = attention.Attention.weigh_at_once

    def watched(layer, q, k, v, context):
        sizes.append(q.shape[1])
        return weigh(layer, q, k, v, context)

    monkeypatch.setattr(attention.Attention, "weigh_at_once", watched)
    monkeypatch.setattr(pieces, "MAX_LOGITS", 5 * width)
    assert_trees_close(run_forward(*arguments, num_segments=1), whole, 1e-5)
    assert set(sizes) == {4}  # The last piece is filled up.
    sizes.clear()
    assert_trees_close(run_forward(*arguments), in_segments, 1e-5)
    run_forward(*arguments, num_segments=1, key=jax.random.key(0))
    assert set(sizes) == {width}


@pytest.mark.parametrize("unroll", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_random_places_of_fire_act_in_training_only_and_by_key(tiny, unroll):
    changes = POSITIONS["fire"] | {"num_layers": 1, "fire_max_length": 4096}
    model = changed_model(tiny, changes, execution=Execution(unroll=unroll))
    usual = Transformer(dataclasses.replace(model.config, fire_max_length=0))
    params, batch = random_params(model), batch_of()

    def run(model, seed=None):
        key = None if seed is None else jax.random.key(seed)
        return forward(
            model, params, batch.ids, batch.positions, key=key, num_segments=1
        )

    np.testing.assert_array_equal(run(model), run(usual))
    np.testing.assert_array_equal(run(usual, 1), run(usual))
    np.testing.assert_array_equal(run(model, 1), run(model, 1))
    assert relative_distance(run(model, 1), run(model, 2)) > 1e-3
    assert relative_distance(run(model, 1), run(usual)) > 1e-3


def test_the_random_initial_state_depends_on_the_key_in_training_only(tiny):
    model = changed_model(tiny, LOOPED)
    emb = jnp.ones((2, 7, tiny.width))
    index = jnp.array([[0, 1, 2, 3, 4, 5, 6], [0, 0, 1, 2, 0, 1, 2]])
    first, second = initial_state(model, emb, None, index)
    # In evaluation, by the place in the segment alone, and not by the row's length.
    np.testing.assert_array_equal(second, first[index[1]])
    shorter = initial_state(model, emb[:, :4], None, index[:, :4])
    np.testing.assert_array_equal(shorter[0], first[:4])
    one, same, other = (
        initial_state(model, emb, jax.random.key(seed), index) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, same)
    assert len(np.unique(jnp.concatenate([one, other]))) == 2 * one.size
    for state in (first, one):
        assert jnp.std(state) == pytest.approx(0.02, rel=0.2)


def test_bfloat16_is_near_float32_and_keeps_parameters_in_float32(tiny):
    half = Transformer(tiny, Execution(dtype="bfloat16"))
    shapes = jax.eval_shape(lambda: init_params(half, jax.random.key(0)))
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}
    params, batch = random_params(half), batch_of()
    full_logits, half_logits = (
        forward(model, params, batch.ids, batch.positions, num_segments=1)
        for model in (Transformer(tiny), half)
    )
    assert half_logits.dtype == jnp.float32
    # bfloat16 keeps 8 bits of a number.
    assert 2**-12 < relative_distance(half_logits, full_logits) < 2**-4


@pytest.mark.parametrize("dtype", ["uint8", "uint32", "int64"])
def test_ids_of_any_integer_dtype_give_the_logits_of_int32(tiny, dtype):
    # Both a table and differences of ids, which would wrap in an unsigned dtype.
    changes = {"positions": ("abacus", "relative_abacus"), "table_size": 128}
    model = changed_model(tiny, changes)
    params, batch = random_params(model), batch_of(["9+12=", "4+5="])
    ids = padded(batch.ids, (3, 0), batch.ids.shape[1] + 3)
    positions = model.config.scheme.position_ids(ids)
    expected = forward(model, params, ids, positions)
    with jax.enable_x64(dtype == "int64"):
        converted = ids.astype(dtype), positions.astype(dtype)
        assert converted[0].dtype == dtype
        actual = forward(model, params, *converted)
    np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        pytest.param({"mcleish": McLeishConfig(deepnorm=True)}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_matrices_of_all_layers_begin_with_values_of_their_own(tiny, changes):
    config = dataclasses.replace(tiny, **changes)
    layers = jitted_init(Transformer(config), jax.random.key(0))["layers"]
    for part, name in (("attention", "qkv_kernel"), ("mlp", "in"), ("mlp", "out")):
        matrix = layers[part][name]
        matrix = matrix["kernel"] if isinstance(matrix, dict) else matrix
        assert matrix.shape[0] == config.num_layers
        assert len(np.unique(matrix)) > 0.99 * matrix.size


@pytest.mark.parametrize(
    ("argument", "count"),
    [
        ("arch=16x1,pos=abacus", 122_267_648),
        ("arch=16x1,pos=nope", 121_743_360),
        ("arch=16x1,pos=rope", 121_743_360),
        ("arch=8x2,pos=learned", 63_514_624),
        ("arch=4x4,pos=nope", 33_613_824),
        ("arch=1x16,pos=abacus", 12_105_728),
    ],
)
def test_paper_models_have_the_paper_s_parameter_counts(argument, count):
    model = Transformer(Experiment.from_dict(addition.get_config(argument)).model)
    shapes = jax.eval_shape(lambda: init_params(model, jax.random.key(0)))
    assert num_params(shapes) == count


def test_deepnorm_has_the_standard_deviations_of_its_paper(tiny):
    changes = {"width": 128, "mlp_width": 256, "mcleish": McLeishConfig(deepnorm=True)}
    model = changed_model(tiny, changes)
    assert model.config.depth == 2
    params = jitted_init(model, jax.random.key(0))
    gain = (8 * 2) ** -0.25
    qkv = params["layers"]["attention"]["qkv_kernel"]
    for index, expected in enumerate((1.0, 1.0, gain)):
        spread = jnp.std(qkv[:, :, index])
        assert spread == pytest.approx(expected * 128**-0.5, rel=0.03)
    matrix = params["layers"]["mlp"]["in"]["kernel"]
    assert jnp.std(matrix) == pytest.approx(gain * (2 / 384) ** 0.5, rel=0.03)
    assert jnp.std(params["token"]["embedding"]) == pytest.approx(128**-0.5, rel=0.06)


LINES = Lines(equals_id=17, operator_id=16)
BAD = [
    ({"width": 33}, r"model.width=33 is not a multiple of model.num_heads=2"),
    ({"injection": "often"}, r"model.injection='often' is unknown; allowed: none"),
    ({"norm": "pre"}, r"model.norm='pre' is unknown; allowed: post, sandwich"),
    ({"positions": ("alibi",)}, r"model.positions has 'alibi'; allowed: any of abacus"),
    ({"initial_state": "noise"}, r"never shows the input"),
    ({"fire_max_length": 9}, r"fire_max_length=9 needs 'fire' in model.positions"),
    ({"num_layers": 0}, r"model.num_layers=0: must be at least 1"),
    ({"mlp_width": 63}, r"model.mlp_width=63: must be even"),
    (
        {"scheme": LINES, "abacus_window": 7},
        r"abacus_window=7: at most 6 with data.position_ids='lines'",
    ),
    (
        {"scheme": WRITTEN["items"].schemes["items"], "abacus_window": 7},
        r"abacus_window=7: at most 6 with data.position_ids='items'",
    ),
    (
        {"positions": ("rope",), "abacus_far": "bias", "width": 30},
        r"rotary positions need an even head width, got 15",
    ),
]


@pytest.mark.parametrize(("changes", "message"), BAD)
def test_impossible_models_are_refused(tiny, changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(tiny, **changes)


@pytest.mark.parametrize("changes", [{"random": 64}, {"random": 128, "packed": 2}])
def test_random_places_that_a_row_has_no_room_for_are_refused(changes):
    argument = f"pos=fire,smoke,random={changes['random']}"
    config = addition.get_config(f"arch=16x1,{argument}")
    config.data.width_multiple = 64
    config.data.problems_per_row = changes.get("packed", 1)
    with pytest.raises(ValueError, match=r"model.fire_max_length=.* above the 64 tok"):
        Experiment.from_dict(config).check()


def test_other_impossible_values_are_refused(smoke):
    with pytest.raises(ValueError, match=r"execution.dtype='float16' is unknown"):
        Execution(dtype="float16")
    with pytest.raises(ValueError, match=r"qkv_gain_quirk=True needs model.mcleish.de"):
        McLeishConfig(qkv_gain_quirk=True)
    hidden = changed(smoke, train__max_far_copies=9.0)
    with pytest.raises(
        ValueError, match=r"max_far_copies=9.0 with model.abacus_far='m"
    ):
        hidden.check()
    far_problems = changed(smoke, train__far_problems=True)
    with pytest.raises(ValueError, match=r"far_problems=True is for rows of several"):
        far_problems.check()
    deeper = changed(smoke, loss__max_backprop=2)
    with pytest.raises(ValueError, match=r"loss.max_backprop=2: must be between 1 and"):
        deeper.check()


def test_ids_past_their_level_are_refused(tiny):
    config = dataclasses.replace(tiny, scheme=LINES)
    config.check_table(2**15 - 1)
    with pytest.raises(ValueError, match=r"ids up to 32768: must be below 32768"):
        config.check_table(2**15)
    tiny.check_table(2**15)


def test_blocks_are_for_rows_of_one_segment_numbered_by_place():
    ids, blocks = jnp.zeros((1, 4), jnp.int32), Blocks(32, 3)
    with pytest.raises(ValueError, match=r"attention in blocks .* 'lines'"):
        make_context(LINES, ids, blocks=blocks)
    with pytest.raises(ValueError, match=r"attention in blocks .* got 2 segments"):
        make_context(Abacus(), ids, segment=ids, num_segments=2, blocks=blocks)


def test_a_table_too_small_is_refused_and_the_needed_size_suffices(tiny):
    abacus, learned = (
        dataclasses.replace(tiny, **POSITIONS[name] | {"table_size": 30})
        for name in ("abacus", "learned")
    )
    abacus.check_table(21, max_offset=8)
    with pytest.raises(ValueError, match=r"model.table_size=30 is too small.*need 31"):
        abacus.check_table(21, max_offset=9)
    model = Transformer(abacus)
    params, ids = random_params(model), jnp.full((1, 21), 5)
    positions = jnp.arange(1, 22)[None] + 8
    logits = forward(model, params, ids, positions, num_segments=1)
    assert jnp.all(jnp.isfinite(logits))
    logits = forward(model, params, ids, positions + 1, num_segments=1)
    assert not jnp.all(jnp.isfinite(logits))
    with pytest.raises(ValueError, match=r"rows of 31 tokens need 31 learned"):
        learned.check_row(31)
