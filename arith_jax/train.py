"""Training: the state, one pure step, and the loop that dispatches it."""

import dataclasses
import math
import time
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jaxtyping import Array, Float, Int

from arith_jax import compiling, losses, optim
from arith_jax.data import DataConfig, training_batch
from arith_jax.model import init_params
from arith_jax.model_config import ModelConfig

# Of steps whose metrics are not read yet. Each reading waits for a step; short steps,
# which a host hardly keeps up with, take a third less time if most are not read.
UNREAD_SECONDS = 0.02


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Budget and rhythm; the knobs are described in `configs/base.py`."""

    steps: int
    minutes: float
    alpha: float
    loss_reduction: str
    throttle: bool
    libraries: bool
    log_every: int
    checkpoint_minutes: float
    tensorboard: bool

    def __post_init__(self):
        if (self.steps > 0) == (self.minutes > 0):
            raise ValueError(
                f"train.steps={self.steps} and train.minutes={self.minutes}: "
                "exactly one must be above 0; set the other to 0"
            )
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"train.alpha={self.alpha}: must be between 0 and 1")
        if self.loss_reduction not in ("mean", "none"):
            raise ValueError(
                f"train.loss_reduction={self.loss_reduction!r} is unknown; "
                "allowed: mean, none"
            )


class Accumulation(struct.PyTreeNode):
    """Gradients gathered so far for one update of several micro-batches.

    Integers `count` and `wanted` are untyped: JAX also builds this with placeholders.
    """

    gradients: Any
    count: Any
    wanted: Any


class TrainState(struct.PyTreeNode):
    """Everything a run needs to go on; `step` counts micro-batches.

    The data need no state: `(seed, step)` decides every batch. Fields are untyped:
    JAX also builds this with placeholders.
    """

    step: Any
    updates: Any
    params: Any
    opt_state: Any
    ema: Any
    accumulation: Any


def make_state(model: ModelConfig, config: optim.OptimConfig, seed: int) -> TrainState:
    """Fresh state of a run."""
    return state_from(config, init_params(model, jax.random.key(seed)))


def state_from(config: optim.OptimConfig, params: Any) -> TrainState:
    """State before the first step of training the given parameters."""
    zero = jnp.zeros((), jnp.int32)
    accumulation = None
    if config.accumulates:
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
    config: optim.OptimConfig,
    state: TrainState,
    gradients: Any,
    fraction: Float[Array, ""],
) -> TrainState:
    """One optimizer update, and the moving average after it."""
    updates, opt_state = optim.make_optimizer(config).update(
        gradients, state.opt_state, state.params
    )
    multiplier = optim.lr_multiplier(config, fraction)
    updates = jax.tree.map(lambda u: multiplier * u, updates)
    params = optax.apply_updates(state.params, updates)
    ema = state.ema
    if ema is not None:
        ema = optim.ema_update(config, ema, params, state.updates)
    return state.replace(
        params=params, opt_state=opt_state, ema=ema, updates=state.updates + 1
    )


def accumulate_gradients(
    config: optim.OptimConfig,
    state: TrainState,
    gradients: Any,
    fraction: Float[Array, ""],
) -> TrainState:
    """Adds a micro-batch, and updates once enough are gathered.

    Each micro-batch counts 1 / wanted, as the original divides its losses.
    """
    gathered = state.accumulation
    # The size is set when an update begins, from the budget used up by then.
    begins = gathered.count == 0
    wanted = jnp.where(begins, optim.micro_batches(config, fraction), gathered.wanted)
    total = jax.tree.map(lambda s, g: s + g / wanted, gathered.gradients, gradients)
    count = gathered.count + 1

    def update(state: TrainState) -> TrainState:
        state = apply_gradients(config, state, total, fraction)
        zeros = jax.tree.map(jnp.zeros_like, total)
        return state.replace(
            accumulation=Accumulation(zeros, jnp.zeros_like(count), wanted)
        )

    def wait(state: TrainState) -> TrainState:
        return state.replace(accumulation=Accumulation(total, count, wanted))

    return jax.lax.cond(count >= wanted, update, wait, state)


def train_step(
    configs: tuple[ModelConfig, DataConfig, optim.OptimConfig, TrainConfig],
    num_trained: int,
    state: TrainState,
    seed: Int[Array, ""],
    fraction: Float[Array, ""],
    num_frozen: Int[Array, ""],
) -> tuple[TrainState, losses.Metrics]:
    """Makes a batch, takes the gradient and updates: a pure function.

    Args:
        configs: Model, data, optimizer and training settings; static.
        num_trained: k, recurrences with gradient; static.
        state: Donated by `compile_step`.
        seed: Of the run; with `state.step` it decides the batch and the noise.
        fraction: Part of the budget used up, for the schedules.
        num_frozen: n, recurrences without gradient.
    """
    model, data, optimizer, config = configs
    key_data, key_model = jax.random.split(jax.random.key(seed))
    # Scopes name operations for the profiler (`profiling.PARTS`).
    with jax.named_scope("data"):
        batch = training_batch(data, key_data, state.step, optimizer.micro_batch_size)
        # Or a GPU works positions out again in every operation that reads them.
        batch = jax.lax.optimization_barrier(batch)
    key_model = jax.random.fold_in(key_model, state.step)

    def loss_of(params: Any) -> tuple[Float[Array, ""], losses.Metrics]:
        with jax.named_scope("loss"):
            return losses.progressive_loss(
                model,
                params,
                batch,
                key_model,
                num_frozen,
                num_trained,
                config.alpha,
                config.loss_reduction,
                config.throttle,
                data.most_read,
            )

    gradients, metrics = jax.grad(loss_of, has_aux=True)(state.params)
    advance = accumulate_gradients if optimizer.accumulates else apply_gradients
    with jax.named_scope("optimizer"):
        state = advance(optimizer, state, gradients, fraction)
    return state.replace(step=state.step + 1), metrics


def compile_step(
    configs: tuple[ModelConfig, DataConfig, optim.OptimConfig, TrainConfig],
    num_trained: int,
    state: TrainState,
) -> Any:
    """The program of `train_step` for k = `num_trained`, given the other arguments.

    The state it is called with is donated: its buffers become those of the next one.
    """
    function = jax.jit(partial(train_step, configs, num_trained), donate_argnums=0)
    lowered = function.lower(state, np.int32(0), np.float32(0), np.int32(0))
    return compiling.compiled(lowered, configs[3].libraries)


class Progress(NamedTuple):
    """What the loop reports after each step.

    `state` is donated to the next step: read it before going on. `unread` are the
    step's own metrics, still on the device. `metrics` are those read last: at every
    `log_every`-th step those of the step before, at the first and last step its own.
    Seconds are totals; `train_seconds` leaves `compile_seconds` out.
    """

    state: TrainState
    step: int
    fraction: float
    metrics: losses.Metrics
    unread: losses.Metrics
    train_seconds: float
    compile_seconds: float


class Clock(NamedTuple):
    """Seconds spent by the earlier parts of a resumed run."""

    train_seconds: float = 0.0
    compile_seconds: float = 0.0


def train(
    configs: tuple[ModelConfig, DataConfig, optim.OptimConfig, TrainConfig],
    state: TrainState,
    seed: int,
    clock: Clock,
) -> Iterator[Progress]:
    """Runs steps until the budget is used up, reporting after each.

    The host only dispatches; now and then it reads the metrics of the step before,
    which keeps one step queued and the elapsed time honest. Nothing else here may touch
    the device: one small operation waits for the queued step.

    Raises:
        FloatingPointError: If the loss is not finite; names the step.
    """
    model, _, _, config = configs
    compiled: dict[int, Any] = {}
    step = int(state.step)
    compile_seconds = clock.compile_seconds
    started = time.perf_counter() - clock.train_seconds - compile_seconds
    pending = shown = None
    read, read_at, pace = step, started, math.inf  # pace: seconds a step
    while True:
        elapsed = time.perf_counter() - started - compile_seconds
        total = config.minutes * 60
        fraction = step / config.steps if config.steps else min(elapsed / total, 1.0)
        if fraction >= 1:
            if pending is not None and config.minutes:
                read_metrics(pending, step)
            return
        n, k = losses.sample_depth(model, seed, step)
        if k not in compiled:
            before = time.perf_counter()
            jax.block_until_ready(state)
            compiled[k] = compile_step(configs, k, state)
            compile_seconds += time.perf_counter() - before
        state, metrics = compiled[k](
            state, np.int32(seed), np.float32(fraction), np.int32(n)
        )
        step += 1
        unread = step - 1 - read  # but for this step's
        is_due = unread * pace >= UNREAD_SECONDS or step % config.log_every == 0
        done = read
        # The last step's own metrics are waited for: its time counts.
        if shown is None or step == config.steps:
            shown, done = read_metrics(metrics, step), step
        elif pending is not None and unread and is_due:
            shown, done = read_metrics(pending, step - 1), step - 1
        if done > read:
            now = time.perf_counter()
            read, read_at, pace = done, now, (now - read_at) / (done - read)
        pending = metrics
        elapsed = time.perf_counter() - started - compile_seconds
        yield Progress(state, step, fraction, shown, metrics, elapsed, compile_seconds)


def read_metrics(metrics: losses.Metrics, step: int) -> losses.Metrics:
    """The metrics as Python numbers, once the device has them.

    Raises:
        FloatingPointError: If the loss is not finite.
    """
    values = losses.Metrics(*(float(value) for value in jax.device_get(metrics)))
    if not math.isfinite(values.loss):
        raise FloatingPointError(
            f"loss is {values.loss} at step {step}; the last checkpoint is kept: "
            "lower optim.learning_rate or optim.muon_learning_rate"
        )
    return values
