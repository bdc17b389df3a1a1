"""One layer of the recurrent block: attention, gated MLP, norms, initialisers.

Imports `model_config`, `positions` and `banded`.
"""

import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from arith_jax import banded, positions
from arith_jax.model_config import ModelConfig

MASKED = -1e9
# A line of the answer is made from the one before and what stands beside it.
LINE_WINDOW = 1
# A key of a list is in the column of the line above, or in the one before.
COLUMN_WINDOW = 2


class Context(NamedTuple):
    """Where queries and keys are: sequence index and Abacus id of each.

    The Abacus ids that attention compares start at 1 in every number; only `table_row`,
    the queries' rows of an Abacus table, has the offset. With a `band`, attention works
    in blocks of tokens with neighbouring Abacus ids. With several problems in a row,
    indices count from the start of each, and `problem` tells them apart. Two-level ids
    add the line of written work.
    """

    query: Int[Array, "#b t"]
    key: Int[Array, "#b s"]
    query_abacus: Int[Array, "b t"]
    key_abacus: Int[Array, "b s"]
    table_row: Int[Array, "b t"]
    band: banded.Band | None = None
    problem: Int[Array, "b t"] | None = None
    query_line: Int[Array, "b t"] | None = None
    key_line: Int[Array, "b s"] | None = None
    query_column: Int[Array, "b t"] | None = None
    key_column: Int[Array, "b s"] | None = None


class Cache(NamedTuple):
    """Keys and values of one layer in one recurrence, in the order products read."""

    keys: Float[Array, "b h s c"]
    values: Float[Array, "b h s c"]


def deepnorm_gain(config: ModelConfig) -> float:
    """Initial gain of values, projections and MLPs: (8 N)^(-1/4), N layers in depth.

    Source:
        Wang et al. 2022 (DeepNorm) for decoders; the original's `deepnorm-straight`.
    """
    return (8 * config.layers * config.recurrences) ** -0.25


def xavier(gain: float) -> nn.initializers.Initializer:
    """Normal with std gain * sqrt(2 / (fan_in + fan_out))."""
    return nn.initializers.variance_scaling(gain**2, "fan_avg", "normal")


def matrix_init(config: ModelConfig) -> nn.initializers.Initializer:
    """Initialiser of every matrix but queries and keys."""
    if config.init == "deepnorm":
        return xavier(deepnorm_gain(config))
    return nn.initializers.variance_scaling(1.0, "fan_in", "normal")


def qkv_init(config: ModelConfig) -> nn.initializers.Initializer:
    """Initialiser of the [d, 3, f] kernel of queries, keys and values.

    Source:
        The original scales the last third of the ROWS of its fused matrix by the value
        gain. Where rows are grouped by head (its `self-attention`, used by FIRE and
        RoPE) that hits all of the last heads and not the values:
        `qkv_gain_quirk` does the same.
    """
    value_gain = deepnorm_gain(config) if config.init == "deepnorm" else 1.0

    def init(key: PRNGKeyArray, shape: tuple[int, ...], dtype: Any = jnp.float32):
        # d -> f are square here, so xavier and fan-in scaling agree at gain 1.
        rows = jnp.arange(3 * shape[2]).reshape(3, shape[2])
        if config.qkv_gain_quirk:
            part, column = jnp.divmod(rows, shape[2])
            head, place = jnp.divmod(column, config.head_width)
            rows = (3 * head + part) * config.head_width + place
        gains = jnp.where(rows < 2 * shape[2], 1.0, value_gain).astype(dtype)[None]
        return jax.random.normal(key, shape, dtype) * gains * shape[0] ** -0.5

    return init


def attend(
    query: Float[Array, "b t h c"],
    key: Float[Array, "b s h c"],
    value: Float[Array, "b s h c"],
    bias: Float[Array, "#b #h t s"],
) -> tuple[Float[Array, "b t h c"], Float[Array, "b h t s"]]:
    """Softmax attention with logits q.k / sqrt(c) + bias, and its float32 weights."""
    logits = jnp.einsum("bthc,bshc->bhts", query, key).astype(jnp.float32)
    # The barrier keeps XLA from fusing the whole bias into every pass of the softmax:
    # compiling that took over 60 s on an H100 (20 s with it) and ran slower on a CPU.
    logits = jax.lax.optimization_barrier(logits / math.sqrt(query.shape[-1]) + bias)
    weights = jax.nn.softmax(logits, axis=-1)
    return jnp.einsum("bhts,bshc->bthc", weights.astype(value.dtype), value), weights


class Attention(nn.Module):
    """Causal self-attention with the position rules of the config."""

    config: ModelConfig

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t d"], context: Context, cache: Cache | None
    ) -> tuple[Float[Array, "b t d"], Cache | None]:
        """Output, and the cache with the new keys and values written."""
        cfg = self.config
        b, t, d = x.shape
        kernel = self.param("qkv_kernel", qkv_init(cfg), (d, 3, d))
        qkv = jnp.einsum("btd,dnf->btnf", x, kernel.astype(x.dtype))
        q, k, v = (
            qkv[:, :, i].reshape(b, t, cfg.heads, cfg.head_width) for i in range(3)
        )
        if cfg.qk_norm:
            gain = self.param(
                "qk_scale", nn.initializers.constant(cfg.qk_gain), (cfg.heads,)
            )
            gain = gain[None, None, :, None].astype(q.dtype)
            q, k = rms_normalise(q) * gain, rms_normalise(k)
        if "rope" in cfg.positions:
            q = positions.rotate(q, context.query)
            k = positions.rotate(k, context.query)
        if "rotary_abacus" in cfg.positions:
            q = positions.rotate(q, context.query_abacus)
            k = positions.rotate(k, context.query_abacus)
        if cfg.length_scale:
            factor = positions.log_length_factor(context.query + 1)
            q = q * factor[:, :, None, None].astype(q.dtype)
        if cache is not None:
            cache = Cache(
                write_cache(cache.keys, k, context.query),
                write_cache(cache.values, v, context.query),
            )
            k, v = (jnp.swapaxes(x, 1, 2).astype(q.dtype) for x in cache)
        out = self.weigh(q, k, v, context).reshape(b, t, d)
        return Linear(d, matrix_init(cfg), name="out")(out), cache

    def weigh(
        self,
        q: Float[Array, "b t h c"],
        k: Float[Array, "b s h c"],
        v: Float[Array, "b s h c"],
        context: Context,
    ) -> Float[Array, "b t h c"]:
        """Attention of whole rows, or block by block if the context has a band."""
        cfg, band = self.config, context.band
        if band is not None:
            if self.has_rng("noise"):
                raise ValueError("a band is for evaluation: key noise needs whole rows")
            context = block_context(context, band)
            q, (k, v) = (
                banded.in_blocks(q, band.queries),
                (banded.in_blocks(x, band.keys) for x in (k, v)),
            )
        bias = self.bias(context)
        if cfg.length_scale:
            factor = positions.log_length_factor(context.query + 1)
            bias = bias * factor[:, None, :, None]
        if self.has_rng("noise") and cfg.key_noise > 0:
            noise = jax.random.uniform(self.make_rng("noise"), k.shape[:2])
            bias = bias + cfg.key_noise * noise[:, None, None, :]
        bias = jnp.where(visible(cfg, context)[:, None], bias, MASKED)
        out, weights = attend(q, k, v, bias)
        self.sow("intermediates", "weights", weights)
        return out if band is None else banded.in_rows(out, band)

    def bias(self, context: Context) -> Float[Array, "#b #h #t #s"]:
        """Sum of the learned position biases, before the length factor."""
        cfg = self.config
        bias = jnp.zeros((1, 1, 1, 1), jnp.float32)
        if "relative_abacus" in cfg.positions:
            relative = positions.RelativeBias(
                cfg.heads, cfg.abacus_window, name="relative_abacus"
            )
            bias = bias + relative(context.query_abacus, context.key_abacus)
        if context.query_line is not None and context.key_line is not None:
            relative = positions.RelativeBias(
                cfg.heads, LINE_WINDOW, name="relative_line"
            )
            bias = bias + relative(context.query_line, context.key_line)
        if context.query_column is not None and context.key_column is not None:
            relative = positions.RelativeBias(
                cfg.heads, COLUMN_WINDOW, name="relative_column"
            )
            bias = bias + relative(context.query_column, context.key_column)
        if "fire" in cfg.positions:
            fire = positions.FireBias(
                cfg.heads, kernel_init=matrix_init(cfg), name="fire"
            )
            bias = bias + fire(context.query, context.key)
        return bias


def visible(config: ModelConfig, context: Context) -> Bool[Array, "#b t s"]:
    """Which keys a query may attend to: itself and the past, within the windows.

    Items of a list, which have a line but no column, see themselves only, and are seen
    from every line of the answer.
    """
    seen = context.key[:, None, :] <= context.query[:, :, None]
    if context.problem is not None:
        seen = seen & (context.problem[:, None, :] == context.problem[:, :, None])
    if config.abacus_far == "mask":
        seen = seen & ~positions.out_of_window(
            context.query_abacus, context.key_abacus, config.abacus_window
        )
    if context.query_line is None or context.key_line is None:
        return seen
    hidden = positions.out_of_window(context.query_line, context.key_line, LINE_WINDOW)
    if context.query_column is not None and context.key_column is not None:
        hidden = hidden | positions.out_of_window(
            context.query_column, context.key_column, COLUMN_WINDOW
        )
        other = context.query_line[:, :, None] != context.key_line[:, None, :]
        other = other & (context.query_column == 0)[:, :, None]
        hidden = jnp.where((context.key_column > 0)[:, None, :], hidden, other)
    return seen & ~hidden


def block_context(context: Context, band: banded.Band) -> Context:
    """Context of the blocks of a band, which take the place of the rows."""
    abacus, rows = context.query_abacus, band.queries.shape[0] * band.queries.shape[1]
    return Context(
        band.queries.reshape(rows, -1),
        band.keys.reshape(rows, -1),
        banded.in_blocks(abacus, band.queries),
        banded.in_blocks(abacus, band.keys),
        banded.in_blocks(context.table_row, band.queries),
    )


def write_cache(
    cache: Float[Array, "b h s c"],
    new: Float[Array, "b t h c"],
    index: Int[Array, "#b t"],
) -> Float[Array, "b h s c"]:
    """Stores a prefix (t > 1, from position 0) or one token at its row's position."""
    new = jnp.swapaxes(new, 1, 2).astype(cache.dtype)
    if new.shape[2] > 1:
        return jax.lax.dynamic_update_slice(cache, new, (0, 0, 0, 0))
    # In place, unlike a select, which would write all of the cache.
    return cache.at[jnp.arange(len(new)), :, index[:, 0]].set(new[:, :, 0])


def rms_normalise(x: Float[Array, "b t h c"]) -> Float[Array, "b t h c"]:
    """Divides each head's vector by its root mean square, computed in float32."""
    x32 = x.astype(jnp.float32)
    mean_square = jnp.mean(x32 * x32, axis=-1, keepdims=True)
    return (x32 * jax.lax.rsqrt(mean_square + 1e-6)).astype(x.dtype)


class Linear(nn.Module):
    """A matrix, no bias, float32 parameters, computed in the dtype of its input."""

    features: int
    kernel_init: nn.initializers.Initializer

    @nn.compact
    def __call__(self, x: Float[Array, "*dims d"]) -> Float[Array, "*dims f"]:
        """The product with the matrix."""
        shape = (x.shape[-1], self.features)
        return x @ self.param("kernel", self.kernel_init, shape).astype(x.dtype)


class Norm(nn.Module):
    """LayerNorm with float32 statistics; output in the given dtype."""

    eps: float
    dtype: str

    @nn.compact
    def __call__(self, x: Float[Array, "*dims d"]) -> Float[Array, "*dims d"]:
        """Normalises the last axis."""
        norm = nn.LayerNorm(self.eps, dtype=jnp.float32, use_fast_variance=False)
        return norm(x).astype(self.dtype)


class Mlp(nn.Module):
    """GELU-gated MLP: y = W1 x in halves (u, g); W2 (gelu(g) * u), exact GELU.

    Source:
        The original's `GELUglu`: the activation is on the second half, and
        `mlp_width` counts both halves.
    """

    config: ModelConfig

    @nn.compact
    def __call__(self, x: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
        """Applies it to every token."""
        init = matrix_init(self.config)
        u, g = jnp.split(Linear(self.config.mlp_width, init, name="in")(x), 2, axis=-1)
        hidden = jax.nn.gelu(g, approximate=False) * u
        return Linear(x.shape[-1], init, name="out")(hidden)


class Layer(nn.Module):
    """Attention and MLP with residuals.

    Norms: `post`, x = LN(x + f(x)), as in the original; `sandwich`,
    x = LN(x + f(LN(x))).
    """

    config: ModelConfig

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b t d"],
        injected: Float[Array, "b t d"],
        context: Context,
        cache: Cache | None,
    ) -> tuple[Float[Array, "b t d"], Cache | None]:
        """The new state, and the cache."""
        cfg = self.config
        norm = lambda name: Norm(cfg.norm_eps, cfg.dtype, name=name)
        before = norm if cfg.norm == "sandwich" else lambda name: lambda h: h
        if cfg.injection == "layer":
            x = x + injected
        attention = Attention(cfg, name="attention")
        out, cache = attention(before("attention_in_norm")(x), context, cache)
        x = norm("attention_norm")(x + out)
        x = norm("mlp_norm")(x + Mlp(cfg, name="mlp")(before("mlp_in_norm")(x)))
        return x, cache
