"""The state of a run, and what an update does to it."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Int

from arith_jax.config.experiment import Experiment
from arith_jax.config.training import OptimConfig
from arith_jax.devices import ROWS, by_seed, make_mesh, whole
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
        num_skipped: Updates left out, of each seed; None: they never are.
    """

    step: Any
    updates: Any
    params: Any
    opt_state: Any
    ema: Any
    accumulation: Any
    num_skipped: Any = None

    @property
    def evaluated_params(self) -> Any:
        """The moving average if there is one."""
        return self.params if self.ema is None else self.ema


def make_state(experiment: Experiment) -> TrainState:
    """Fresh state of a run, on its devices.

    With several seeds, that of each is a part of it (`seed_axes`).

    Raises:
        ValueError: If the devices cannot share the rows of a step evenly.
    """
    mesh = training_mesh(experiment)
    state = fresh_state(experiment)
    return jax.device_put(state, state_shardings(experiment, mesh, state))


@partial(jax.jit, static_argnums=0)
def fresh_state(experiment: Experiment) -> TrainState:
    """Fresh state of a run: one program, where each operation would be compiled."""
    model = Transformer(experiment.model, experiment.execution)

    def state_of(seed: Int[Array, ""] | int) -> TrainState:
        params = init_params(model, jax.random.key(seed))
        return started(experiment, state_from(experiment.optim, params))

    if experiment.num_seeds == 1:
        return state_of(experiment.seed)
    axes = seed_axes(jax.eval_shape(state_of, 0))
    return jax.vmap(state_of, out_axes=axes)(jnp.array(experiment.seeds))


def started(experiment: Experiment, state: TrainState) -> TrainState:
    """The state with a counter of skipped updates, if the experiment wants one."""
    if not experiment.train.skip_nonfinite:
        return state
    return state.replace(num_skipped=jnp.zeros((), jnp.int32))


def training_mesh(experiment: Experiment) -> Mesh:
    """The devices of a run, which split its seeds and the rows of its batches.

    Raises:
        ValueError: If the rows of a step cannot be split evenly.
    """
    mesh = make_mesh(experiment.num_seeds)
    size, problems = experiment.optim.micro_batch_size, experiment.data.problems_per_row
    num_rows, num_parts = size // problems, mesh.shape[ROWS]
    if num_rows % num_parts:
        raise ValueError(
            f"optim.micro_batch_size={size} with data.problems_per_row={problems} "
            f"makes {num_rows} rows, which {num_parts} devices cannot share evenly; "
            "change one of them, or show fewer devices (CUDA_VISIBLE_DEVICES)"
        )
    return mesh


def seed_axes(state: TrainState) -> TrainState:
    """Which axis of a state is that of the seeds, as `jax.vmap` takes it.

    Counters have none: all seeds take the same steps.
    """
    gathered = state.accumulation
    return TrainState(
        step=None,
        updates=None,
        params=0,
        opt_state=0,
        ema=None if state.ema is None else 0,
        accumulation=None if gathered is None else Accumulation(0, None, None),
        num_skipped=None if state.num_skipped is None else 0,
    )


def state_shardings(experiment: Experiment, mesh: Mesh, state: TrainState) -> Any:
    """Where the arrays of a state are: seeds are split, all else is everywhere.

    Args:
        experiment: Says how many seeds there are.
        mesh: From `devices.make_mesh`.
        state: A state, or its shapes.
    """
    if experiment.num_seeds == 1:
        return jax.tree.map(lambda _: whole(mesh), state)
    is_none = lambda axis: axis is None
    return jax.tree.map(
        lambda axis, part: jax.tree.map(
            lambda _: whole(mesh) if axis is None else by_seed(mesh), part
        ),
        seed_axes(state),
        state,
        is_leaf=is_none,
    )


def of_seed(tree: Any, index: int, num_seeds: int) -> Any:
    """The parameters of one seed, on the first device of this process.

    Args:
        tree: Parameters of all seeds, or of the only one.
        index: Of the seed.
        num_seeds: How many there are.
    """
    if num_seeds > 1:
        mesh = make_mesh(num_seeds)
        pick = jax.jit(
            lambda tree: jax.tree.map(lambda x: x[index], tree),
            out_shardings=whole(mesh),
        )
        # Restored weights are on one device.
        tree = pick(jax.device_put(tree, by_seed(mesh)))
    return jax.tree.map(lambda x: x.addressable_data(0), tree)


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


def skip_unless(
    is_finite: Bool[Array, ""], state: TrainState, before: TrainState
) -> TrainState:
    """The new state, or what an update changes as it was before.

    Counters go on, since all seeds share them; so do gathered gradients, to which a
    micro-batch that is left out adds nothing.
    """

    def choose(new: Any, old: Any) -> Any:
        return jax.tree.map(lambda x, y: jnp.where(is_finite, x, y), new, old)

    if before.accumulation is None:
        state = state.replace(
            params=choose(state.params, before.params),
            opt_state=choose(state.opt_state, before.opt_state),
            ema=choose(state.ema, before.ema),
        )
    return state.replace(num_skipped=before.num_skipped + ~is_finite)


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
