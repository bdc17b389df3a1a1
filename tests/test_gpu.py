"""The kernels as a GPU runs them; elsewhere the other tests interpret them.

JAX_PLATFORMS=cuda pytest tests/test_gpu.py
"""

import dataclasses
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arith_jax.config.data import round_up
from arith_jax.data.batch import evaluation_batch, training_batch
from arith_jax.kernels.compile import compiled
from arith_jax.kernels.dispatch import obstacle
from arith_jax.model.execution import resolve
from arith_jax.model.forward import forward
from arith_jax.model.transformer import Transformer, init_params
from arith_jax.tasks.task import Layout
from arith_jax.training.losses import Depth, progressive_loss
from configs import abacus_add
from configs.paper import addition
from tests.helpers import assert_trees_equal, experiment_of, moved
from tests.training import test_loop

pytestmark = pytest.mark.skipif(
    obstacle("bfloat16") != "",
    reason="needs an NVIDIA GPU, Ampere or later, and JAX_PLATFORMS=cuda",
)
SUMS, ROWS = 1024, 64  # in training, where programs share rows, and in evaluation
PACKED = {"data.problems_per_row": 2, "data.width_multiple": 16}
EIGHT = PACKED | {"data.problems_per_row": 8}


class Case(NamedTuple):
    """A config, what is changed in it, and how many digits rows of evaluation have."""

    module: object
    argument: str
    changes: dict
    digits: int


CASES = {
    "flagship": Case(abacus_add, "gpu", {}, 100),
    "flagship, packed": Case(abacus_add, "gpu", PACKED, 20),
    "paper": Case(
        addition, "arch=16x1,pos=abacus,gpu", EIGHT | {"model.num_layers": 2}, 60
    ),
    "paper, FIRE": Case(
        addition, "arch=16x1,pos=fire,gpu", PACKED | {"model.num_layers": 2}, 60
    ),
    "paper, looped": Case(
        addition,
        "arch=1x16,pos=abacus,gpu",
        PACKED | {"model.num_recurrences": 4, "loss.max_backprop": 2},
        60,
    ),
}


@pytest.fixture(autouse=True)
def usual_optimizations():
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


def example(name):
    """The experiment of a case, and parameters of it."""
    *config, _ = CASES[name]
    experiment = experiment_of(*config)
    params = init_params(Transformer(experiment.model), jax.random.key(0))
    return experiment, moved(params, by=0.02)


def models(experiment):
    """The model in kernels, by plain operations, and in float32."""
    usual, missing = resolve(experiment.execution)
    assert usual.kernels, missing
    plain = dataclasses.replace(usual, kernels=False)
    exact = dataclasses.replace(plain, dtype="float32")
    return [Transformer(experiment.model, how) for how in (usual, plain, exact)]


def size(tree):
    """Euclidean norm of all numbers of a tree."""
    leaves = jax.tree.leaves(tree)
    return sum(np.sum(np.square(np.asarray(x, np.float64))) for x in leaves) ** 0.5


def run(function, *arguments):
    """What a function returns, compiled in little time."""
    lowered = jax.jit(function).lower(*arguments)
    return compiled(lowered, triton_gemm=False, autotune=False)(*arguments)


def distance(tree, exact):
    """Norm of the difference; not below anything if a number is not finite."""
    return size(jax.tree.map(lambda x, y: np.asarray(x) - np.asarray(y), tree, exact))


@pytest.mark.parametrize("name", CASES)
def test_gradients_in_kernels_are_as_good_as_by_plain_operations(name):
    experiment, params = example(name)
    batch = training_batch(experiment.data, jax.random.key(1), 0, SUMS)
    depth = Depth(int(experiment.model.num_recurrences > 1), 1)

    def loss(model, params):
        key = jax.random.key(2)
        return progressive_loss(model, params, batch, key, depth=depth)[0]

    in_kernels, plain, exact = (
        run(jax.grad(partial(loss, model)), params) for model in models(experiment)
    )
    assert distance(plain, exact) < 0.1 * size(exact)
    assert distance(in_kernels, exact) < 1.5 * distance(plain, exact)
    for ours, usual, right in zip(
        *map(jax.tree.leaves, (in_kernels, plain, exact)), strict=True
    ):
        # Some have no gradient but by rounding.
        allowed = 3 * distance(usual, right) + 1e-4 * size(exact)
        assert distance(ours, right) < allowed


@pytest.mark.parametrize("name", CASES)
def test_logits_of_long_rows_are_as_good_as_by_plain_operations(name):
    (experiment, params), digits = example(name), CASES[name].digits
    task, cell = experiment.data.task, (digits, digits)
    rows = np.zeros((ROWS, 4), np.int32)
    rows[:, 1:3], rows[:, 3] = digits, np.arange(ROWS)
    layout = Layout(cell, round_up(task.row_width(*cell), 64))
    key, scheme = jax.random.key(3), experiment.data.scheme
    batch = evaluation_batch(task, key, jnp.array(rows), layout, scheme)
    mask = np.asarray(batch.mask)

    def logits(model):
        whole_rows = partial(forward, model, num_segments=1)
        return np.asarray(run(whole_rows, params, batch.ids, batch.positions))[mask]

    in_kernels, plain, exact = map(logits, models(experiment))
    assert distance(plain, exact) < 0.1 * size(exact)
    assert distance(in_kernels, exact) < 1.5 * distance(plain, exact)


@pytest.mark.parametrize("name", ["flagship", "paper", "paper, FIRE"])
def test_a_deterministic_run_gives_the_same_bits_again(name):
    module, argument, changes, _ = CASES[name]
    changes = changes | {
        "deterministic": True,
        "train.steps": 20,
        "train.minutes": 0.0,
        "optim.batch_size": SUMS,
        "optim.micro_batch_size": SUMS,
    }
    experiment = experiment_of(module, argument, changes)
    first, second = (test_loop.run(experiment)[0].params for _ in range(2))
    assert_trees_equal(first, second)
