import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arith_jax.config.experiment import Experiment
from arith_jax.config.model import Execution, McLeishConfig
from arith_jax.model import attention, pieces
from arith_jax.model.context import make_context, visible
from arith_jax.model.forward import attention_weights, initial_state, layer_params
from arith_jax.model.forward import forward as run_forward
from arith_jax.model.layers import Norm, make_layer
from arith_jax.model.transformer import Transformer, init_params, num_params
from configs.paper import addition
from tests.helpers import assert_trees_close, slow_but
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
