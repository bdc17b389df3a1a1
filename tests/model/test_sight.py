"""What a token can see, and so depend on."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arith_jax import vocab
from arith_jax.model.context import make_context, visible
from arith_jax.model.forward import attention_weights
from arith_jax.model.forward import forward as run_forward
from arith_jax.tasks.copying import Copying
from tests.helpers import assert_trees_close, slow_but
from tests.model.examples import (
    POSITIONS,
    WRITTEN,
    batch_of,
    changed_model,
    random_params,
)


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
