"""The state of a run, and what an update does to it."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from arith_jax.config.experiment import Experiment
from arith_jax.config.training import OptimConfig
from arith_jax.model.transformer import Transformer, init_params
from arith_jax.training import optim
from arith_jax.training.optim import Schedule


class Accumulation(struct.PyTreeNode):
    """Gradients gathered so far for one update of several micro-batches.

    The fields are untyped, here and below: JAX also builds these with placeholders.

    Attributes:
        gradients: Sum over micro-batches, each divided by `wanted`.
        count: Micro-batches gathered.
        wanted: Micro-batches of this update.
    """

    gradients: Any
    count: Any
    wanted: Any


class TrainState(struct.PyTreeNode):
    """Everything a run needs to go on.

    The data need no state: `(seed, step)` decides every batch.

    Attributes:
        step: Micro-batches so far.
        updates: Updates so far.
        params: Parameters.
        opt_state: Of the optimizer.
        ema: Moving average of the parameters; None: there is none.
        accumulation: None: every micro-batch is an update.
    """

    step: Any
    updates: Any
    params: Any
    opt_state: Any
    ema: Any
    accumulation: Any

    @property
    def evaluated_params(self) -> Any:
        """The moving average if there is one."""
        return self.params if self.ema is None else self.ema


def make_state(experiment: Experiment) -> TrainState:
    """Fresh state of a run."""
    model = Transformer(experiment.model, experiment.execution)
    key = jax.random.key(experiment.seed)
    return state_from(experiment.optim, init_params(model, key))


def state_from(config: OptimConfig, params: Any) -> TrainState:
    """State before the first step of training the given parameters."""
    zero = jnp.zeros((), jnp.int32)
    accumulation = None
    if config.max_micro_batches > 1:
        zeros = jax.tree.map(jnp.zeros_like, params)
        accumulation = Accumulation(zeros, jnp.copy(zero), jnp.copy(zero))
    # Copies: donated buffers must not appear twice.
    return TrainState(
        step=zero,
        updates=jnp.copy(zero),
        params=params,
        opt_state=optim.make_optimizer(config).init(params),
        ema=jax.tree.map(jnp.copy, params) if config.ema_decay > 0 else None,
        accumulation=accumulation,
    )


def apply_gradients(
    config: OptimConfig, state: TrainState, gradients: Any, schedule: Schedule
) -> TrainState:
    """One optimizer update, and the moving average after it."""
    updates, opt_state = optim.make_optimizer(config).update(
        gradients, state.opt_state, state.params
    )
    updates = jax.tree.map(lambda u: schedule.multiplier * u, updates)
    params = optax.apply_updates(state.params, updates)
    ema = state.ema
    if ema is not None:
        ema = optim.ema_update(config, ema, params, state.updates)
    return state.replace(
        params=params, opt_state=opt_state, ema=ema, updates=state.updates + 1
    )


def accumulate_gradients(
    config: OptimConfig, state: TrainState, gradients: Any, schedule: Schedule
) -> TrainState:
    """Adds a micro-batch, and updates once enough are gathered.

    Each micro-batch counts 1 / wanted, as the original divides its losses. The number
    is set when an update begins, from the budget used up by then.
    """
    gathered = state.accumulation
    begins = gathered.count == 0
    wanted = jnp.where(begins, schedule.num_micro_batches, gathered.wanted)
    total = jax.tree.map(lambda s, g: s + g / wanted, gathered.gradients, gradients)
    count = gathered.count + 1

    def update(state: TrainState) -> TrainState:
        state = apply_gradients(config, state, total, schedule)
        zeros = jax.tree.map(jnp.zeros_like, total)
        return state.replace(
            accumulation=Accumulation(zeros, jnp.zeros_like(count), wanted)
        )

    def wait(state: TrainState) -> TrainState:
        return state.replace(accumulation=Accumulation(total, count, wanted))

    return jax.lax.cond(count >= wanted, update, wait, state)
