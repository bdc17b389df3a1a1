"""Greedy decoding with cached keys and values."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from arith_jax import vocab
from arith_jax.model.attention import Cache
from arith_jax.model.context import Context, cached_context
from arith_jax.model.forward import bound, evaluation_noise, recur_in_turn
from arith_jax.model.transformer import Transformer

# Of every layer of every recurrence.
Caches = list[list[Cache]]


def empty_caches(model: Transformer, batch_size: int, length: int) -> Caches:
    """Room for `length` tokens."""
    config = model.config
    shape = (batch_size, config.num_heads, length, config.head_width)
    zeros = jnp.zeros(shape, model.execution.dtype)
    layers = [Cache(zeros, zeros) for _ in range(config.num_layers)]
    return [layers for _ in range(config.num_recurrences)]


@partial(jax.jit, static_argnums=0, static_argnames=("num_new", "stop"))
def decode(
    model: Transformer,
    params: Any,
    prompts: Int[Array, "b p"],
    lengths: Int[Array, " b"],
    *,
    num_new: int,
    positions: Int[Array, "b p"] | None = None,
    stop: bool = True,
) -> Int[Array, "b {num_new}"]:
    """Greedy continuation of prompts of different lengths, with cached keys and values.

        >>> model = Transformer(ModelConfig())
        >>> params = init_params(model, jax.random.key(0))
        >>> lengths = jnp.full(len(ids), ids.shape[1])
        >>> decode(model, params, ids, lengths, num_new=4).shape == (len(ids), 4)
        True

    Every recurrence of every layer has its own cache. The prompt is read in one pass;
    then each row writes its next token at its own position.

    Args:
        model: The model.
        params: Its parameters.
        prompts: Prompts, padded on the right with `PAD`.
        lengths: Tokens of each prompt, at least 1.
        num_new: Tokens to generate; static.
        positions: Position id of each prompt token, without offset; 0 at the padding.
            Default: those of the model's scheme.
        stop: Whether all tokens after the first `EOS` of a row are `PAD`; static.

    Returns:
        Generated tokens.
    """
    config, scheme = model.config, model.config.scheme
    b, p = prompts.shape
    total = p + num_new
    index = jnp.arange(total)[None, :]
    positions = scheme.position_ids(prompts) if positions is None else positions
    noise = evaluation_noise(total, config.width).astype(model.execution.dtype)
    noise = jnp.broadcast_to(noise[None], (b, total, config.width))

    def read(
        tokens: Int[Array, "b t"],
        context: Context,
        caches: Caches,
        start: Float[Array, "b t d"],
    ) -> tuple[Float[Array, "b t v"], Caches]:
        emb = bound(model, params, "embed")(tokens, context)
        state, new_caches = start if config.initial_state == "noise" else emb, []
        for layers in caches:
            options = {"emb": emb, "context": context, "caches": layers}
            state, layers = recur_in_turn(model, params, state, **options)
            new_caches.append(layers)
        return bound(model, params, "readout")(state), new_caches

    key_ids = jnp.pad(positions, ((0, 0), (0, num_new)))
    context = cached_context(scheme, (index[:, :p], positions), (index, key_ids))
    caches = empty_caches(model, b, total)
    logits, caches = read(prompts, context, caches, noise[:, :p])
    last = jnp.take_along_axis(logits, (lengths - 1)[:, None, None], axis=1)[:, 0]
    previous = jnp.take_along_axis(positions, (lengths - 1)[:, None], axis=1)[:, 0]

    def generate(carry: Any, step: Int[Array, ""]) -> tuple[Any, Int[Array, " b"]]:
        logits, previous, key_ids, caches, done = carry
        token = jnp.where(done, vocab.PAD, jnp.argmax(logits, axis=-1))
        done = done | (stop & (token == vocab.EOS))
        here = (lengths + step)[:, None]
        new_id = scheme.next_position_id(previous, token, key_ids)
        key_ids = jnp.where(index == here, new_id[:, None], key_ids)
        context = cached_context(scheme, (here, new_id[:, None]), (index, key_ids))
        start = jnp.take_along_axis(noise, here[..., None], axis=1)
        logits, caches = read(token[:, None], context, caches, start)
        return (logits[:, 0], new_id, key_ids, caches, done), token

    done = jnp.zeros((b,), bool)
    carry = (last, previous, key_ids, caches, done)
    _, tokens = jax.lax.scan(generate, carry, jnp.arange(num_new))
    return tokens.T
