"""Masked cross-entropy and the progressive loss over two recurrence counts."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from arith_jax import reading
from arith_jax.data import Batch
from arith_jax.model import forward
from arith_jax.model_config import ModelConfig
from arith_jax.packing import PackedBatch, count_in_problems


class Metrics(NamedTuple):
    """Scalars of one batch: loss in nats a token, shares of tokens and whole rows."""

    loss: Float[Array, ""] | float
    token_accuracy: Float[Array, ""] | float
    exact_match: Float[Array, ""] | float


def targets(
    batch: Batch | PackedBatch,
) -> tuple[Int[Array, "b t"], Bool[Array, "b t"]]:
    """Next token at every position, and whether it counts; the last of a row does not.

    Rolling instead of slicing keeps the row length, which suits the hardware, even.
    Packed rows bring their labels along.
    """
    if isinstance(batch, PackedBatch):
        return batch.labels, batch.mask
    mask = jnp.roll(batch.mask, -1, axis=1).at[:, -1].set(False)
    return jnp.roll(batch.ids, -1, axis=1), mask


def cross_entropy(
    logits: Float[Array, "b t v"],
    batch: Batch | PackedBatch,
    reduction: str = "mean",
) -> Float[Array, ""]:
    """Cross-entropy of the answer and `EOS`, in nats.

    Args:
        logits: At every position.
        batch: Rows and what counts in them.
        reduction: `mean` over the counted tokens of the micro-batch, so long answers
            weigh more than short ones; `none` divides the same sum by all positions
            but the last.

    Source:
        The original with `mask_before_equals=True`. Its `loss_reduction=none`
        (multiplication) is not a mean per sample, despite its name and comment.
    """
    labels, mask = targets(batch)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    rows, width = mask.shape
    count = jnp.sum(mask) if reduction == "mean" else rows * (width - 1)
    return jnp.sum(losses * mask) / count


def throttle_factor(config: ModelConfig) -> float:
    """The original's `throttle`: a constant on the training loss.

    Source:
        (1 + min(R / 4, m / 2)) / m with m = `max_backprop`; it does not divide the
        block's gradients by the number of recurrences, as the original's text says.
    """
    most = config.max_backprop
    return (1 + min(config.recurrences / 4, most / 2)) / most


def correct_rows(
    logits: Float[Array, "b t v"], batch: Batch | PackedBatch
) -> Bool[Array, " n"]:
    """True where every counted token of a row, or packed problem, is the argmax.

    Rows in which nothing counts are not right.

    With the true answer fed in, this is exactly "greedy decoding gets it right": the
    first wrong token is the same in both.
    """
    labels, mask = targets(batch)
    wrong = (jnp.argmax(logits, axis=-1) != labels) & mask
    if isinstance(batch, PackedBatch):
        # Something counts in every problem: its `EOS`.
        return count_in_problems(wrong, batch).reshape(-1) == 0
    return ~jnp.any(wrong, axis=1) & jnp.any(mask, axis=1)


def measure(
    logits: Float[Array, "b t v"],
    batch: Batch | PackedBatch,
    loss: Float[Array, ""],
) -> Metrics:
    """Metrics of a batch, given its loss."""
    labels, mask = targets(batch)
    right = (jnp.argmax(logits, axis=-1) == labels) & mask
    exact = jnp.mean(correct_rows(logits, batch))
    return Metrics(loss, jnp.sum(right) / jnp.sum(mask), exact)


def progressive_loss(
    config: ModelConfig,
    params: dict[str, Any],
    batch: Batch | PackedBatch,
    key: PRNGKeyArray,
    num_frozen: Int[Array, ""] | int,
    num_trained: int,
    alpha: float,
    reduction: str = "mean",
    throttle: bool = False,
    most_read: int | None = None,
) -> tuple[Float[Array, ""], Metrics]:
    """Convex combination of a full-depth pass and a pass of random depth.

    (1 - alpha) * full + alpha * random, where the random pass runs `num_frozen`
    recurrences without gradient and `num_trained` with, and the full pass
    R - `max_backprop` without and `max_backprop` with. Without recurrence there is one
    pass only. With `most_read`, at least the tokens that count in any row, the model
    computes logits for those only.

    Source:
        McLeish et al. 2024, section 3; the original skips a term whose factor is 0,
        and so does this. For alpha strictly between 0 and 1, which no experiment of
        the paper uses, it draws a second Abacus offset; here both passes share one.
    """
    key_full, key_random = jax.random.split(key)
    lengths = batch.lengths if isinstance(batch, PackedBatch) else None
    factor = throttle_factor(config) if throttle else 1.0
    read = None
    if most_read is not None:
        read = reading.read_where(targets(batch)[1], most_read)

    def one_pass(key: PRNGKeyArray, n: Int[Array, ""] | int, k: int):
        logits = forward(
            config,
            params,
            batch.ids,
            batch.positions,
            num_frozen=n,
            num_trained=k,
            key=key,
            train=True,
            lengths=lengths,
            read=read,
        )
        return factor * cross_entropy(logits, batch, reduction), logits

    if config.recurrences == 1:
        loss, logits = one_pass(key_random, 0, 1)
        return loss, measure(logits, batch, loss)
    terms = []
    if alpha < 1:
        full_frozen = config.recurrences - config.max_backprop
        terms.append((1 - alpha, *one_pass(key_full, full_frozen, config.max_backprop)))
    if alpha > 0:
        terms.append((alpha, *one_pass(key_random, num_frozen, num_trained)))
    loss = jnp.sum(jnp.stack([weight * term for weight, term, _ in terms]))
    return loss, measure(terms[0][-1], batch, loss)


def sample_depth(config: ModelConfig, seed: int, step: int) -> tuple[int, int]:
    """Draws (n, k) on the host: n ~ U{0..R-1}, k ~ U{1..min(R-n, max_backprop)}.

    k must be static under jit, so it cannot come from a traced key. A function of
    (seed, step) alone, so a resumed run draws what an unbroken one would.
    """
    if config.recurrences == 1:
        return 0, 1
    rng = np.random.default_rng([seed, step])
    n = int(rng.integers(0, config.recurrences))
    k = int(rng.integers(1, min(config.recurrences - n, config.max_backprop) + 1))
    return n, k


def depths(
    config: ModelConfig, alpha: float, seed: int, step: int
) -> list[tuple[int, int]]:
    """Recurrences (without, with gradient) of each pass of `progressive_loss`."""
    if config.recurrences == 1:
        return [(0, 1)]
    passes = []
    if alpha < 1:
        passes.append((config.recurrences - config.max_backprop, config.max_backprop))
    if alpha > 0:
        passes.append(sample_depth(config, seed, step))
    return passes
