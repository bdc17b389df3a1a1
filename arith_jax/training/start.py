"""Training that begins with given weights."""

import json
import pathlib

import jax
import jax.numpy as jnp

from arith_jax.config.experiment import Experiment
from arith_jax.training.checkpoint import evaluated_weights
from arith_jax.training.state import TrainState


def begin_from(
    experiment: Experiment, folder: pathlib.Path, state: TrainState
) -> TrainState:
    """A fresh state with the weights of another run, of every seed the same.

    Args:
        experiment: What is to be trained.
        folder: Workdir of a run, or a released folder.
        state: Fresh; says where arrays are placed.

    Raises:
        ValueError: If there are no such weights, or they do not fit the model.
    """
    key = f"train.init_from={folder}"
    try:
        config = json.loads((folder / "config.json").read_text())
        source = Experiment.from_dict(config)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{key}: no valid config.json in it; name the workdir of a run or a "
            "released folder"
        ) from error
    if source.num_seeds > 1:
        raise ValueError(f"{key} is a run of several seeds; name the folder of one")
    if source.model != experiment.model:
        raise ValueError(
            f"{key} has another model; use the same section `model`, task and "
            "position_ids"
        )
    weights, _, _ = evaluated_weights(source, folder)
    several = experiment.num_seeds > 1

    def place(new: jax.Array, old: jax.Array) -> jax.Array:
        array = jnp.broadcast_to(new, old.shape) if several else new
        return jax.device_put(array, old.sharding)

    params = jax.tree.map(place, weights, state.params)
    ema = None if state.ema is None else jax.tree.map(jnp.copy, params)
    return state.replace(params=params, ema=ema)
