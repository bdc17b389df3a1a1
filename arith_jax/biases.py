"""What attention makes of positions: biases, rotations and windows.

The pure functions and the modules here know nothing of the model, so each can be
imported into another one. Imports nothing of the package.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

# Wider windows are a product with one-hot differences: on a CPU a sum of 67 selects
# takes nine times as long to compile and three times as long to run, and 19 selects
# five times as long to run (docs/experiments.md).
MOST_SELECTS = 4


def rotate(
    x: Float[Array, "b t h c"], pos: Int[Array, "#b t"], base: float = 10_000.0
) -> Float[Array, "b t h c"]:
    """Rotary embedding of queries or keys at integer positions, half-rotation form.

    With sequence positions this is RoPE; with Abacus positions, rotary Abacus: logits
    then depend on differences of digit index only.

    Source:
        Su et al. 2021; the original's `rotary_embedding=true` (NeoX form, full head
        width, base 10000).
    """
    half = x.shape[-1] // 2
    frequency = base ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angle = pos[:, :, None, None].astype(jnp.float32) * frequency[None, None, None]
    cos, sin = jnp.cos(angle).astype(x.dtype), jnp.sin(angle).astype(x.dtype)
    first, second = x[..., :half], x[..., half:]
    return jnp.concatenate(
        [first * cos - second * sin, second * cos + first * sin], axis=-1
    )


def out_of_window(
    query: Int[Array, "b t"], key: Int[Array, "b s"], window: int
) -> Bool[Array, "b t s"]:
    """True where the key is a digit whose index differs by more than `window`.

    Tokens that are not digits (index 0) are never out of the window of a query.
    """
    difference = query[:, :, None] - key[:, None, :]
    return (jnp.abs(difference) > window) & (key > 0)[:, None, :]


class RelativeBias(nn.Module):
    """One learned logit per head for each clipped difference of two positions.

    bias[b, h, t, s] = `gain` * weight[clip(query[b, t] - key[b, s]), h], where
    differences beyond `window` share one "further left" and one "further right" value.
    It depends on differences only, so it has no table of positions, no offset and no
    maximum length. With Abacus ids, digits of equal place value attract each other at
    any length; with sequence indices, it tells the last few tokens apart.

    Attributes:
        heads: Number of heads.
        window: Largest difference, in positions, with a value of its own.
        gain: Factor on the stored parameter. Adam moves a parameter by about its
            learning rate a step, which would take thousands of steps to build a useful
            bias of 5 or 10.

    Source:
        Clipped distances: Shaw et al. 2018, as a bias: T5 (Raffel et al. 2020). On
        Abacus ids: ours, after the coupled positions of Cho et al. 2024.
    """

    heads: int
    window: int
    gain: float = 20.0

    def setup(self):
        """The parameter."""
        shape = (2 * self.window + 3, self.heads)
        self.bias = self.param("bias", nn.initializers.zeros, shape)

    def weights(self) -> Float[Array, "n h"]:
        """Bias of each clipped difference, from the most negative."""
        return self.gain * self.bias

    def __call__(
        self, query: Int[Array, "#b t"], key: Int[Array, "#b s"]
    ) -> Float[Array, "#b h t s"]:
        """Bias of every query and key."""
        weights, edge = self.weights(), self.window + 1
        difference = query[:, :, None] - key[:, None, :]
        difference = jnp.clip(difference, -edge, edge) + edge
        if self.window > MOST_SELECTS:
            one_hot = jax.nn.one_hot(difference, 2 * edge + 1, dtype=weights.dtype)
            return jnp.einsum("btsn,nh->bhts", one_hot, weights)
        # A sum of selects fuses into its consumer; a gather would materialise the bias
        # and its gradient would be a scatter.
        difference = difference[:, None]
        bias = jnp.zeros((1, 1, 1, 1), weights.dtype)
        for index in range(2 * edge + 1):
            value = weights[index][None, :, None, None]
            bias = bias + jnp.where(difference == index, value, 0.0)
        return bias


class FireBias(nn.Module):
    """FIRE: a small MLP of the normalised log distance gives each head's logit.

    For query i and key j: z = ln(1 + |c (i - j)|) / (ln(1 + |c| max(i, T)) + 1e-6),
    T = |m * 512|, bias = W2 relu(W1 z + b1) + b2.

    Attributes:
        heads: Number of heads.
        hidden: Width of the MLP.
        kernel_init: Initialiser of both matrices.

    Source:
        Li et al. 2023 (FIRE); constants and initial values of the original (c 0.1,
        m 1, biases 0). Randomised positions (`attention.max_length` > 0) are left out.
    """

    heads: int
    hidden: int = 32
    initial_threshold: float = 512.0
    kernel_init: nn.initializers.Initializer = nn.initializers.xavier_normal()

    @nn.compact
    def __call__(
        self, query: Int[Array, "#b t"], key: Int[Array, "#b s"]
    ) -> Float[Array, "#b h t s"]:
        """Bias of every query and key."""
        slope = self.param("slope", nn.initializers.constant(0.1), ())
        multiplier = self.param("multiplier", nn.initializers.ones, ())
        threshold = jnp.abs(multiplier * self.initial_threshold)
        q = query[:, :, None].astype(jnp.float32)
        k = key[:, None, :].astype(jnp.float32)
        distance = jnp.log1p(jnp.abs(slope * (q - k)))
        scale = jnp.log1p(jnp.abs(slope * jnp.maximum(q, threshold))) + 1e-6
        z = (distance / scale)[..., None]
        z = nn.Dense(self.hidden, kernel_init=self.kernel_init, name="hidden")(z)
        bias = nn.Dense(self.heads, kernel_init=self.kernel_init, name="out")(
            nn.relu(z)
        )
        return jnp.moveaxis(bias, -1, 1)


def chosen(
    table: Float[Array, "h n n"], index: Int[Array, "b t"], dtype: str
) -> Float[Array, "b h t t"]:
    """Entries of a table for every pair of tokens, in the given dtype.

    Products with one-hot rows: the gradient of a gather would be a scatter.
    """
    one_hot = jax.nn.one_hot(index, table.shape[1], dtype=dtype)
    exact = jax.lax.Precision.HIGHEST if dtype == "float32" else None
    rows = jnp.einsum("bti,hij->bthj", one_hot, table.astype(dtype), precision=exact)
    return jnp.einsum("bthj,bsj->bhts", rows, one_hot, precision=exact)


def log_length_factor(
    num_visible: Int[Array, "#b t"], reference: int = 32
) -> Float[Array, "#b t"]:
    """ln(n + 1) / ln(reference) for queries that see n keys.

    Multiplied with the logits it keeps a fixed margin from drowning in the growing sum
    of a longer softmax (Chiang & Cholak 2022; SSMax, arXiv 2501.19399).
    """
    return jnp.log(num_visible.astype(jnp.float32) + 1.0) / math.log(reference)
