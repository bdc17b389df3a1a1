"""Attention: who sees whom, learned biases, caches.

Imports `linear`, `biases`, `banded`, `reading` and `flash`.
"""

import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from arith_jax import banded, biases, flash, reading
from arith_jax.flash_kernels import MASKED, Rule
from arith_jax.linear import Linear, matrix_init, qkv_init
from arith_jax.model_config import TOKEN_POSITIONS, ModelConfig
from arith_jax.reading import Read

# A line of the answer is made from the one before and what stands beside it.
LINE_WINDOW = 1
# A key of a list is in the column of the line above, or in the one before.
COLUMN_WINDOW = 2


class Context(NamedTuple):
    """Where queries and keys are: sequence index and Abacus id of each.

    The Abacus ids that attention compares start at 1 in every number; only `table_row`,
    the queries' rows of an Abacus table, has the offset. With a `band`, attention works
    in blocks of tokens with neighbouring Abacus ids. With several problems in a row,
    indices count from the start of each, `problem` tells them apart, and `lengths` are
    their tokens. Two-level ids add the line of written work.
    """

    query: Int[Array, "#b t"]
    key: Int[Array, "#b s"]
    query_abacus: Int[Array, "b t"]
    key_abacus: Int[Array, "b s"]
    table_row: Int[Array, "b t"]
    band: banded.Band | None = None
    problem: Int[Array, "b t"] | None = None
    lengths: Int[Array, "b n"] | None = None
    query_line: Int[Array, "b t"] | None = None
    key_line: Int[Array, "b s"] | None = None
    query_column: Int[Array, "b t"] | None = None
    key_column: Int[Array, "b s"] | None = None


class Cache(NamedTuple):
    """Keys and values of one layer in one recurrence, in the order products read."""

    keys: Float[Array, "b h s c"]
    values: Float[Array, "b h s c"]


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
        self,
        x: Float[Array, "b t d"],
        context: Context,
        cache: Cache | None,
        read: Read | None = None,
    ) -> tuple[Float[Array, "b a d"], Cache | None]:
        """Output of what is read, and the cache with new keys and values written."""
        cfg = self.config
        b, t, d = x.shape
        kernel = self.param("qkv_kernel", qkv_init(cfg), (d, 3, d))
        qkv = jnp.einsum("btd,dnf->btnf", x, kernel.astype(x.dtype))
        qkv = qkv.reshape(b, t, 3, cfg.heads, cfg.head_width)
        gain = jnp.ones((cfg.heads,))
        if cfg.qk_norm:
            initial = nn.initializers.constant(cfg.qk_gain)
            gain = self.param("qk_scale", initial, (cfg.heads,))
        if cache is None and self.fits_kernel(context):
            out = self.in_kernel(qkv, gain, context)
        else:
            out, cache = self.in_steps(qkv, gain, context, cache)
        out = out.reshape(b, t, d)
        if read is not None:
            out = reading.take(out, read)
        return Linear(d, matrix_init(cfg), name="out")(out), cache

    def fits_kernel(self, context: Context) -> bool:
        """Whether `flash` can do it: see there, and `ModelConfig.uses_kernels`."""
        cfg = self.config
        others = set(cfg.positions) - {*TOKEN_POSITIONS, "relative_abacus", "fire"}
        is_noisy = self.has_rng("noise") and cfg.key_noise > 0
        is_watched = self.is_mutable_collection("intermediates")
        return cfg.uses_kernels and not (
            others
            or cfg.length_scale
            or cfg.position_levels > 1
            or context.band is not None
            or is_noisy
            or is_watched
            or not flash.fits(cfg.head_width, cfg.abacus_window)
        )

    def in_kernel(
        self,
        qkv: Float[Array, "b t 3 h c"],
        gain: Float[Array, " h"],
        context: Context,
    ) -> Float[Array, "b t h c"]:
        """All of attention in one kernel."""
        cfg = self.config
        bias, dense = None, None
        if "relative_abacus" in cfg.positions:
            bias = self.relative("abacus", cfg.abacus_window).weights().T
        if "fire" in cfg.positions:
            dense = self.fire(context).astype(qkv.dtype)
        rule = Rule(
            edge=0 if bias is None else cfg.abacus_window + 1,
            window=cfg.abacus_window if cfg.abacus_far == "mask" else None,
            normalise=cfg.qk_norm,
            dense=dense is not None,
            packed=context.lengths is not None,
        )
        table = flash.make_table(gain * cfg.head_width**-0.5, bias, cfg.heads)
        bounds = None
        if context.lengths is not None:
            bounds = flash.bounds(context.lengths, qkv.shape[1])
        return flash.attend(rule, qkv, context.query_abacus, table, bounds, dense)

    def in_steps(
        self,
        qkv: Float[Array, "b t 3 h c"],
        gain: Float[Array, " h"],
        context: Context,
        cache: Cache | None,
    ) -> tuple[Float[Array, "b t h c"], Cache | None]:
        """Attention by plain operations; the cache as in `__call__`."""
        cfg = self.config
        q, k, v = (qkv[:, :, i] for i in range(3))
        if cfg.qk_norm:
            q = rms_normalise(q) * gain[None, None, :, None].astype(q.dtype)
            k = rms_normalise(k)
        if "rope" in cfg.positions:
            q = biases.rotate(q, context.query)
            k = biases.rotate(k, context.query)
        if "rotary_abacus" in cfg.positions:
            q = biases.rotate(q, context.query_abacus)
            k = biases.rotate(k, context.query_abacus)
        if cfg.length_scale:
            factor = biases.log_length_factor(context.query + 1)
            q = q * factor[:, :, None, None].astype(q.dtype)
        if cache is not None:
            cache = Cache(
                write_cache(cache.keys, k, context.query),
                write_cache(cache.values, v, context.query),
            )
            k, v = (jnp.swapaxes(x, 1, 2).astype(q.dtype) for x in cache)
        return self.weigh(q, k, v, context), cache

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
            factor = biases.log_length_factor(context.query + 1)
            bias = bias * factor[:, None, :, None]
        if self.has_rng("noise") and cfg.key_noise > 0:
            noise = jax.random.uniform(self.make_rng("noise"), k.shape[:2])
            bias = bias + cfg.key_noise * noise[:, None, None, :]
        bias = jnp.where(visible(cfg, context)[:, None], bias, MASKED)
        out, weights = attend(q, k, v, bias)
        self.sow("intermediates", "weights", weights)
        return out if band is None else banded.in_rows(out, band)

    def relative(self, name: str, window: int) -> biases.RelativeBias:
        """The bias on differences of the given ids."""
        return biases.RelativeBias(self.config.heads, window, name=f"relative_{name}")

    def fire(self, context: Context) -> Float[Array, "#b h t s"]:
        """FIRE's bias; of packed rows, picked from that of one row."""
        cfg = self.config
        bias = biases.FireBias(cfg.heads, kernel_init=matrix_init(cfg), name="fire")
        if context.problem is None:
            return bias(context.query, context.key)
        index = jnp.arange(context.query.shape[1])[None]
        return biases.chosen(bias(index, index)[0], context.query, cfg.dtype)

    def bias(self, context: Context) -> Float[Array, "#b #h #t #s"]:
        """Sum of the learned position biases, before the length factor."""
        cfg = self.config
        bias = jnp.zeros((1, 1, 1, 1), jnp.float32)
        if "relative_abacus" in cfg.positions:
            relative = self.relative("abacus", cfg.abacus_window)
            bias = bias + relative(context.query_abacus, context.key_abacus)
        if context.query_line is not None and context.key_line is not None:
            relative = self.relative("line", LINE_WINDOW)
            bias = bias + relative(context.query_line, context.key_line)
        if context.query_column is not None and context.key_column is not None:
            relative = self.relative("column", COLUMN_WINDOW)
            bias = bias + relative(context.query_column, context.key_column)
        if "fire" in cfg.positions:
            bias = bias + self.fire(context)
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
        seen = seen & ~biases.out_of_window(
            context.query_abacus, context.key_abacus, config.abacus_window
        )
    if context.query_line is None or context.key_line is None:
        return seen
    hidden = biases.out_of_window(context.query_line, context.key_line, LINE_WINDOW)
    if context.query_column is not None and context.key_column is not None:
        hidden = hidden | biases.out_of_window(
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
    size = flash.inverse_rms(x)[..., None]
    return (x.astype(jnp.float32) * size).astype(x.dtype)
