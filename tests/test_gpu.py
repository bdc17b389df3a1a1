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

from arith_jax import compiling, data, losses, model_config
from arith_jax.model import forward, init_params
from configs import abacus_add
from configs.paper import addition
from tests import models

pytestmark = pytest.mark.skipif(
    model_config.compute_capability() < model_config.AMPERE,
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
        addition, "arch=16x1,pos=abacus,gpu", EIGHT | {"model.layers": 2}, 60
    ),
    "paper, FIRE": Case(
        addition, "arch=16x1,pos=fire,gpu", PACKED | {"model.layers": 2}, 60
    ),
    "paper, looped": Case(
        addition,
        "arch=1x16,pos=abacus,gpu",
        PACKED | {"model.recurrences": 4, "model.max_backprop": 2},
        60,
    ),
}


@pytest.fixture(autouse=True)
def usual_optimizations():
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


def variants(experiment):
    """The model in kernels, by plain operations, and in float32."""
    usual = experiment.model
    assert usual.uses_kernels
    plain = dataclasses.replace(usual, kernels=False)
    return usual, plain, dataclasses.replace(plain, dtype="float32")


def size(tree):
    """Euclidean norm of all numbers of a tree."""
    leaves = jax.tree.leaves(tree)
    return sum(np.sum(np.square(np.asarray(x, np.float64))) for x in leaves) ** 0.5


def run(function, *arguments):
    """What a function returns, compiled in little time."""
    lowered = jax.jit(function).lower(*arguments)
    return compiling.compiled(lowered, libraries=True, search=False)(*arguments)


def distance(found, right):
    """Norm of the difference; not below anything if a number is not finite."""
    return size(jax.tree.map(lambda x, y: np.asarray(x) - np.asarray(y), found, right))


def example(name):
    """The experiment of a case, and parameters of it."""
    *config, _ = CASES[name]
    experiment = models.experiment_of(*config)
    params = init_params(experiment.model, jax.random.key(0))
    return experiment, models.moved(params, by=0.02)


@pytest.mark.parametrize("name", CASES)
def test_gradients_in_kernels_are_as_good_as_by_plain_operations(name):
    experiment, params = example(name)
    batch = data.training_batch(experiment.data, jax.random.key(1), 0, SUMS)

    def loss(model, params):
        frozen = int(model.recurrences > 1)
        key = jax.random.key(2)
        return losses.progressive_loss(model, params, batch, key, frozen, 1, 1.0)[0]

    in_kernels, plain, exact = (
        run(jax.grad(partial(loss, model)), params) for model in variants(experiment)
    )
    assert distance(plain, exact) < 0.1 * size(exact)
    assert distance(in_kernels, exact) < 1.5 * distance(plain, exact)
    for own, usual, right in zip(
        *map(jax.tree.leaves, (in_kernels, plain, exact)), strict=True
    ):
        # Some have no gradient but by rounding.
        allowed = 3 * distance(usual, right) + 1e-4 * size(exact)
        assert distance(own, right) < allowed


@pytest.mark.parametrize("name", CASES)
def test_logits_of_long_rows_are_as_good_as_by_plain_operations(name):
    (experiment, params), digits = example(name), CASES[name].digits
    task = experiment.data.make_task()
    cells = np.zeros((ROWS, 4), np.int32)
    cells[:, 1:3], cells[:, 3] = digits, np.arange(ROWS)
    width = -(-task.row_width(digits, digits) // 64) * 64
    batch = data.evaluation_batch(
        task, jax.random.key(3), jnp.array(cells), (digits, digits), width
    )
    read = np.asarray(losses.targets(batch)[1])

    def logits(model):
        found = run(partial(forward, model), params, batch.ids, batch.positions)
        return np.asarray(found)[read]

    in_kernels, plain, exact = map(logits, variants(experiment))
    assert distance(plain, exact) < 0.1 * size(exact)
    assert distance(in_kernels, exact) < 1.5 * distance(plain, exact)
