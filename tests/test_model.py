import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arith_jax import attention, data, layers, model, vocab
from arith_jax.addition import Addition
from arith_jax.banded import Blocks
from arith_jax.experiment import Experiment
from arith_jax.model import Transformer, make_context
from arith_jax.multiplication import Multiplication
from arith_jax.sorting import Sorting
from configs.paper import addition
from tests.models import moved

SCHEMES = [
    (),
    ("abacus",),
    ("learned",),
    ("fire",),
    ("rope",),
    ("relative_abacus",),
    ("rotary_abacus",),
    ("abacus", "fire", "rope"),
]
VARIANTS = [
    {},
    {"norm": "post", "qk_norm": False, "head_mlp": True, "adapter": True},
    {"recurrences": 2, "injection": "recurrence", "initial_state": "noise"},
    {"injection": "layer", "init": "deepnorm"},
    {"positions": (), "abacus_far": "bias", "length_scale": True},
]

# The default run takes those that use the most code.
SCHEMES_SOME_SLOW = [
    scheme
    if scheme in ((), ("relative_abacus",), ("abacus", "fire", "rope"))
    else pytest.param(scheme, marks=pytest.mark.slow)
    for scheme in SCHEMES
]
VARIANTS_SOME_SLOW = [
    changes if changes == VARIANTS[2] else pytest.param(changes, marks=pytest.mark.slow)
    for changes in VARIANTS
]

init_params = jax.jit(model.init_params, static_argnums=0)
forward = jax.jit(
    model.forward, static_argnums=0, static_argnames=("num_trained", "train")
)


def with_positions(config, scheme):
    far = "mask" if "relative_abacus" in scheme else "bias"
    return dataclasses.replace(config, positions=scheme, abacus_far=far, table_size=64)


@functools.partial(jax.jit, static_argnums=(0, 1))
def example_batch(count=3, digits=4):
    task = Addition()
    rows = jnp.array([[0, digits, digits, i] for i in range(count)])
    width = task.row_width(digits, digits)
    return data.evaluation_batch(task, jax.random.key(5), rows, (digits, digits), width)


@pytest.mark.parametrize("scheme", SCHEMES_SOME_SLOW)
def test_model_is_causal_by_gradients(tiny, scheme):
    config = with_positions(tiny, scheme)
    params, batch = moved(init_params(config, jax.random.key(0))), example_batch(1)
    context = make_context(batch.positions)
    network = Transformer(config)
    emb = jax.random.normal(jax.random.key(2), (*batch.ids.shape, config.width))

    def logit_sum(emb, position):
        state, _ = network.apply({"params": params}, emb, emb, context, method="core")
        return network.apply({"params": params}, state, method="readout")[
            0, position
        ].sum()

    gradient_of = jax.jit(jax.grad(logit_sum))
    for position in (0, 5, batch.ids.shape[1] - 1):
        gradient = jnp.abs(gradient_of(emb, position)[0]).sum(axis=1)
        assert jnp.all(gradient[position + 1 :] == 0)
        assert gradient[position] > 0


def test_window_mask_cuts_far_digits_by_gradients(tiny):
    config = dataclasses.replace(tiny, layers=1, abacus_window=1)
    params, batch = moved(init_params(config, jax.random.key(0))), example_batch(1, 8)
    context = make_context(batch.positions)
    network = Transformer(config)
    emb = jax.random.normal(jax.random.key(2), (*batch.ids.shape, config.width))

    def logit_sum(emb):
        state, _ = network.apply({"params": params}, emb, emb, context, method="core")
        return network.apply({"params": params}, state, method="readout")[0, 22].sum()

    used = jnp.abs(jax.jit(jax.grad(logit_sum))(emb)[0]).sum(axis=1) > 0
    own = int(batch.positions[0, 22])
    assert own >= 4
    for index, position in enumerate(batch.positions[0, :23].tolist()):
        assert bool(used[index]) == (position == 0 or abs(position - own) <= 1)


WRITTEN = {
    "lines": (Multiplication(scratchpad=True), 2),
    "items": (Sorting(scratchpad=True), 3),
}


def written_row(scheme, size):
    """The first example of a task with written work, of one size, and its levels."""
    task, levels = WRITTEN[scheme]
    make = jax.jit(data.evaluation_batch, static_argnums=(0, 3, 4, 5))
    rows, width = jnp.array([[0, *size, 0]]), task.row_width(*size)
    batch = make(task, jax.random.key(0), rows, size, width, scheme)
    return batch, task.vocab.decode(np.asarray(batch.ids[0]).tolist()), levels


@pytest.mark.parametrize("scheme", WRITTEN)
def test_attention_without_content_is_the_bias_of_the_levels(tiny, scheme):
    """Queries and keys are zero, so what is left are biases and what is visible."""
    batch, _, levels = written_row(scheme, (3, 3))
    config = dataclasses.replace(
        tiny, layers=1, positions=(), abacus_far="bias", position_levels=levels
    )
    if scheme == "items":
        config = dataclasses.replace(config, vocab_size=118)
    params = moved(init_params(config, jax.random.key(0)))
    attention = params["layers"]["attention"]
    attention["qkv_kernel"] = jnp.zeros_like(attention["qkv_kernel"])
    ids, abacus = batch.ids, batch.positions
    found = model.attention_weights(config, params, ids, abacus)[0, 0, 0]
    rest = np.asarray(abacus[0]) // 2**15
    at = {"line": (rest, 1)}
    if levels == 3:
        at = {"line": (rest % 256, 1), "column": (rest // 256, 2)}
    logits, far = 0.0, np.zeros((len(rest), len(rest)), bool)
    for name, (own, window) in at.items():
        weight = np.asarray(attention[f"relative_{name}"]["bias"][0])
        assert len(weight) == 2 * window + 3
        edge, difference = window + 1, own[:, None] - own[None]
        clipped = np.clip(difference, -edge, edge) + edge
        logits = logits + 20 * weight[clipped].transpose(2, 0, 1)
        far |= (np.abs(difference) > window) & (own[None] > 0)
    if levels == 3:
        # Items see themselves, and are seen from everywhere else.
        line, column = at["line"][0], at["column"][0]
        alien = (column[:, None] == 0) & (line[:, None] != line[None])
        far = np.where(column[None] > 0, far, alien)
    logits = np.where(far | ~np.tri(len(rest), dtype=bool), -np.inf, logits)
    np.testing.assert_allclose(found, jax.nn.softmax(logits), atol=1e-5)


def test_written_lines_see_a_bounded_number_of_tokens(tiny):
    """The same for numbers of 6 and of 12 digits: what is learned carries over."""
    config, most = dataclasses.replace(tiny, position_levels=2, abacus_far="mask"), []
    for digits in (6, 12):
        batch, text, _ = written_row("lines", (digits, digits))
        context = make_context(batch.positions, levels=2)
        seen = attention.visible(config, context)[0] & (batch.ids != vocab.PAD)
        answer = np.flatnonzero(batch.mask[0]) - 1
        most.append(int(seen[answer].sum(axis=1).max()))
        # The middle of a line sees five digits of `a`, as many one line up, three of
        # `b`, its own last two and itself, the operator.
        query = text.index("=") + 2 * (digits + 2) + 4
        shown = "".join(
            s for s, v in zip(text, seen[query].tolist(), strict=False) if v
        )
        second = text.split("x")[1].split("=")[0]
        up = text[query - digits - 4 : query - digits + 1]
        own = text[query - 2 : query + 1]
        assert shown == text[1:6] + "x" + second[1:4] + up + own
    assert most[0] == most[1] <= 20


def test_lines_of_a_sorted_list_see_what_they_need(tiny):
    config = dataclasses.replace(
        tiny, position_levels=3, abacus_far="mask", abacus_window=1, vocab_size=118
    )
    task = Sorting(scratchpad=True)
    prompt = "A:0317,B:41,C:7102,D:98="
    text = prompt + task.truth(prompt)
    batch = data.as_batch(task, jnp.array([task.vocab.encode(text)]), scheme="items")
    context = make_context(batch.positions, levels=3)
    seen = np.asarray(attention.visible(config, context)[0])

    def shown(query):
        return "".join(s for s, v in zip(text, seen[query], strict=True) if v)

    assert text.endswith("=A,BA,BCA,BDCA")
    # A digit sees its own item; here the last one of C.
    assert shown(text.index("2,D")) == "C:02"
    # The third line compares C, whose fourth digit is the last, with A and B: every
    # key, the digits beside that place, the column of the line above, and its own.
    line = text.index(",BCA")
    assert shown(line + 1) == "A:17,B:,C:02,D:" + ",BA" + ",B"
    assert shown(line + 3) == "A:17,B:,C:02,D:" + "BA" + "BCA"


@pytest.mark.parametrize("scheme", [("relative_abacus",), ("rotary_abacus",), ()])
def test_what_compares_ids_is_unchanged_by_an_offset(tiny, scheme):
    config = dataclasses.replace(tiny, positions=scheme, abacus_far="mask")
    params, batch = moved(init_params(config, jax.random.key(0))), example_batch()
    shifted = jnp.where(batch.positions > 0, batch.positions + 70, 0)
    found = [forward(config, params, batch.ids, p) for p in (batch.positions, shifted)]
    assert jnp.array_equal(*found)


@pytest.mark.parametrize("changes", VARIANTS[:4])
def test_attention_weights_are_what_the_layers_use(tiny, changes):
    config = dataclasses.replace(tiny, **changes)
    params, batch = moved(init_params(config, jax.random.key(0))), example_batch()
    found = model.attention_weights(config, params, batch.ids, batch.positions)
    rows, width = batch.ids.shape
    shape = (config.recurrences, config.layers, rows, config.heads, width, width)
    assert found.shape == shape
    np.testing.assert_allclose(found.sum(-1), 1.0, atol=1e-5)
    hidden = ~attention.visible(config, make_context(batch.positions))
    assert jnp.all(jnp.where(hidden[None, None, :, None], found, 0.0) == 0)
    # The first layer's output, rebuilt from the weights and the values.
    context, network = make_context(batch.positions), Transformer(config)
    emb = network.apply({"params": params}, batch.ids, context, method="embed")
    key_state, _ = jax.random.split(jax.random.key(0))
    state = model.initial_state(config, emb, key_state)
    if config.injection != "none":
        state = state + emb
    own = jax.tree.map(lambda x: x[0], params["layers"])
    module = attention.Attention(config)
    before = state
    if config.norm == "sandwich":
        norm = layers.Norm(config)
        before = norm.apply({"params": own["attention_in_norm"]}, state)
    expected, _ = module.apply({"params": own["attention"]}, before, context, None)
    values = before @ own["attention"]["qkv_kernel"][:, 2]
    values = values.reshape(rows, width, config.heads, config.head_width)
    mixed = jnp.einsum("bhts,bshc->bthc", found[0, 0], values)
    rebuilt = mixed.reshape(rows, width, -1) @ own["attention"]["out"]["kernel"]
    np.testing.assert_allclose(rebuilt, expected, atol=2e-5)


@pytest.mark.parametrize("changes", VARIANTS_SOME_SLOW)
def test_scan_equals_a_python_loop_over_layers(tiny, changes):
    config = dataclasses.replace(tiny, **changes)
    params, batch = moved(init_params(config, jax.random.key(0))), example_batch()
    context = make_context(batch.positions)
    network, layer = Transformer(config), layers.Layer(config)

    def by_loop(params):
        run = lambda method, *args: network.apply(
            {"params": params}, *args, method=method
        )
        emb = run("embed", batch.ids, context)
        key_state, _ = jax.random.split(jax.random.key(0))
        state = model.initial_state(config, emb, key_state)
        for _ in range(config.recurrences):
            if config.injection == "recurrence":
                state = state + emb
            for index in range(config.layers):
                own = jax.tree.map(lambda x, i=index: x[i], params["layers"])
                state, _ = layer.apply({"params": own}, state, emb, context, None)
        return run("readout", state)

    assert_same_gradients(
        by_loop, lambda p: forward(config, p, batch.ids, batch.positions), params
    )


def assert_same_gradients(one, other, params):
    """That two functions of the parameters, and the gradients of both, are the same."""
    (value, gradient), (found, found_gradient) = (
        jax.jit(jax.value_and_grad(lambda p, f=f: jnp.sum(f(p) ** 2)))(params)
        for f in (one, other)
    )
    np.testing.assert_allclose(found, value, rtol=1e-5)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(
            x, y, atol=1e-4 * (1 + float(jnp.max(jnp.abs(y))))
        ),
        found_gradient,
        gradient,
    )


def test_unrolled_layers_and_recurrences_are_scanned_ones(tiny):
    config = dataclasses.replace(looped(tiny), layers=2)
    params, batch = moved(init_params(config, jax.random.key(0))), example_batch()

    def logits(unroll, params):
        changed = dataclasses.replace(config, unroll=unroll)
        return forward(changed, params, batch.ids, batch.positions)

    assert_same_gradients(
        *(functools.partial(logits, u) for u in (False, True)), params
    )


def looped(tiny, recurrences=4):
    return dataclasses.replace(
        tiny,
        recurrences=recurrences,
        max_backprop=2,
        injection="recurrence",
        initial_state="noise",
    )


@pytest.mark.parametrize(
    ("n", "k", "unroll"),
    [
        (0, 1, False),
        (2, 1, False),
        pytest.param(1, 2, False, marks=pytest.mark.slow),
        (3, 0, False),
        (2, 2, True),
        pytest.param(0, 2, True, marks=pytest.mark.slow),
        pytest.param(2, 0, True, marks=pytest.mark.slow),
    ],
)
def test_no_gradient_flows_through_the_first_recurrences(tiny, n, k, unroll):
    config = dataclasses.replace(looped(tiny), unroll=unroll)
    params, batch = moved(init_params(config, jax.random.key(0))), example_batch()
    context, network = make_context(batch.positions), Transformer(config)

    def by_stops(params):
        run = lambda p, method, *args: network.apply(
            {"params": p}, *args, method=method
        )
        emb = run(params, "embed", batch.ids, context)
        key_state, _ = jax.random.split(jax.random.key(0))
        state = model.initial_state(config, emb, key_state)
        for index in range(n + k):
            weights, injected = params, emb
            if index < n:
                state, weights, injected = jax.lax.stop_gradient((state, params, emb))
            state, _ = run(weights, "core", state, injected, context)
            if index < n:
                state = jax.lax.stop_gradient(state)
        return jnp.sum(run(params, "readout", state) ** 2)

    def by_forward(params, num_frozen):
        logits = forward(
            config,
            params,
            batch.ids,
            batch.positions,
            num_frozen=num_frozen,
            num_trained=k,
        )
        return jnp.sum(logits**2)

    value, gradient = jax.jit(jax.value_and_grad(by_stops))(params)
    found_value, found = jax.value_and_grad(by_forward)(params, jnp.asarray(n))
    np.testing.assert_allclose(found_value, value, rtol=1e-5)
    largest = max(float(jnp.max(jnp.abs(g))) for g in jax.tree.leaves(gradient))
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, atol=1e-4 * largest),
        found,
        gradient,
    )
    if k == 0:
        for leaf in jax.tree.leaves((found["layers"], found["token"])):
            assert jnp.all(leaf == 0)


def test_depth_of_frozen_recurrences_matters(tiny):
    config = looped(tiny)
    params, batch = moved(init_params(config, jax.random.key(0))), example_batch()
    logits = [
        forward(config, params, batch.ids, batch.positions, num_frozen=n, num_trained=1)
        for n in (0, 3)
    ]
    assert jnp.max(jnp.abs(logits[0] - logits[1])) > 1e-2


def test_relative_abacus_logits_are_unchanged_by_a_shift_of_all_ids(tiny):
    config = dataclasses.replace(tiny, abacus_far="bias")
    params, batch = moved(init_params(config, jax.random.key(0))), example_batch()
    plain, shifted = (
        forward(config, params, batch.ids, batch.positions + shift)
        for shift in (0, 100)
    )
    np.testing.assert_allclose(plain, shifted, atol=1e-5)


def test_abacus_table_is_unchanged_where_rows_move_to_equal_rows(tiny):
    config = with_positions(tiny, ("abacus",))
    params, batch = moved(init_params(config, jax.random.key(0))), example_batch()
    table = params["abacus"]["embedding"]
    shift = 30
    table = table.at[1 + shift : 20 + shift].set(table[1:20])
    params["abacus"]["embedding"] = table
    offset = jnp.where(batch.positions > 0, batch.positions + shift, 0)
    plain = forward(config, params, batch.ids, batch.positions)
    moved_rows = forward(config, params, batch.ids, offset)
    np.testing.assert_allclose(plain, moved_rows, atol=1e-6)
    other = params | {"abacus": {"embedding": table.at[1 + shift, 0].add(1.0)}}
    assert jnp.max(jnp.abs(forward(config, other, batch.ids, offset) - plain)) > 1e-3


@pytest.mark.parametrize("scheme", SCHEMES)
def test_permuting_the_batch_permutes_the_logits(tiny, scheme):
    config = with_positions(tiny, scheme)
    params, batch = moved(init_params(config, jax.random.key(0))), example_batch()
    order = jnp.array([2, 0, 1])
    plain = forward(config, params, batch.ids, batch.positions)
    permuted = forward(config, params, batch.ids[order], batch.positions[order])
    np.testing.assert_allclose(plain[order], permuted, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", SCHEMES)
def test_padding_on_the_right_changes_nothing(tiny, scheme):
    config = with_positions(tiny, scheme)
    params, batch = moved(init_params(config, jax.random.key(0))), example_batch()
    pad = lambda x: jnp.pad(x, ((0, 0), (0, 9)))
    plain = forward(config, params, batch.ids, batch.positions)
    padded = forward(config, params, pad(batch.ids), pad(batch.positions))
    np.testing.assert_allclose(plain, padded[:, : plain.shape[1]], atol=5e-5)


def test_key_noise_acts_in_training_only_and_by_key(tiny):
    config = dataclasses.replace(tiny, key_noise=3.0)
    params, batch = moved(init_params(config, jax.random.key(0))), example_batch()

    def run(seed, train):
        key = jax.random.key(seed)
        return forward(config, params, batch.ids, batch.positions, key=key, train=train)

    assert jnp.array_equal(run(1, False), run(2, False))
    assert jnp.array_equal(run(1, True), run(1, True))
    assert jnp.max(jnp.abs(run(1, True) - run(2, True))) > 1e-2
    assert jnp.max(jnp.abs(run(1, True) - run(1, False))) > 1e-2


def test_bfloat16_keeps_parameters_in_float32(tiny):
    config = dataclasses.replace(tiny, dtype="bfloat16")
    params, batch = init_params(config, jax.random.key(0)), example_batch()
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    full = forward(tiny, params, batch.ids, batch.positions)
    half = forward(config, params, batch.ids, batch.positions)
    assert half.dtype == jnp.float32
    assert 1e-5 < jnp.max(jnp.abs(full - half)) < 0.3


@pytest.mark.parametrize("changes", VARIANTS)
def test_parameters_are_arrays_and_layers_differ(tiny, changes):
    config = dataclasses.replace(tiny, **changes)
    params = init_params(config, jax.random.key(0))
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(params))
    kernel = params["layers"]["attention"]["qkv_kernel"]
    assert kernel.shape == (config.layers, config.width, 3, config.width)
    assert jnp.max(jnp.abs(kernel[0] - kernel[1])) > 0.1


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
    config = Experiment.from_dict(addition.get_config(argument).to_dict()).model
    shapes = jax.eval_shape(lambda: init_params(config, jax.random.key(0)))
    assert model.num_params(shapes) == count


def test_deepnorm_standard_deviations(tiny):
    config = dataclasses.replace(
        tiny, width=128, heads=2, mlp_width=256, init="deepnorm", layers=2
    )
    params = init_params(config, jax.random.key(0))
    gain = (8 * 2) ** -0.25
    qkv = params["layers"]["attention"]["qkv_kernel"]
    for index, expected in enumerate((1.0, 1.0, gain)):
        assert jnp.std(qkv[:, :, index]) == pytest.approx(
            expected * 128**-0.5, rel=0.03
        )
    w1 = params["layers"]["mlp"]["in"]["kernel"]
    assert jnp.std(w1) == pytest.approx(gain * (2 / 384) ** 0.5, rel=0.03)
    assert jnp.std(params["token"]["embedding"]) == pytest.approx(128**-0.5, rel=0.06)


BAD = [
    ({"width": 33}, r"model.width=33 is not a multiple of model.heads=2"),
    ({"injection": "often"}, r"model.injection='often' is unknown; allowed: none"),
    ({"norm": "pre"}, r"model.norm='pre' is unknown; allowed: post, sandwich"),
    ({"dtype": "float16"}, r"model.dtype='float16' is unknown"),
    ({"positions": ("alibi",)}, r"model.positions has 'alibi'; allowed: any of abacus"),
    ({"initial_state": "noise"}, r"never shows the input"),
    ({"max_backprop": 2}, r"model.max_backprop=2: must be between 1 and"),
    ({"layers": 0}, r"model.layers=0: must be at least 1"),
    ({"qkv_gain_quirk": True}, r"model.qkv_gain_quirk=True needs model.init="),
    ({"position_levels": 4}, r"model.position_levels=4: must be 1, or 2 for"),
    (
        {"position_levels": 2, "abacus_window": 7},
        r"abacus_window=7: at most 6 with .*2",
    ),
    (
        {"position_levels": 3, "abacus_window": 7},
        r"abacus_window=7: at most 6 with .*3",
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


@pytest.mark.parametrize("unroll", [True, False])
def test_noise_of_a_recurrence_is_its_own(tiny, unroll):
    """The same whether the ones before have a gradient; another than theirs."""
    config = dataclasses.replace(
        tiny, layers=1, recurrences=2, injection="recurrence", unroll=unroll
    )
    config = dataclasses.replace(config, key_noise=3.0, max_backprop=2)
    params, batch = moved(init_params(config, jax.random.key(0))), example_batch(2, 4)

    @functools.partial(jax.jit, static_argnums=(0, 1))
    def logits(config, split):
        return model.forward(
            config,
            params,
            batch.ids,
            batch.positions,
            num_frozen=split[0],
            num_trained=split[1],
            key=jax.random.key(1),
            train=True,
        )

    np.testing.assert_allclose(
        logits(config, (1, 1)), logits(config, (0, 2)), atol=1e-4
    )
    still = dataclasses.replace(config, key_noise=0.0)
    assert not np.allclose(logits(still, (0, 2)), logits(config, (0, 2)), atol=1e-2)


def test_ids_past_their_level_are_refused(tiny):
    config = dataclasses.replace(tiny, position_levels=2)
    config.check_table(longest_number=2**15 - 1, max_offset=0)
    with pytest.raises(ValueError, match=r"ids up to 32768: must be below 32768"):
        config.check_table(longest_number=2**15, max_offset=0)


def test_levels_are_for_whole_rows():
    ids = jnp.zeros((1, 4), int)
    for levels, changes in ((2, {"blocks": Blocks(32, 3)}), (3, {"lengths": ids})):
        with pytest.raises(ValueError, match="ids with levels are for whole rows"):
            make_context(ids, levels=levels, **changes)


def test_table_too_small_is_refused_and_the_needed_size_suffices(tiny):
    config = dataclasses.replace(with_positions(tiny, ("abacus",)), table_size=30)
    config.check_table(longest_number=21, max_offset=8)
    with pytest.raises(ValueError, match=r"model.table_size=30 is too small.*need 31"):
        config.check_table(longest_number=21, max_offset=9)
    params = init_params(config, jax.random.key(0))
    ids = jnp.full((1, 21), 5)
    used = jnp.arange(1, 22)[None] + 8
    assert jnp.all(jnp.isfinite(forward(config, params, ids, used)))
    assert not jnp.all(jnp.isfinite(forward(config, params, ids, used + 1)))
    learned = dataclasses.replace(with_positions(tiny, ("learned",)), table_size=30)
    with pytest.raises(ValueError, match=r"rows of 31 tokens need 31 learned"):
        learned.check_row(31)
