"""What the model attends to while it writes one symbol of an answer."""

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from arith_jax import vocab
from arith_jax.config.data import round_up
from arith_jax.model.forward import attention_weights
from arith_jax.model.transformer import Transformer
from arith_jax.released import TrainedModel

# Weights of a whole row: 1 GiB in float32.
MAX_WEIGHTS = 2**28
# Rows are padded to multiples of this, for few shapes.
WIDTH = 256


class Token(NamedTuple):
    """Where a token of a row stands on paper.

    Attributes:
        symbol: As it is written.
        line: 0 and 1 for the operands, from 2 for the lines of the answer.
        place: In its number, from the right, from 1; 0: it is no digit.
    """

    symbol: str
    line: int
    place: int


class Reading(NamedTuple):
    """What is read while one symbol is written.

    Attributes:
        tokens: All that the model has before it.
        chosen: The symbol that it writes, and where.
        weights: Attention of each layer in depth and each head to each token.
    """

    tokens: list[Token]
    chosen: Token
    weights: Float[np.ndarray, "depth heads keys"]


def places(text: str) -> list[Token]:
    """Line and place of every symbol of a row."""
    tokens, line, place = [], 0, 0
    for symbol in text:
        if symbol in "0123456789":
            place += 1
            tokens.append(Token(symbol, line, place))
        else:
            tokens.append(Token(symbol, line, 0))
            # Index hints are letters, which do not end a number.
            if symbol in "+-x=":
                line, place = line + 1, 0
    return tokens


def read(
    trained: TrainedModel,
    expression: str,
    tokens: str,
    index: int,
    *,
    num_recurrences: int,
) -> Reading:
    """The attention by which one symbol of an answer is written.

    A symbol is predicted at the token before it, whose queries these are.

    Args:
        trained: The model.
        expression: The calculation.
        tokens: What the model wrote, without the end.
        index: Which of them; as many as there are: the end.
        num_recurrences: How often the block is applied.

    Raises:
        ValueError: If there is no such token, or the row is too long.
    """
    experiment = trained.experiment
    if not 0 <= index <= len(tokens):
        raise ValueError(f"symbol {index} of {len(tokens)}: there is no such symbol")
    prompt = experiment.data.task.prompt(expression)
    text = prompt + tokens[:index]
    width = round_up(len(text), WIDTH)
    config = dataclasses.replace(trained.model.config, num_recurrences=num_recurrences)
    if config.depth * config.num_heads * width**2 > MAX_WEIGHTS:
        raise ValueError(
            f"The attention of {len(text):,} symbols at {config.depth} layers is too "
            "large for this page. Give shorter numbers."
        )
    ids = np.full((1, width), vocab.PAD, np.int32)
    ids[0, : len(text)] = experiment.data.task.vocab.encode(text)
    weights = query_weights(
        dataclasses.replace(trained.model, config=config),
        trained.params,
        jnp.array(ids),
        experiment.data.scheme.position_ids(jnp.array(ids)),
        jnp.int32(len(text) - 1),
    )
    chosen = places(prompt + tokens + ".")[len(text)]
    return Reading(places(text), chosen, np.asarray(weights)[:, :, : len(text)])


@partial(jax.jit, static_argnums=0)
def query_weights(
    model: Transformer,
    params: Any,
    ids: Int[Array, "1 t"],
    positions: Int[Array, "1 t"],
    query: Int[Array, ""],
) -> Float[Array, "depth heads t"]:
    """Attention of one token, in every layer at every recurrence."""
    weights = attention_weights(model, params, ids, positions)[:, :, 0, :, query]
    return weights.reshape(-1, *weights.shape[2:])
