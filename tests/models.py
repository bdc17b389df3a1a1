"""Experiments, parameters of models and of tests that several tests build."""

import jax
import jax.numpy as jnp
import pytest

from arith_jax.experiment import Experiment


def experiment_of(module, argument, changes):
    """The experiment of a config module and its argument, with changes of its keys."""
    config = module.get_config(argument)
    with config.unlocked():
        config.update_from_flattened_dict(changes)
    return Experiment.from_dict(config.to_dict())


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
