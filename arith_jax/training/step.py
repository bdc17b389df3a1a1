"""The train step: one pure function, compiled once for each number of recurrences."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from arith_jax.config.experiment import Experiment
from arith_jax.data.batch import (
    max_targets,
    row_width,
    training_batch,
    with_new_offset,
)
from arith_jax.devices import SEEDS, split_rows, whole
from arith_jax.kernels.compile import compiled
from arith_jax.model.flops import flops_per_row
from arith_jax.model.transformer import Transformer
from arith_jax.training import losses
from arith_jax.training.losses import Depth, Metrics
from arith_jax.training.optim import Schedule
from arith_jax.training.state import (
    TrainState,
    accumulate_gradients,
    apply_gradients,
    seed_axes,
    skip_unless,
    state_shardings,
    training_mesh,
)


def sample_depth(experiment: Experiment, step: int) -> Depth:
    """Recurrences of the random pass of a step; see `losses.sample_depth`."""
    recurrences = experiment.model.num_recurrences
    return losses.sample_depth(recurrences, experiment.loss.max_backprop, step=step)


def depths(experiment: Experiment, step: int) -> list[Depth]:
    """Recurrences of each pass of a step's loss."""
    recurrences = experiment.model.num_recurrences
    alpha, max_backprop = experiment.loss.alpha, experiment.loss.max_backprop
    if recurrences == 1:
        return [Depth(0, 1)]
    passes = []
    if alpha < 1:
        passes.append(Depth(recurrences - max_backprop, max_backprop))
    if alpha > 0:
        passes.append(sample_depth(experiment, step))
    return passes


def step_flops(experiment: Experiment, step: int) -> int:
    """Floating-point operations of one step of one model, with the depth it draws."""
    width = row_width(experiment.data)
    num_targets = max_targets(experiment.data) if experiment.execution.unroll else None
    rows = experiment.optim.micro_batch_size // experiment.data.problems_per_row
    return rows * sum(
        flops_per_row(
            experiment.model,
            width,
            num_frozen=int(depth.num_frozen),
            num_trained=depth.num_trained,
            num_targets=num_targets,
        )
        for depth in depths(experiment, step)
    )


def train_step(
    experiment: Experiment,
    num_trained: int,
    state: TrainState,
    inputs: tuple[Int[Array, ""], Schedule, Int[Array, ""]],
) -> tuple[TrainState, Metrics]:
    """Makes a batch, takes the gradient and updates: a pure function.

    Args:
        experiment: Everything but the seed is used; static.
        num_trained: k, recurrences with gradient; static.
        state: Donated by `compile_step`.
        inputs: Seed of the run, which with `state.step` decides the batch and the
            noise; what the schedules say; n, recurrences without gradient.
    """
    data, optim = experiment.data, experiment.optim
    seed, schedule, num_frozen = inputs
    model = Transformer(
        experiment.model, experiment.execution, noise=experiment.train.noise
    )
    key_data, key_model = jax.random.split(jax.random.key(seed))
    # Scopes name operations for the profiler (`benchmark.profiling`).
    with jax.named_scope("data"):
        batch = training_batch(data, key_data, state.step, optim.micro_batch_size)
        batch = split_rows(batch)
        # Otherwise a GPU computes positions again in every operation that reads them.
        batch = jax.lax.optimization_barrier(batch)
    full_positions = None
    if 0 < experiment.loss.alpha < 1 and data.max_offset:
        # The original draws an offset for each of its two passes.
        key_offset = jax.random.fold_in(jax.random.fold_in(key_data, state.step), 1)
        full_positions = split_rows(with_new_offset(data, batch, key_offset).positions)

    def loss_of(params: Any) -> tuple[Float[Array, ""], Metrics]:
        with jax.named_scope("loss"):
            return losses.progressive_loss(
                model,
                params,
                batch,
                jax.random.fold_in(key_model, state.step),
                depth=Depth(num_frozen, num_trained),
                config=experiment.loss,
                full_positions=full_positions,
                max_targets=max_targets(data),
            )

    gradients, metrics = jax.grad(loss_of, has_aux=True)(state.params)
    is_gathered = optim.max_micro_batches > 1
    advance = accumulate_gradients if is_gathered else apply_gradients
    with jax.named_scope("optimizer"):
        # The clipping needs it, too: XLA computes it once.
        norm = optax.tree.norm(gradients)
        if not experiment.train.skip_nonfinite:
            state = advance(optim, state, gradients, schedule)
        else:
            is_finite = jnp.isfinite(metrics.loss) & jnp.isfinite(norm)
            gradients = jax.tree.map(lambda g: jnp.where(is_finite, g, 0), gradients)
            advanced = advance(optim, state, gradients, schedule)
            state = skip_unless(is_finite, advanced, state)
    metrics = metrics._replace(gradient_norm=norm, num_skipped=state.num_skipped)
    return state.replace(step=state.step + 1), metrics


def step_inputs(
    experiment: Experiment, schedule: Schedule, depth: Depth
) -> tuple[Any, Schedule, Any]:
    """What changes from step to step besides the state, as numbers of the host."""
    # Every number is a transfer of its own, which short steps feel.
    is_gathered = experiment.optim.max_micro_batches > 1
    count = np.int32(schedule.num_micro_batches) if is_gathered else None
    plan = Schedule(np.float32(schedule.multiplier), count)
    seeds = np.array(experiment.seeds, np.int32)
    seed = seeds[0] if experiment.num_seeds == 1 else seeds
    return seed, plan, np.int32(depth.num_frozen)


def compile_step(experiment: Experiment, num_trained: int, state: TrainState) -> Any:
    """The program of `train_step` for k = `num_trained`: state, inputs -> results.

    Rows are split among the devices; with several seeds it is one program for all of
    them. The state it is called with is donated: its buffers become those of the next
    one.

    Args:
        experiment: What is trained.
        num_trained: k, recurrences with gradient.
        state: Of the run, or its shapes.
    """
    advance = partial(train_step, experiment, num_trained)
    if experiment.num_seeds > 1:
        axes = seed_axes(state)
        advance = jax.vmap(
            advance,
            in_axes=(axes, (0, None, None)),
            out_axes=(axes, 0),
            spmd_axis_name=SEEDS,
        )
    mesh = training_mesh(experiment)
    places = state_shardings(experiment, mesh, state)
    function = jax.jit(
        advance,
        donate_argnums=0,
        in_shardings=(places, None),
        out_shardings=(places, whole(mesh)),
    )
    inputs = step_inputs(experiment, Schedule(0.0, 1), Depth(0, num_trained))
    with jax.set_mesh(mesh):
        lowered = function.lower(state, inputs)
    return compiled(
        lowered,
        triton_gemm=experiment.execution.triton_gemm and not experiment.deterministic,
        deterministic=experiment.deterministic,
    )
