from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arith_jax.config.model import Execution
from arith_jax.config.training import LossConfig
from arith_jax.data.batch import max_targets, max_tokens, training_batch
from arith_jax.model import gather
from arith_jax.model.execution import resolve
from arith_jax.model.flops import flops_per_row
from arith_jax.model.forward import forward
from arith_jax.model.transformer import Transformer
from arith_jax.training.losses import Depth, progressive_loss
from configs import abacus_add, abacus_arithmetic, abacus_mul, abacus_sort
from configs.paper import addition, multiplication, sorting
from tests.helpers import assert_trees_close, experiment_of, slow_but
from tests.model.examples import POSITIONS, changed_model, random_params

MASK = jnp.array([[0, 1, 1, 0, 0, 1], [0, 0, 0, 0, 0, 1], [0, 0, 0, 0, 0, 0]], bool)

# Ways through the model: layers in turn and in a scan, looped, of another norm.
IN_TURN = {"execution.unroll": True}
EXPERIMENTS = {
    "ours": (abacus_add, "smoke", IN_TURN),
    "packed": (abacus_add, "smoke", IN_TURN | {"data.problems_per_row": 4}),
    "scan": (abacus_add, "smoke", {"execution.unroll": False}),
    "looped": (addition, "arch=1x16,pos=abacus,smoke", IN_TURN),
    "lines": (abacus_mul, "smoke", IN_TURN),
}
# Targets of every kind of row; None: nearly all tokens are predicted.
MAX_TARGETS = {
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
FAST = ("addition", "of eight", "with the prompt", "mixture", "insertion sort")


@pytest.mark.parametrize("function", [gather.gather_targets, gather.scatter_targets])
def test_gathers_and_their_gradients_are_products_with_one_hot_places(function):
    targets = gather.index_targets(MASK, 3)
    assert targets.places[0].tolist() == [1, 2, 5]
    assert targets.rank.tolist() == [[-1, 0, 1, -1, -1, 2], [-1] * 5 + [0], [-1] * 6]
    is_back = function is gather.scatter_targets
    rng = np.random.default_rng(0)
    x = jnp.array(rng.standard_normal((3, 3 if is_back else 6, 2)), jnp.float32)
    one_hot = jax.nn.one_hot(targets.rank, 3)
    formula = "bta,bad->btd" if is_back else "bta,btd->bad"
    # Of rows with fewer targets than 3, the rest may be anything, and has no gradient.
    is_real = jnp.any(one_hot, axis=1)[..., None] | jnp.array(is_back)
    weights = rng.standard_normal((3, 6 if is_back else 3, 2))
    weights = jnp.array(weights, jnp.float32) * (1 if is_back else is_real)

    def weighed(function):
        loss = lambda x: jnp.sum(function(x) * weights)
        return jax.jit(jax.value_and_grad(loss))(x)

    actual, gradient = weighed(lambda x: function(x, targets))
    expected, right = weighed(lambda x: jnp.einsum(formula, one_hot, x))
    assert_trees_close(actual, expected, 1e-6)
    assert_trees_close(gradient, right, 1e-6)


@pytest.mark.parametrize("name", slow_but(EXPERIMENTS, ("packed",)))
def test_loss_and_gradients_are_those_of_all_logits(name):
    experiment = experiment_of(*EXPERIMENTS[name])
    model = Transformer(experiment.model, resolve(experiment.execution)[0])
    assert model.execution.unroll == (name != "scan")
    draw = jax.jit(training_batch, static_argnums=(0, 3))
    batch = draw(experiment.data, jax.random.key(1), 0, 8)
    params = random_params(model)
    count = int(jnp.max(jnp.sum(batch.mask, axis=1)))
    assert count < batch.ids.shape[1]

    @partial(jax.jit, static_argnums=1)
    def step(params, max_targets):
        def loss(params):
            return progressive_loss(
                model,
                params,
                batch,
                jax.random.key(2),
                depth=Depth(1, 1),
                config=LossConfig(alpha=0.5),
                max_targets=max_targets,
            )

        return jax.value_and_grad(loss, has_aux=True)(params)

    (_, metrics), gradients = step(params, count)
    (_, expected), right = step(params, None)
    assert_trees_close(metrics, expected, 1e-6)
    assert_trees_close(gradients, right, 1e-5)


@pytest.mark.parametrize("name", slow_but(MAX_TARGETS, FAST))
def test_no_row_has_more_targets_than_are_counted_on(name):
    *config, expected = MAX_TARGETS[name]
    data = experiment_of(*config).data
    assert max_targets(data) == expected
    draw = jax.jit(training_batch, static_argnums=(0, 3))
    batch = draw(data, jax.random.key(0), 0, 512)
    counts = np.sum(batch.mask, axis=1)
    bound = max_tokens(data)[1]
    assert counts.max() <= bound
    if data.problems_per_row == 1:
        assert counts.max() > 0.8 * bound


def test_what_is_left_out_is_not_computed(tiny):
    changes = {"width": 128, "mlp_width": 512, "vocab_size": 256} | POSITIONS["nope"]
    model = changed_model(tiny, changes, execution=Execution(unroll=True))
    params = jax.eval_shape(lambda: random_params(model))
    ids = jax.ShapeDtypeStruct((2, 128), jnp.int32)
    num_targets = 28

    def loss(is_gathered, params, ids):
        mask = jnp.broadcast_to(jnp.arange(128) >= 128 - num_targets, ids.shape)
        targets = gather.index_targets(mask, num_targets) if is_gathered else None
        logits = forward(model, params, ids, ids, num_segments=1, targets=targets)
        return jnp.sum(jnp.where(mask[..., None], logits, 0) ** 2)

    def counted(is_gathered):
        gradient = jax.jit(jax.grad(partial(loss, is_gathered)))
        compiled = gradient.lower(params, ids).compile()
        return compiled.cost_analysis()["flops"] / ids.shape[0]

    whole, gathered = (
        flops_per_row(model.config, 128, num_trained=1, num_targets=count)
        for count in (None, num_targets)
    )
    assert whole - gathered > 0.2 * whole
    assert counted(False) - counted(True) == pytest.approx(whole - gathered, rel=0.1)
