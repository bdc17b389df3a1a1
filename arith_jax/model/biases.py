"""What attention makes of positions: biases and rotations.

Nothing here knows of the model, so each function and module can be used in another one.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Integer, PRNGKeyArray

# Wider windows are a product with one-hot differences, which a CPU compiles and runs
# several times as fast as a sum of many selects (docs/experiments.md).
MAX_SELECTS = 4


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


class RelativeBias(nn.Module):
    """One learned logit per head for each clipped difference of two positions.

    bias[b, h, t, s] = `gain` * weight[clip(query[b, t] - key[b, s]), h], where
    differences beyond `window` share one "further left" and one "further right" value.
    It depends on differences only, so it has no table of positions, no offset and no
    maximum length. With Abacus ids, digits of equal place value attract each other at
    any length; with sequence indices, it tells the last few tokens apart.

        >>> positions = jnp.array([[1, 2, 0, 1, 2, 3, 0]])
        >>> bias = RelativeBias(num_heads=4, window=2)
        >>> variables = bias.init(jax.random.key(0), positions, positions)
        >>> bias.apply(variables, positions, positions).shape  # add it to the logits
        (1, 4, 7, 7)

    Attributes:
        num_heads: Number of heads.
        window: Largest difference, in positions, with a value of its own.
        gain: Factor on the stored parameter. Adam moves a parameter by about its
            learning rate a step, which would take thousands of steps to build a useful
            bias of 5 or 10.
        is_one_of_several: Whether there are others beside it, as of ids of several
            levels. A CPU takes twice as long for so many selects as for products.

    Source:
        Clipped distances: Shaw et al. 2018, as a bias: T5 (Raffel et al. 2020). On
        Abacus ids: ours, after the coupled positions of Cho et al. 2024.
    """

    num_heads: int
    window: int
    gain: float = 20.0
    is_one_of_several: bool = False

    def setup(self):
        """The parameter."""
        shape = (2 * self.window + 3, self.num_heads)
        self.bias = self.param("bias", nn.initializers.zeros, shape, jnp.float32)

    def weights(self) -> Float[Array, "n h"]:
        """Bias of each clipped difference, from the most negative."""
        return self.gain * self.bias

    def __call__(
        self, query: Integer[Array, "*#b t"], key: Integer[Array, "*#b s"]
    ) -> Float[Array, "*#b h t s"]:
        """Bias of every query and key; ids of any integer dtype and leading axes."""
        weights, edge = self.weights(), self.window + 1
        difference = pairwise_difference(query, key)
        difference = jnp.clip(difference, -edge, edge) + edge
        if self.window > MAX_SELECTS:
            return bias_by_product(difference, weights)
        if not self.is_one_of_several:
            return bias_by_selects(difference, weights)
        return jax.lax.platform_dependent(
            difference, weights, cpu=bias_by_product, default=bias_by_selects
        )


def bias_by_product(
    difference: Int[Array, "*b t s"], weights: Float[Array, "n h"]
) -> Float[Array, "*b h t s"]:
    """The weights of differences 0 to n - 1, by a product with one-hot differences."""
    one_hot = jax.nn.one_hot(difference, weights.shape[0], dtype=weights.dtype)
    return jnp.einsum("...tsn,nh->...hts", one_hot, weights)


def bias_by_selects(
    difference: Int[Array, "*b t s"], weights: Float[Array, "n h"]
) -> Float[Array, "*b h t s"]:
    """The same as a sum of selects, which fuses into what reads it.

    A gather would materialise the bias, and its gradient would be a scatter.
    """
    difference = difference[..., None, :, :]
    ones = (1,) * (difference.ndim - 3)
    bias = jnp.zeros((*ones, 1, 1, 1), weights.dtype)
    for index in range(weights.shape[0]):
        value = weights[index].reshape(*ones, -1, 1, 1)
        bias = bias + jnp.where(difference == index, value, 0.0)
    return bias


class FireBias(nn.Module):
    """FIRE: a small MLP of the normalised log distance gives each head's logit.

    For query i and key j: z = ln(1 + |c (i - j)|) / (ln(1 + |c| max(i, T)) + 1e-6),
    T = |m * 512|, bias = W2 relu(W1 z + b1) + b2.

        >>> index = jnp.arange(5)[None]
        >>> bias = FireBias(num_heads=4)
        >>> variables = bias.init(jax.random.key(0), index, index)
        >>> bias.apply(variables, index, index).shape
        (1, 4, 5, 5)

    Attributes:
        num_heads: Number of heads.
        hidden: Width of the MLP.
        initial_threshold: T at the start, in tokens.
        kernel_init: Initializer of both matrices.

    Source:
        Li et al. 2023 (FIRE); constants and initial values of the original (c 0.1,
        m 1, biases 0). For its randomised positions see `random_places`.
    """

    num_heads: int
    hidden: int = 32
    initial_threshold: float = 512.0
    kernel_init: nn.initializers.Initializer = nn.initializers.xavier_normal()

    @nn.compact
    def __call__(
        self, query: Integer[Array, "*#b t"], key: Integer[Array, "*#b s"]
    ) -> Float[Array, "*#b h t s"]:
        """Bias of every query and key, by their place in the row."""
        slope = self.param("slope", nn.initializers.constant(0.1), (), jnp.float32)
        multiplier = self.param("multiplier", nn.initializers.ones, (), jnp.float32)
        threshold = jnp.abs(multiplier * self.initial_threshold)
        q = query[..., :, None].astype(jnp.float32)
        k = key[..., None, :].astype(jnp.float32)
        distance = jnp.log1p(jnp.abs(slope * (q - k)))
        scale = jnp.log1p(jnp.abs(slope * jnp.maximum(q, threshold))) + 1e-6
        z = (distance / scale)[..., None]
        z = nn.Dense(self.hidden, kernel_init=self.kernel_init, name="hidden")(z)
        bias = nn.Dense(self.num_heads, kernel_init=self.kernel_init, name="out")(
            nn.relu(z)
        )
        return jnp.moveaxis(bias, -1, -3)


def random_places(key: PRNGKeyArray, count: int, limit: int) -> Int[Array, " count"]:
    """Different random numbers below a limit, in ascending order.

        >>> places = random_places(jax.random.key(0), count=5, limit=100)
        >>> bool((jnp.diff(places) > 0).all())
        True

    Args:
        key: Decides them.
        count: How many, at most `limit`.
        limit: Larger than all of them.

    Source:
        Randomised positions (Ruoss et al. 2023) as the original draws them for FIRE
        (`attention.max_length`): anew for each layer and recurrence, one for a batch.
    """
    return jnp.sort(jax.random.permutation(key, limit)[:count])


def pairwise_difference(
    query: Integer[Array, "*#b t"], key: Integer[Array, "*#b s"]
) -> Int[Array, "*#b t s"]:
    """Difference of every pair, in int32, so that unsigned ids do not wrap."""
    query, key = query.astype(jnp.int32), key.astype(jnp.int32)
    return query[..., :, None] - key[..., None, :]


def lookup_pairs(
    table: Float[Array, "h n n"], index: Int[Array, "b t"], dtype: str
) -> Float[Array, "b h t t"]:
    """Entries of a table for every pair of tokens, in the given dtype.

    By products with one-hot rows: the gradient of a gather would be a scatter.
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
