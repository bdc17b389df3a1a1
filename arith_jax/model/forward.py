"""Running a transformer: pure functions of its parameters."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Integer, PRNGKeyArray

from arith_jax.model import gather
from arith_jax.model.attention import Cache
from arith_jax.model.banded import Blocks
from arith_jax.model.context import Context, make_context
from arith_jax.model.gather import TargetIndex
from arith_jax.model.layers import make_layer
from arith_jax.model.transformer import Transformer
from arith_jax.positions.abacus import padding_segment

# A recurrence as a function of parameters, state, embedding and its number.
Recurrence = Callable[..., Float[Array, "b t d"]]


def bound(model: Transformer, params: Any, method: str) -> Callable[..., Any]:
    """One method of the model with its parameters, as a function."""
    return partial(model.apply, {"params": params}, method=method)


def initial_state(
    model: Transformer,
    emb: Float[Array, "b t d"],
    key: PRNGKeyArray | None,
    index: Int[Array, "#b t"],
) -> Float[Array, "b t d"]:
    """State before the first recurrence.

    Args:
        model: Says what it is.
        emb: Embedding of every token.
        key: Of the noise, another one for every row; None: evaluation's noise, which
            depends on the place in a segment alone.
        index: That place.

    Source:
        The original draws 0.02 * N(0, 1) at every forward pass, evaluation included.
    """
    if model.config.initial_state == "embedding":
        return emb
    if key is not None:
        return (0.02 * jax.random.normal(key, emb.shape)).astype(emb.dtype)
    noise = evaluation_noise(emb.shape[1], emb.shape[2]).astype(emb.dtype)
    return jnp.broadcast_to(noise[index], emb.shape)


def evaluation_noise(length: int, width: int) -> Float[Array, "t d"]:
    """The state before the first recurrence in evaluation, by place in the row."""
    key_state, _ = jax.random.split(jax.random.key(0))
    return 0.02 * jax.random.normal(key_state, (length, width))


def layer_params(params: Any, num_layers: int) -> list[Any]:
    """The parameters of each layer, cut from the stacked ones.

    Cut all at once, so that gradients are put together by one concatenation, where
    indexing would add up as many arrays that are zero but for one layer.
    """
    leaves, tree = jax.tree.flatten(params["layers"])
    parts = [jax.lax.split(leaf, (1,) * num_layers) for leaf in leaves]
    return [
        jax.tree.unflatten(tree, [part[index][0] for part in parts])
        for index in range(num_layers)
    ]


def recur_in_turn(
    model: Transformer,
    params: Any,
    state: Float[Array, "b t d"],
    *,
    emb: Float[Array, "b t d"],
    context: Context,
    caches: Sequence[Cache] = (),
    targets: TargetIndex | None = None,
    key: PRNGKeyArray | None = None,
) -> tuple[Float[Array, "b a d"], list[Cache]]:
    """One recurrence without a loop: every layer with its part of the parameters.

    A loop, unrolled or not, keeps what the backward pass needs of all layers in one
    array, and all caches in another, so that they are copied in and out.

    Args:
        model: The model.
        params: Its parameters.
        state: What the recurrence begins with.
        emb: Embedding, for the injection.
        context: Where queries and keys are.
        caches: Keys and values of each layer; empty: those of this state only.
        targets: Tokens whose new state is wanted; None: all.
        key: Of the noise; None: there is none.

    Returns:
        The new state, and the caches with this state's keys and values.
    """
    config, new_caches = model.config, []
    layer = make_layer(config, model.execution, model.noise)
    if config.injection == "recurrence":
        state = state + emb
    for index, weights in enumerate(layer_params(params, config.num_layers)):
        rngs = {} if key is None else {"noise": jax.random.fold_in(key, index)}
        is_last = index == config.num_layers - 1
        state, cache = layer.apply(
            {"params": weights},
            state,
            emb,
            context,
            cache=caches[index] if caches else None,
            targets=targets if is_last else None,
            rngs=rngs,
        )
        if cache is not None:
            new_caches.append(cache)
    return state, new_caches


def forward(
    model: Transformer,
    params: dict[str, Any],
    ids: Integer[Array, "b t"],
    positions: Integer[Array, "b t"],
    *,
    num_frozen: Int[Array, ""] | int = 0,
    num_trained: int | None = None,
    key: PRNGKeyArray | None = None,
    state: Float[Array, "b t d"] | None = None,
    segment: Int[Array, "b t"] | None = None,
    num_segments: int | None = None,
    blocks: Blocks | None = None,
    targets: TargetIndex | None = None,
) -> Float[Array, "b t v"]:
    """Logits after `num_frozen` recurrences without gradient and then `num_trained`.

        >>> model = Transformer(ModelConfig(num_recurrences=2, injection="recurrence"))
        >>> params = init_params(model, jax.random.key(0))
        >>> positions = abacus_positions(vocab.is_digit(ids))
        >>> logits = forward(model, params, ids, positions)
        >>> bool(jnp.isfinite(logits).all())
        True

    `PAD` before or after a row's tokens changes none of their logits, unless there are
    `blocks`.

    Args:
        model: The model.
        params: Its parameters.
        ids: Tokens.
        positions: Position id of each token, from the model's scheme.
        num_frozen: n, recurrences without gradient to parameters or embedding; may be
            traced, so that one compilation serves all n.
        num_trained: k, recurrences with gradient; static. Default: all.
        key: Of training: decides the random initial state and the key noise. Default:
            evaluation, with one fixed initial state and no noise.
        state: State before the first recurrence; default: what the config says.
        segment: Number of each token's problem, from 0, if rows hold several; tokens
            see their own problem only. Default: `PAD` on the left, and the rest.
        num_segments: Problems in a row; static. With 1, `segment` is not looked at, and
            rows begin with their first token.
        blocks: Attend within blocks of this size (`banded.fitting_blocks`), which is
            exact for a window of Abacus ids; static. Default: whole rows.
        targets: Tokens whose logits are wanted, 0 for the others. Default: all.

    Raises:
        ValueError: If there are segments without their number, or in blocks.
    """
    config, ids = model.config, ids.astype(jnp.int32)
    positions = positions.astype(jnp.int32)
    if segment is not None and num_segments is None:
        raise ValueError("forward: segment needs num_segments, how many there are")
    if num_segments is None and blocks is None:
        segment, num_segments = padding_segment(ids), 2
    context = make_context(
        config.scheme,
        positions,
        segment=segment,
        num_segments=num_segments or 1,
        blocks=blocks,
    )
    num_trained = config.num_recurrences if num_trained is None else num_trained
    key_state = key_noise = None
    if key is not None:
        key_state, key_noise = jax.random.split(key)
    emb = bound(model, params, "embed")(ids, context)
    if state is None:
        state = initial_state(model, emb, key_state, context.query.index)

    def recur(
        weights: Any, emb: Array, state: Array, index: Any, **options: Any
    ) -> Array:
        key = None if key_noise is None else jax.random.fold_in(key_noise, index)
        if model.execution.unroll:
            options |= {"emb": emb, "context": context, "key": key}
            return recur_in_turn(model, weights, state, **options)[0]
        rngs = {} if key is None else {"noise": key}
        return bound(model, weights, "recur")(state, emb, context, rngs=rngs)

    if not (isinstance(num_frozen, int) and num_frozen == 0):
        state = run_frozen(recur, (params, emb, state), num_frozen)
    is_gathered = False
    if model.execution.unroll:
        for number in range(num_trained):
            is_last = number == num_trained - 1
            wanted = targets if is_last else None
            state = recur(params, emb, state, num_frozen + number, targets=wanted)
            is_gathered = is_last and targets is not None
    else:
        step = lambda state, index: (recur(params, emb, state, index), None)
        state, _ = jax.lax.scan(step, state, num_frozen + jnp.arange(num_trained))
    if targets is not None and not is_gathered:
        state = gather.gather_targets(state, targets)
    logits = bound(model, params, "readout")(state)
    return logits if targets is None else gather.scatter_targets(logits, targets)


def run_frozen(
    recur: Recurrence,
    inputs: tuple[Any, Float[Array, "b t d"], Float[Array, "b t d"]],
    num_frozen: Int[Array, ""] | int,
) -> Float[Array, "b t d"]:
    """State after recurrences that have no gradient.

    Args:
        recur: A recurrence.
        inputs: Parameters, embedding and the state to begin with.
        num_frozen: How many recurrences; may be traced.
    """
    weights, emb, first = jax.lax.stop_gradient(inputs)
    step = lambda index, state: recur(weights, emb, state, index)
    after = jax.lax.fori_loop(0, num_frozen, step, first)
    # Without frozen recurrences the gradient also reaches the initial state.
    return jnp.where(jnp.asarray(num_frozen) > 0, after, inputs[2])


def attention_weights(
    model: Transformer,
    params: dict[str, Any],
    ids: Int[Array, "b t"],
    positions: Int[Array, "b t"],
) -> Float[Array, "r l b h t s"]:
    """Attention of every layer at every recurrence, as evaluation computes it.

    Logits are not materialised for long rows elsewhere: here they are.
    """
    context = make_context(
        model.config.scheme, positions, segment=padding_segment(ids), num_segments=2
    )
    emb = bound(model, params, "embed")(ids, context)
    state, weights = initial_state(model, emb, None, context.query.index), []
    for _ in range(model.config.num_recurrences):
        recur = bound(model, params, "recur")
        state, sown = recur(state, emb, context, mutable=["intermediates"])
        weights.append(sown["intermediates"]["layers"]["attention"]["weights"][0])
    return jnp.stack(weights)
