import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arith_jax import data, losses, model, reading, runlog
from arith_jax.model_config import ModelConfig
from configs import abacus_add, abacus_arithmetic, abacus_mul, abacus_sort
from configs.paper import addition, multiplication, sorting
from tests import models

MASK = jnp.array([[0, 1, 1, 0, 0, 1], [0, 0, 0, 0, 0, 1], [0, 0, 0, 0, 0, 0]], bool)

# Ways through the model: layers in turn and in a scan, looped, of another norm.
IN_TURN = {"model.unroll": True}
EXPERIMENTS = {
    "ours": (abacus_add, "smoke", IN_TURN),
    "packed": (abacus_add, "smoke", IN_TURN | {"data.problems_per_row": 4}),
    "scan": (abacus_add, "smoke", {"model.unroll": False}),
    "looped": (addition, "arch=1x16,pos=abacus,smoke", IN_TURN),
    "lines": (abacus_mul, "smoke", IN_TURN),
}
# Of every kind of row; None: nearly all tokens are read.
MOST_READ = {
    "addition": (abacus_add, "gpu", {}, 22),
    "packed": (abacus_add, "gpu", {"data.problems_per_row": 2}, 39),
    "of eight": (abacus_add, "gpu", {"data.problems_per_row": 8}, 137),
    "with the prompt": (addition, "arch=8x2,pos=abacus,prompt=on", {}, None),
    "blanks": (addition, "arch=8x2,pos=abacus,blanks=0.5", {}, 22),
    "multiplication": (multiplication, "arch=8x2,pos=abacus", {}, 31),
    "written multiplication": (abacus_mul, "gpu", {}, 80),
    "mixture": (abacus_arithmetic, "gpu", {}, 80),
    "sorting": (sorting, "arch=8x1,pos=abacus", {}, 20),
    "insertion sort": (abacus_sort, "gpu", {}, 65),
}


@pytest.mark.parametrize("function", [reading.take, reading.put_back])
def test_gathers_and_their_gradients_are_products_with_one_hot_places(function):
    read = reading.read_where(MASK, 3)
    assert read.places[0].tolist() == [1, 2, 5]
    assert read.rank.tolist()[:2] == [[-1, 0, 1, -1, -1, 2], [-1, -1, -1, -1, -1, 0]]
    is_back = function is reading.put_back
    x = jax.random.normal(jax.random.key(0), (3, 3 if is_back else 6, 2))
    one_hot = jax.nn.one_hot(read.rank, 3)
    formula = "bta,bad->btd" if is_back else "bta,btd->bad"
    # Of rows with fewer tokens than 3, the rest may be anything, and has no gradient.
    is_real = jnp.any(one_hot, axis=1)[..., None] | jnp.array(is_back)
    weights = jax.random.normal(jax.random.key(1), function(x, read).shape)
    weights *= 1 if is_back else is_real

    found, gradient = jax.value_and_grad(
        lambda x: jnp.sum(function(x, read) * weights)
    )(x)
    right, expected = jax.value_and_grad(
        lambda x: jnp.sum(jnp.einsum(formula, one_hot, x) * weights)
    )(x)
    np.testing.assert_allclose(found, right, rtol=1e-6)
    np.testing.assert_allclose(gradient, expected, rtol=1e-6)


@pytest.mark.parametrize("name", models.slow_but(EXPERIMENTS, ("packed", "scan")))
def test_loss_and_gradients_are_those_of_all_logits(name):
    experiment = models.experiment_of(*EXPERIMENTS[name])
    config, rows = experiment.model, experiment.data
    batch = data.training_batch(rows, jax.random.key(1), 0, 8)
    params = models.moved(model.init_params(config, jax.random.key(0)))
    most = int(jnp.max(jnp.sum(losses.targets(batch)[1], axis=1)))

    @partial(jax.jit, static_argnums=1)
    def step(params, most):
        def loss(params):
            return losses.progressive_loss(
                config, params, batch, jax.random.key(2), 1, 1, 0.5, most_read=most
            )

        return jax.value_and_grad(loss, has_aux=True)(params)

    (_, metrics), gradients = step(params, most)
    (_, expected), right = step(params, None)
    np.testing.assert_allclose(metrics, expected, rtol=1e-6)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, atol=2e-6), gradients, right
    )


@pytest.mark.parametrize("name", MOST_READ)
def test_no_row_has_more_to_predict_than_is_read(name):
    *config, expected = MOST_READ[name]
    rows = models.experiment_of(*config).data
    assert rows.most_read == expected
    draw = jax.jit(data.training_batch, static_argnums=(0, 3))
    batch = draw(rows, jax.random.key(0), 0, 512)
    counts = np.sum(losses.targets(batch)[1], axis=1)
    assert counts.max() <= rows.most_tokens[1]
    if rows.problems_per_row == 1:
        assert counts.max() > 0.8 * rows.most_tokens[1]


def test_what_is_left_out_is_not_computed(tiny):
    config: ModelConfig = dataclasses.replace(
        tiny, width=128, mlp_width=512, vocab_size=256, positions=(), unroll=True
    )
    params = jax.eval_shape(lambda: model.init_params(config, jax.random.key(0)))
    ids = jax.ShapeDtypeStruct((2, 128), jnp.int32)

    def loss(most, params, ids):
        mask = jnp.broadcast_to(jnp.arange(128) >= 100, ids.shape)
        read = None if most is None else reading.read_where(mask, most)
        logits = model.forward(config, params, ids, ids, read=read)
        return jnp.sum(jnp.where(mask[..., None], logits, 0) ** 2)

    def counted(most):
        compiled = jax.jit(jax.grad(partial(loss, most))).lower(params, ids).compile()
        return compiled.cost_analysis()["flops"] / 2

    ours = [runlog.flops_per_row(config, 128, 0, 1, most) for most in (None, 28)]
    saved = ours[0] - ours[1]
    assert saved > 0.2 * ours[0]
    assert counted(None) - counted(28) == pytest.approx(saved, rel=0.1)
