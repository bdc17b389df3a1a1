"""Floating-point operations of a model, counted by formula."""

from arith_jax.config.model import ModelConfig


def flops_per_row(
    config: ModelConfig,
    width: int,
    *,
    num_frozen: int = 0,
    num_trained: int = 0,
    num_targets: int | None = None,
) -> int:
    """Floating-point operations of matrix products for one row of one training step.

    A multiplication and an addition count as two; the backward pass costs twice the
    forward pass; recurrences without gradient only have the forward pass. Elementwise
    work, embeddings by look-up, FIRE's small MLP and the optimizer are left out; what
    causality or a window masks is counted.

    Args:
        config: The model.
        width: Tokens of a row, padding included.
        num_frozen: Recurrences without gradient.
        num_trained: Recurrences with gradient; 0 counts a forward pass alone.
        num_targets: Tokens for which the end of the last layer and the readout are
            computed; None: all.
    """
    d, f = config.width, config.mlp_width
    end = 2 * (d * d + d * f + f // 2 * d)
    layer = 2 * 3 * d * d + 4 * width * d + end
    readout = 2 * d * config.vocab_size
    if config.mcleish.head_mlp:
        readout += 2 * (d * f + f // 2 * d)
    if config.mcleish.adapter:
        readout += 2 * d * d
    passes = num_frozen + 3 * num_trained
    ends = 3 if num_trained else 1
    num_targets = width if num_targets is None else num_targets
    left_out = (width - num_targets) * end * ends
    total = width * config.num_layers * layer * passes
    return total - left_out + num_targets * readout * ends
