"""Experiments, parameters of models and of tests that several tests build."""

import dataclasses
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arith_jax.config.experiment import Experiment

ROOT = pathlib.Path(__file__).parent.parent
# Of processes that tests start: compilation is most of their time.
ENVIRONMENT = os.environ | {
    "JAX_PLATFORMS": "cpu",
    "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".jax_cache"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "true",
}


def experiment_of(module, argument, changes):
    """The experiment of a config module and its argument, with changes of its keys."""
    config = module.get_config(argument)
    with config.unlocked():
        config.update_from_flattened_dict(changes)
    return Experiment.from_dict(config)


def changed(experiment, **changes):
    """An experiment with other values, as in `optim__batch_size=32`."""
    sections = {}
    for key, value in changes.items():
        section, _, name = key.partition("__")
        sections.setdefault(section, {})[name] = value
    return dataclasses.replace(
        experiment,
        **{
            name: dataclasses.replace(getattr(experiment, name), **values)
            for name, values in sections.items()
        },
    )


def slow_but(names, fast):
    """Names as parameters of a test, slow but for those that are fast."""
    return [
        name if name in fast else pytest.param(name, marks=pytest.mark.slow)
        for name in names
    ]


def moved(params, by=0.1):
    """Parameters off their initial values, so that no part is silent."""
    return jax.tree.map(
        lambda x: x + by * jnp.cos(jnp.arange(x.size)).reshape(x.shape), params
    )


def assert_trees_close(trees, expected, tolerance):
    """That no leaf is off by more than a share of its tree's largest number.

    Float32 rounds in proportion to what is added up, so an absolute bound would mean
    something else for every tree, and could fail on another processor.
    """
    largest = max(float(np.max(np.abs(x))) for x in jax.tree.leaves(expected))
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=tolerance * largest),
        trees,
        expected,
    )


def assert_trees_equal(first, second):
    """That two trees are the same bit for bit."""
    assert jax.tree.structure(first) == jax.tree.structure(second)
    jax.tree.map(np.testing.assert_array_equal, first, second)
