"""Experiments and parameters that several tests build."""

import jax
import jax.numpy as jnp

from arith_jax.experiment import Experiment


def experiment_of(module, argument, changes):
    """The experiment of a config module and its argument, with changes of its keys."""
    config = module.get_config(argument)
    with config.unlocked():
        config.update_from_flattened_dict(changes)
    return Experiment.from_dict(config.to_dict())


def moved(params, by=0.1):
    """Parameters off their initial values, so that no part is silent."""
    return jax.tree.map(
        lambda x: x + by * jnp.cos(jnp.arange(x.size)).reshape(x.shape), params
    )
