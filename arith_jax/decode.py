"""Greedy decoding with cached keys and values, and answers to written expressions."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from arith_jax import positions, vocab
from arith_jax.attention import Cache, Context
from arith_jax.data import DataConfig, as_batch, round_up
from arith_jax.model import Transformer, context_of, initial_state
from arith_jax.model_config import ModelConfig

# Of every layer of every recurrence.
Caches = list[list[Cache]]


def empty_caches(config: ModelConfig, batch_size: int, length: int) -> Caches:
    """Room for `length` tokens."""
    shape = (batch_size, config.heads, length, config.head_width)
    zeros = jnp.zeros(shape, config.dtype)
    layers = [Cache(zeros, zeros) for _ in range(config.layers)]
    return [layers for _ in range(config.recurrences)]


@partial(jax.jit, static_argnums=(0, 4, 6, 7))
def decode(
    config: ModelConfig,
    params: Any,
    prompts: Int[Array, "b p"],
    lengths: Int[Array, " b"],
    num_new: int,
    abacus: Int[Array, "b p"],
    stop: bool = True,
    scheme: str = "abacus",
) -> Int[Array, "b {num_new}"]:
    """Greedy continuation of prompts of different lengths, with cached keys and values.

    Every recurrence of every layer has its own cache. The prompt is read in one pass;
    then each row writes its next token at its own position.

    Args:
        config: The model.
        params: Its parameters.
        prompts: Prompts, padded on the right with `PAD`.
        lengths: Tokens of each prompt, at least 1.
        num_new: Tokens to generate; static.
        abacus: Position id of each prompt token; 0 at the padding.
        stop: Whether all tokens after the first `EOS` of a row are `PAD`; static.
        scheme: `data.position_ids`; static.

    Returns:
        Generated tokens.
    """
    model = Transformer(config)
    b, p = prompts.shape
    total = p + num_new
    index, levels = jnp.arange(total)[None, :], config.position_levels
    key_state, _ = jax.random.split(jax.random.key(0))
    # The noise of position i must be what a whole row of this shape would get.
    whole = jnp.zeros((b, total, config.width), config.dtype)
    states = initial_state(config, whole, key_state)

    def read(
        tokens: Int[Array, "b t"],
        context: Context,
        caches: Caches,
        start: Float[Array, "b t d"],
    ) -> tuple[Float[Array, "b t v"], Caches]:
        def run(*args: Any, method: str) -> Any:
            return model.apply({"params": params}, *args, method=method)

        emb = run(tokens, context, method="embed")
        state = start if config.initial_state == "noise" else emb
        written = []
        for layers in caches:
            state, layers = run(state, emb, context, layers, method="core")
            written.append(layers)
        return run(state, method="readout"), written

    key_abacus = jnp.pad(abacus, ((0, 0), (0, num_new)))
    context = context_of(levels, index[:, :p], index, abacus, key_abacus)
    caches = empty_caches(config, b, total)
    logits, caches = read(prompts, context, caches, states[:, :p])
    last = jnp.take_along_axis(logits, (lengths - 1)[:, None, None], axis=1)[:, 0]
    previous = jnp.take_along_axis(abacus, (lengths - 1)[:, None], axis=1)[:, 0]

    def generate(carry: Any, step: Int[Array, ""]) -> tuple[Any, Int[Array, " b"]]:
        logits, previous, key_abacus, caches, done = carry
        token = jnp.where(done, vocab.PAD, jnp.argmax(logits, axis=-1))
        done = done | (stop & (token == vocab.EOS))
        here = lengths + step
        is_token = token >= vocab.FIRST_SYMBOL
        if scheme == "items":
            own = positions.next_key_position(previous, key_abacus)
        else:
            is_digit = vocab.is_digit(token)
            own = positions.next_position(previous, is_digit, is_token, scheme)
        key_abacus = jnp.where(index == here[:, None], own[:, None], key_abacus)
        context = context_of(levels, here[:, None], index, own[:, None], key_abacus)
        start = jnp.take_along_axis(states, here[:, None, None], axis=1)
        logits, caches = read(token[:, None], context, caches, start)
        return (logits[:, 0], own, key_abacus, caches, done), token

    done = jnp.zeros((b,), bool)
    carry = (last, previous, key_abacus, caches, done)
    _, tokens = jax.lax.scan(generate, carry, jnp.arange(num_new))
    return tokens.T


def answers(
    model: ModelConfig, data: DataConfig, params: Any, expressions: Sequence[str]
) -> list[str]:
    """The model's own answers to expressions of its task, such as `98+120`.

    Raises:
        ValueError: If an expression is not one of the task, or its numbers are too long
            for the model's position table.
    """
    task = data.make_task()
    texts = [task.prompt(text) for text in expressions]
    prompts = [task.vocab.encode(text) for text in texts]
    cells = [task.sizes(text) for text in texts]
    # Few distinct shapes: every new one costs a compilation.
    num_new = round_up(max(task.answer_width(*cell) for cell in cells) + 1, 32)
    width = round_up(max(len(prompt) for prompt in prompts), 64)
    model.check_table(max(data.longest_position(cell) for cell in cells), 0)
    model.check_row(width + num_new)
    ids = np.full((len(prompts), width), vocab.PAD, np.int32)
    for row, prompt in zip(ids, prompts, strict=True):
        row[: len(prompt)] = prompt
    lengths = jnp.array([len(prompt) for prompt in prompts])
    batch = as_batch(task, jnp.array(ids), 0, data.position_ids)
    tokens = decode(
        model,
        params,
        batch.ids,
        lengths,
        num_new,
        batch.positions,
        scheme=data.position_ids,
    )
    found = [task.vocab.decode(row) for row in np.asarray(tokens).tolist()]
    return [task.read(*pair) for pair in zip(texts, found, strict=True)]
