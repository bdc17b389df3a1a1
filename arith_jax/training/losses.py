"""Masked cross-entropy and the progressive loss over two recurrence counts."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from arith_jax.config.training import LossConfig
from arith_jax.data.batch import Batch
from arith_jax.model.forward import forward
from arith_jax.model.gather import index_targets
from arith_jax.model.transformer import Transformer


class Metrics(NamedTuple):
    """Scalars of a batch; of a step that trains several seeds, arrays [seeds].

    Attributes:
        loss: In nats a token.
        token_accuracy: Share of right tokens.
        exact_match: Share of right answers.
        gradient_norm: Of all parameters, before clipping; of a train step.
        num_skipped: Updates left out so far, if a train step may leave them out.
    """

    loss: Float[Array, ""] | np.ndarray
    token_accuracy: Float[Array, ""] | np.ndarray
    exact_match: Float[Array, ""] | np.ndarray
    gradient_norm: Float[Array, ""] | np.ndarray | None = None
    num_skipped: Int[Array, ""] | np.ndarray | None = None


class Depth(NamedTuple):
    """Recurrences of a pass: n without gradient, then k with gradient; k is static."""

    num_frozen: Int[Array, ""] | int
    num_trained: int


def cross_entropy(
    logits: Float[Array, "b t v"], batch: Batch, *, reduction: str = "mean"
) -> Float[Array, ""]:
    """Cross-entropy of the answer and `EOS`, in nats.

    Args:
        logits: At every position.
        batch: Rows and what counts in them.
        reduction: `mean` over the counted tokens of the micro-batch, so that long
            answers weigh more than short ones; `none` divides the same sum by all
            positions but the last of each row.

    Source:
        The original with `mask_before_equals=True`. Its `loss_reduction=none`
        (multiplication) is not a mean per sample, despite its name and comment.
    """
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch.labels)
    rows, width = batch.mask.shape
    count = jnp.sum(batch.mask) if reduction == "mean" else rows * (width - 1)
    return jnp.sum(losses * batch.mask) / count


def throttle_factor(num_recurrences: int, max_backprop: int) -> float:
    """The original's `throttle`: a constant on the training loss.

    Source:
        (1 + min(R / 4, m / 2)) / m with m = `max_backprop`; it does not divide the
        block's gradients by the number of recurrences, as the original's text says.
    """
    return (1 + min(num_recurrences / 4, max_backprop / 2)) / max_backprop


def correct_answers(logits: Float[Array, "b t v"], batch: Batch) -> Bool[Array, " n"]:
    """True where every counted token of a problem is the argmax.

    Problems in which nothing counts are not right.

    With the true answer fed in, this is exactly "greedy decoding gets it right": the
    first wrong token is the same in both.
    """
    wrong = (jnp.argmax(logits, axis=-1) != batch.labels) & batch.mask
    num_wrong = batch.count_in_segments(wrong)
    num_counted = batch.count_in_segments(batch.mask)
    return ((num_wrong == 0) & (num_counted > 0)).reshape(-1)


def measure(
    logits: Float[Array, "b t v"], batch: Batch, loss: Float[Array, ""]
) -> Metrics:
    """Metrics of a batch, given its loss."""
    right = (jnp.argmax(logits, axis=-1) == batch.labels) & batch.mask
    exact = jnp.mean(correct_answers(logits, batch))
    return Metrics(loss, jnp.sum(right) / jnp.sum(batch.mask), exact)


def progressive_loss(
    model: Transformer,
    params: dict[str, Any],
    batch: Batch,
    key: PRNGKeyArray,
    *,
    depth: Depth,
    config: LossConfig = LossConfig(),
    full_positions: Int[Array, "b t"] | None = None,
    max_targets: int | None = None,
) -> tuple[Float[Array, ""], Metrics]:
    """Convex combination of a full-depth pass and a pass of random depth.

    (1 - alpha) * full + alpha * random, where the full pass runs R - `max_backprop`
    recurrences without gradient and `max_backprop` with gradient. Without recurrence
    there is one pass only. Metrics are those of the first pass that is run.

        >>> model = Transformer(ModelConfig(num_recurrences=2, injection="recurrence"))
        >>> params = init_params(model, jax.random.key(0))
        >>> batch = training_batch(DataConfig(max_digits=3), jax.random.key(1), 0, 4)
        >>> loss, metrics = progressive_loss(
        ...     model, params, batch, jax.random.key(2), depth=Depth(1, 1)
        ... )
        >>> bool(loss > 0)
        True

    Args:
        model: The model.
        params: Its parameters.
        batch: Rows and what counts in them.
        key: Decides initial states and key noise.
        depth: Recurrences of the random pass, from `sample_depth`.
        config: Weights and reduction.
        full_positions: Position ids of the full pass, if it has another offset.
        max_targets: At least the number of tokens that count in any row: logits are
            computed for those only. Default: for all tokens.

    Source:
        McLeish et al. 2024, section 3; the original skips a term whose factor is 0,
        and so does this.
    """
    key_full, key_random = jax.random.split(key)
    num_recurrences, max_backprop = model.config.num_recurrences, config.max_backprop
    factor = throttle_factor(num_recurrences, max_backprop) if config.throttle else 1.0
    targets = None if max_targets is None else index_targets(batch.mask, max_targets)

    def one_pass(key: PRNGKeyArray, depth: Depth, positions: Int[Array, "b t"]):
        logits = forward(
            model,
            params,
            batch.ids,
            positions,
            num_frozen=depth.num_frozen,
            num_trained=depth.num_trained,
            key=key,
            segment=batch.segment,
            num_segments=batch.num_segments,
            targets=targets,
        )
        loss = factor * cross_entropy(logits, batch, reduction=config.reduction)
        return loss, logits

    if num_recurrences == 1:
        loss, logits = one_pass(key_random, Depth(0, 1), batch.positions)
        return loss, measure(logits, batch, loss)
    terms = []
    if config.alpha < 1:
        full = Depth(num_recurrences - max_backprop, max_backprop)
        positions = batch.positions if full_positions is None else full_positions
        terms.append((1 - config.alpha, *one_pass(key_full, full, positions)))
    if config.alpha > 0:
        terms.append((config.alpha, *one_pass(key_random, depth, batch.positions)))
    loss = jnp.sum(jnp.stack([weight * term for weight, term, _ in terms]))
    return loss, measure(terms[0][-1], batch, loss)


def sample_depth(num_recurrences: int, max_backprop: int, *, step: int) -> Depth:
    """Draws (n, k) on the host: n ~ U{0..R-1}, k ~ U{1..min(R-n, max_backprop)}.

    k must be static under jit, so it cannot come from a traced key. A function of the
    step alone, so that a resumed run draws what an unbroken one would, and so that
    runs of different seeds share a program.
    """
    if num_recurrences == 1:
        return Depth(0, 1)
    rng = np.random.default_rng(step)
    n = int(rng.integers(0, num_recurrences))
    k = int(rng.integers(1, min(num_recurrences - n, max_backprop) + 1))
    return Depth(n, k)
