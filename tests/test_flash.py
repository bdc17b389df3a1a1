import dataclasses
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arith_jax import data, flash, kernels, losses, model_config, positions, train
from arith_jax.flash_kernels import Rule, Tiling
from arith_jax.model import init_params
from arith_jax.model_config import ModelConfig
from configs import abacus_add
from configs.paper import addition
from tests import models

ROWS, TOKENS, HEADS, WIDTH, EDGE = 2, 70, 2, 16, 3

# What the model asks of the kernels; packed rows are compared with the plain path.
EXPERIMENTS = {
    "ours": (abacus_add, "smoke", {}),
    "ours, packed": (abacus_add, "smoke", {"data.problems_per_row": 2}),
    "ours, soft": (abacus_add, "smoke", {"model.abacus_far": "bias"}),
    "paper": (addition, "arch=1x16,pos=abacus,smoke", {}),
    "fire": (addition, "arch=16x1,pos=abacus+fire,smoke", {}),
    "fire, packed": (
        addition,
        "arch=16x1,pos=fire,smoke",
        {"data.problems_per_row": 2},
    ),
}


def example(seed=0):
    """Queries, keys and values; the problems and ids of rows; learned numbers."""
    keys = jax.random.split(jax.random.key(seed), 6)
    qkv = jax.random.normal(keys[0], (ROWS, TOKENS, 3, HEADS, WIDTH))
    # The second row ends in padding.
    lengths = jnp.array([[13, 40, 17], [33, 1, 30]])
    place = jax.random.randint(keys[1], (ROWS, TOKENS), 0, 8)
    factor = jax.random.uniform(keys[2], (HEADS,), minval=0.2)
    bias = jax.random.normal(keys[3], (HEADS, 2 * EDGE + 1))
    dense = jax.random.normal(keys[4], (ROWS, HEADS, TOKENS, TOKENS))
    d_out = jax.random.normal(keys[5], (ROWS, TOKENS, HEADS, WIDTH))
    return qkv, lengths, place, factor, bias, dense, d_out


def plain(rule, qkv, lengths, place, factor, bias, dense):
    """The same attention by the formula, with whole rows of logits."""
    q, k, v = (qkv[:, :, i] for i in range(3))
    if rule.normalise:
        size = lambda x: jnp.sqrt(jnp.mean(x * x, axis=-1, keepdims=True) + 1e-6)
        q, k = q / size(q), k / size(k)
    logits = jnp.einsum("bthc,bshc->bhts", q, k) * factor[None, :, None, None]
    difference = place[:, :, None] - place[:, None, :]
    if rule.edge:
        column = jnp.clip(difference, -EDGE, EDGE) + EDGE
        logits += jnp.moveaxis(bias[:, column], 0, 1)
    if rule.dense:
        logits += dense
    index = jnp.arange(TOKENS)
    seen = (index[:, None] >= index[None])[None]
    if rule.packed:
        start = positions.problem_starts(lengths, TOKENS)
        seen = seen & (start[:, :, None] == start[:, None, :])
    if rule.window is not None:
        is_far = (jnp.abs(difference) > rule.window) & (place > 0)[:, None, :]
        seen = seen & ~is_far
    weights = jax.nn.softmax(jnp.where(seen[:, None], logits, -1e9), axis=-1)
    return jnp.einsum("bhts,bshc->bthc", weights, v)


@pytest.mark.parametrize(
    "rule",
    [
        Rule(edge=EDGE, window=2, normalise=True, packed=True),
        Rule(edge=0, window=None, normalise=False, dense=True, packed=True),
        pytest.param(Rule(EDGE, 2, True), marks=pytest.mark.slow),
        pytest.param(Rule(0, None, False), marks=pytest.mark.slow),
        pytest.param(Rule(EDGE, None, True, True), marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_output_and_gradients_are_those_of_the_formula(rule):
    # More than two blocks, the last of which ends past the row.
    qkv, lengths, place, factor, bias, dense, d_out = example()
    bounds = flash.bounds(lengths, TOKENS) if rule.packed else None

    def by_kernel(qkv, factor, bias, dense):
        table = flash.make_table(factor, bias if rule.edge else None, HEADS)
        pairs = dense if rule.dense else None
        out = flash.attend(rule, qkv, place, table, bounds, pairs)
        return jnp.sum(out * d_out)

    def by_formula(qkv, factor, bias, dense):
        return jnp.sum(plain(rule, qkv, lengths, place, factor, bias, dense) * d_out)

    numbers = (0, 1, 2, 3) if rule.normalise else (0, 2, 3)
    arguments = (qkv, factor, bias, dense)
    value, found = jax.jit(jax.value_and_grad(by_kernel, numbers))(*arguments)
    right, expected = jax.jit(jax.value_and_grad(by_formula, numbers))(*arguments)
    np.testing.assert_allclose(value, right, rtol=1e-5)
    for own, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(own, other, rtol=1e-5, atol=5e-5)


@pytest.mark.parametrize(("short", "many"), [(0, 10**6), (128, 1), (128, 10)])
def test_the_tiling_changes_nothing(short, many, monkeypatch):
    qkv, _, place, factor, bias, _, d_out = example()
    rule, table = Rule(EDGE, 2, True), flash.make_table(factor, bias, HEADS)

    def loss(qkv, table):
        out = flash.attend(rule, qkv, place, table)
        return jnp.sum(out * d_out)

    expected = jax.jit(jax.grad(loss, (0, 1)))(qkv, table)
    tilings = lambda: [
        flash.make_tiling(rule, ROWS, HEADS, TOKENS, way) for way in (True, False)
    ]
    usual = tilings()
    monkeypatch.setattr(flash, "SHORT", short)
    monkeypatch.setattr(flash, "MANY", many)
    assert usual != tilings()
    found = jax.jit(jax.grad(lambda *args: loss(*args), (0, 1)))(qkv, table)
    for own, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(own, other, rtol=1e-5, atol=2e-5)


def test_the_blocks_of_packed_rows_change_nothing(monkeypatch):
    qkv, lengths, place, factor, bias, _, d_out = example()
    table, bounds = flash.make_table(factor, bias, HEADS), flash.bounds(lengths, TOKENS)
    rule = Rule(EDGE, 2, True, packed=True)

    def loss(qkv, table):
        return jnp.sum(flash.attend(rule, qkv, place, table, bounds) * d_out)

    expected = jax.jit(jax.grad(loss, (0, 1)))(qkv, table)
    other = 48 - flash.PACKED.block  # 16 or 32
    monkeypatch.setattr(flash, "PACKED", Tiling(block=other))
    found = jax.jit(jax.grad(lambda *args: loss(*args), (0, 1)))(qkv, table)
    for own, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(own, other, atol=2e-5)


def test_a_bias_shared_by_all_rows_gets_the_sum_of_their_gradients():
    qkv, _, place, factor, _, dense, d_out = example()
    rule, table = Rule(0, None, False, True), flash.make_table(factor, None, HEADS)

    def loss(bias):
        out = flash.attend(rule, qkv, place, table, None, bias)
        return jnp.sum(out * d_out)

    shared = dense[:1]
    found = jax.jit(jax.grad(loss))(shared)
    for_each = jax.jit(jax.grad(loss))(jnp.repeat(shared, ROWS, axis=0))
    np.testing.assert_allclose(found, for_each.sum(axis=0, keepdims=True), atol=1e-5)


def test_no_more_biases_than_columns():
    with pytest.raises(ValueError, match=r"edge=8: must be between 0 and 7"):
        Rule(edge=8, window=None, normalise=False)
    assert Rule(edge=3, window=None, normalise=False).biases == list(range(7))
    assert Rule(edge=3, window=3, normalise=False).biases == list(range(7))
    # Whose id is more than two above the query's is hidden.
    assert Rule(edge=3, window=2, normalise=False).biases == list(range(1, 7))
    assert Rule(edge=0, window=2, normalise=False).biases == []
    assert flash.fits(64, 6)
    assert not flash.fits(64, 7)
    assert not flash.fits(24, 2)
    assert not flash.fits(8, 2)


@pytest.mark.parametrize("name", models.slow_but(EXPERIMENTS, ("ours, packed", "fire")))
def test_a_model_in_kernels_has_the_same_loss_and_gradients(name, monkeypatch):
    experiment = models.experiment_of(*EXPERIMENTS[name])
    model, batch = (
        experiment.model,
        data.training_batch(experiment.data, jax.random.key(1), 0, 8),
    )
    params = models.moved(init_params(model, jax.random.key(0)))

    def loss(params):
        return losses.progressive_loss(
            model, params, batch, jax.random.key(2), 1, 1, alpha=1.0
        )[0]

    called = []
    attend = flash.attend
    monkeypatch.setattr(
        flash, "attend", lambda *args: called.append(args) or attend(*args)
    )
    right, expected = jax.jit(jax.value_and_grad(loss))(params)
    assert not called
    monkeypatch.setattr(ModelConfig, "uses_kernels", True)
    value, found = jax.jit(jax.value_and_grad(lambda p: loss(p)))(params)
    assert called
    np.testing.assert_allclose(value, right, rtol=1e-5)
    scale = max(float(jnp.max(jnp.abs(x))) for x in jax.tree.leaves(expected))
    for own, other in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        np.testing.assert_allclose(own, other, atol=2e-5 * scale)


@pytest.mark.parametrize(
    "changes",
    [
        {"positions": ("rope",)},
        {"positions": ("rotary_abacus",)},
        {"length_scale": True},
        {"key_noise": 1.0},
        {"heads": 4},
        {"abacus_window": 7},
    ],
    ids=str,
)
def test_what_the_kernels_cannot_do_is_done_without(changes, monkeypatch):
    experiment = models.experiment_of(*EXPERIMENTS["ours"])
    model = dataclasses.replace(experiment.model, **changes)
    batch = data.training_batch(experiment.data, jax.random.key(1), 0, 2)
    params = jax.eval_shape(lambda: init_params(model, jax.random.key(0)))

    def loss(params):
        return losses.progressive_loss(
            model, params, batch, jax.random.key(2), 0, 1, alpha=1.0
        )[0]

    monkeypatch.setattr(ModelConfig, "uses_kernels", True)
    monkeypatch.setattr(flash, "attend", None)
    assert jax.eval_shape(loss, params).shape == ()


def test_kernels_are_for_bfloat16_on_a_recent_gpu(tiny, monkeypatch):
    tiny = dataclasses.replace(tiny, kernels=True)
    half = dataclasses.replace(tiny, dtype="bfloat16")
    assert not half.uses_kernels
    gpu = SimpleNamespace(compute_capability="8.0")
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax, "local_devices", lambda: [gpu])
    assert half.uses_kernels
    assert not tiny.uses_kernels
    assert not dataclasses.replace(half, kernels=False).uses_kernels
    with monkeypatch.context() as later_jax:
        later_jax.setattr(kernels, "triton", None)
        assert not half.uses_kernels
    for other in ("7.5", "gfx942"):
        gpu.compute_capability = other
        assert not half.uses_kernels


@pytest.mark.parametrize("name", ["ours, packed", "fire, packed"])
def test_the_train_step_can_be_lowered_for_a_gpu(name, monkeypatch):
    # Triton knows fewer operations than the interpreter. No GPU is needed for this.
    experiment = models.experiment_of(*EXPERIMENTS[name])
    model = dataclasses.replace(experiment.model, dtype="bfloat16", kernels=True)
    configs = (model, *experiment.train_configs[1:])
    make = lambda: train.make_state(model, experiment.optim, 0)
    state = jax.eval_shape(make)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(model_config, "compute_capability", lambda: 9.0)
    step = jax.jit(partial(train.train_step, configs, 1))
    traced = step.trace(state, np.int32(0), np.float32(0), np.int32(0))
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    for module in ("flash_kernels", "norms", "gate"):
        for kernel in ("forward_kernel", "backward_kernel"):
            assert f"{module}_{kernel}" in text
    assert "xla.gpu.triton" in text
