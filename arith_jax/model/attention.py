"""Attention: learned biases, windows, caches."""

import math
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from arith_jax.config.model import Execution
from arith_jax.config.training import NO_NOISE, Noise
from arith_jax.kernels import attention as kernel
from arith_jax.kernels import dispatch
from arith_jax.model import banded, biases, gather
from arith_jax.model.context import Context, Tokens, block_context, visible
from arith_jax.model.gather import TargetIndex
from arith_jax.model.initializers import Initializer, lecun_normal, qkv_init
from arith_jax.model.noise import is_far_in_others, noise_logits
from arith_jax.model.pieces import blocks_at_a_time, in_pieces, queries_at_a_time
from arith_jax.positions.schemes import Abacus, Scheme

MASKED = -1e9
QK_GAIN = 2.0  # Of normalised queries and keys at the start.


class Cache(NamedTuple):
    """Keys and values of one layer in one recurrence, heads before tokens."""

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
    # The barrier keeps XLA from fusing the whole bias into every pass of the softmax,
    # which takes several times as long to compile on a GPU and runs slower on a CPU.
    logits = jax.lax.optimization_barrier(logits / math.sqrt(query.shape[-1]) + bias)
    weights = jax.nn.softmax(logits, axis=-1)
    return jnp.einsum("bhts,bshc->bthc", weights.astype(value.dtype), value), weights


class Attention(nn.Module):
    """Causal self-attention that adds a bias for each level of the position ids.

    Attributes:
        num_heads: Number of heads.
        scheme: How tokens are numbered, and who can see whom.
        positions: Any of "relative_abacus", "rotary_abacus", "fire" and "rope".
        fire_max_length: Where there is a `noise` generator, FIRE sees random places
            below this; 0, or no more than a row has tokens: those of the row.
        window: Differences of digits with a bias of their own.
        is_windowed: Whether digits beyond the window are hidden.
        qk_norm: Whether queries and keys are normalised, with a learned scale.
        length_scale: Whether logits grow with the logarithm of the visible keys.
        noise: What disturbs attention where there is a `noise` generator.
        kernel_init: Initializer of the output matrix and of FIRE's.
        qkv_init: Initializer of queries, keys and values, [d, 3, d].
        execution: How the device computes it.
    """

    num_heads: int = 4
    scheme: Scheme = Abacus()
    positions: tuple[str, ...] = ("relative_abacus",)
    fire_max_length: int = 0
    window: int = 2
    is_windowed: bool = True
    qk_norm: bool = True
    length_scale: bool = False
    noise: Noise = NO_NOISE
    kernel_init: Initializer = lecun_normal
    qkv_init: Initializer = qkv_init()
    execution: Execution = Execution()

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b t d"],
        context: Context,
        *,
        cache: Cache | None = None,
        targets: TargetIndex | None = None,
    ) -> tuple[Float[Array, "b a d"], Cache | None]:
        """Output, and the cache with new keys and values written.

        Args:
            x: State of every token.
            context: Where queries and keys are.
            cache: Keys and values before these; None: there are none.
            targets: Tokens whose output is wanted; None: all.
        """
        b, t, d = x.shape
        weights = self.param("qkv_kernel", self.qkv_init, (d, 3, d), jnp.float32)
        qkv = jnp.einsum("btd,dnf->btnf", x, weights.astype(x.dtype))
        qkv = qkv.reshape(b, t, 3, self.num_heads, d // self.num_heads)
        gain = jnp.ones((self.num_heads,), jnp.float32)
        if self.qk_norm:
            initial = nn.initializers.constant(QK_GAIN)
            gain = self.param("qk_scale", initial, (self.num_heads,), jnp.float32)
        if cache is None and self.uses_kernel(context, qkv.shape[-1]):
            out = self.by_kernel(qkv, gain, context)
        else:
            out, cache = self.by_operations(qkv, gain, context, cache)
        out = out.reshape(b, t, d)
        if targets is not None:
            out = gather.gather_targets(out, targets)
        project = nn.Dense(
            d,
            use_bias=False,
            kernel_init=self.kernel_init,
            dtype=x.dtype,
            name="out",
        )
        return project(out), cache

    @property
    def is_noisy(self) -> bool:
        """Whether attention is disturbed."""
        return self.noise.is_on and self.has_rng("noise")

    def uses_kernel(self, context: Context, head_width: int) -> bool:
        """Whether the kernel computes this attention."""
        if self.is_mutable_collection("intermediates"):
            return False  # Weights are wanted, which the kernel never has.
        problem = kernel.problem(head_width, self.window)
        unsupported = {
            "rotary positions": bool({"rope", "rotary_abacus"} & set(self.positions)),
            "model.length_scale": self.length_scale,
            f"data.position_ids={self.scheme.name!r}": len(self.scheme.levels) > 1,
            "blocks": context.band is not None,
            "what train.* disturbs attention by": self.is_noisy,
        }
        for name, applies in unsupported.items():
            if applies:
                problem = f"there is none for {name}"
        return dispatch.chosen(self.execution.kernels, "attention", problem)

    def by_kernel(
        self,
        qkv: Float[Array, "b t 3 h c"],
        gain: Float[Array, " h"],
        context: Context,
    ) -> Float[Array, "b t h c"]:
        """All of attention in one kernel."""
        bias = dense_bias = None
        if "relative_abacus" in self.positions:
            bias = self.relative_bias("abacus", self.window).weights().T
        if "fire" in self.positions:
            dense_bias = self.fire_bias(context).astype(qkv.dtype)
        spec = kernel.AttentionSpec(
            max_difference=0 if bias is None else self.window + 1,
            window=self.window if self.is_windowed else None,
            qk_norm=self.qk_norm,
            dense_bias=dense_bias is not None,
            packed=context.bounds is not None,
        )
        scale = gain * qkv.shape[-1] ** -0.5
        table = kernel.make_table(scale, bias, self.num_heads)
        return kernel.attend(
            spec,
            qkv,
            context.query.levels[0],
            table,
            bounds=context.bounds,
            bias=dense_bias,
        )

    def by_operations(
        self,
        qkv: Float[Array, "b t 3 h c"],
        gain: Float[Array, " h"],
        context: Context,
        cache: Cache | None,
    ) -> tuple[Float[Array, "b t h c"], Cache | None]:
        """Attention by plain operations; the cache as in `__call__`."""
        q, k, v = (qkv[:, :, i] for i in range(3))
        if self.qk_norm:
            q = rms_normalise(q) * gain[None, None, :, None].astype(q.dtype)
            k = rms_normalise(k)
        if "rope" in self.positions:
            q, k = (biases.rotate(x, context.query.index) for x in (q, k))
        if "rotary_abacus" in self.positions:
            q, k = (biases.rotate(x, context.query.levels[0]) for x in (q, k))
        if self.length_scale:
            factor = biases.log_length_factor(context.query.index + 1)
            q = q * factor[:, :, None, None].astype(q.dtype)
        if cache is not None:
            cache = Cache(
                write_cache(cache.keys, k, context.query.index),
                write_cache(cache.values, v, context.query.index),
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
        """Attention of whole rows or, if the context has a band, block by block.

        Raises:
            ValueError: If there is noise in blocks.
        """
        band = context.band
        if band is not None:
            if self.is_noisy:
                raise ValueError(
                    f"what disturbs attention in training, {self.noise}, needs whole "
                    "rows, not blocks"
                )
            context = block_context(context, band)
            q = banded.in_blocks(q, band.queries)
            k, v = (banded.in_blocks(x, band.keys) for x in (k, v))
            whole, size = (q, k, v, context), blocks_at_a_time(len(q))
            out = in_pieces(self, Attention.weigh_at_once, whole, 0, size)
            return banded.in_rows(out, band)
        size = queries_at_a_time(q.shape[1], k.shape[1])
        # Noise is drawn for whole rows, and FIRE's bias of segments is picked from one.
        if self.has_rng("noise") or context.query.segment is not None:
            size = q.shape[1]

        def weigh(layer: "Attention", q: Array, query: Tokens) -> Array:
            return layer.weigh_at_once(q, k, v, context._replace(query=query))

        return in_pieces(self, weigh, (q, context.query), 1, size)

    def weigh_at_once(
        self,
        q: Float[Array, "b t h c"],
        k: Float[Array, "b s h c"],
        v: Float[Array, "b s h c"],
        context: Context,
    ) -> Float[Array, "b t h c"]:
        """Attention of all queries to all keys."""
        bias = self.bias(context)
        if self.length_scale:
            factor = biases.log_length_factor(context.query.index + 1)
            bias = bias * factor[:, None, :, None]
        window = self.window if self.is_windowed else None
        mask = visible(self.scheme, context, window)
        if self.is_noisy:
            draw = partial(self.make_rng, "noise")
            logits = noise_logits(self.noise, draw, context, self.window)
            bias = bias + logits[:, None]
            if self.noise.far_problems:
                mask = mask | is_far_in_others(context, self.window)
        bias = jnp.where(mask[:, None], bias, MASKED)
        out, weights = attend(q, k, v, bias)
        self.sow("intermediates", "weights", weights)
        return out

    def relative_bias(self, level: str, window: int) -> biases.RelativeBias:
        """The bias on differences of one level of the ids."""
        return biases.RelativeBias(
            self.num_heads,
            window,
            is_one_of_several=len(self.scheme.levels) > 1,
            name=f"relative_{level}",
        )

    def fire_bias(self, context: Context) -> Float[Array, "#b h t s"]:
        """FIRE's bias; of rows of several segments, picked from that of one row."""
        bias = biases.FireBias(
            self.num_heads, kernel_init=self.kernel_init, name="fire"
        )
        width = context.query.index.shape[1]
        index = jnp.arange(width)
        if self.fire_max_length > width and self.has_rng("noise"):
            key = self.make_rng("noise")
            index = biases.random_places(key, width, self.fire_max_length)
            return bias(index[context.query.index], index[context.key.index])
        if context.query.segment is None:
            return bias(context.query.index, context.key.index)
        table = bias(index[None], index[None])[0]
        return biases.lookup_pairs(table, context.query.index, self.execution.dtype)

    def bias(self, context: Context) -> Float[Array, "#b #h #t #s"]:
        """Sum of the learned position biases, before the length factor."""
        bias = jnp.zeros((1, 1, 1, 1), jnp.float32)
        pairs = zip(context.query.levels, context.key.levels, strict=True)
        for level, (query, key) in zip(self.scheme.levels, pairs, strict=True):
            # Only the first level can do without a bias of its own.
            if level.window is not None or "relative_abacus" in self.positions:
                window = self.window if level.window is None else level.window
                bias = bias + self.relative_bias(level.name, window)(query, key)
        return bias + self.fire_bias(context) if "fire" in self.positions else bias


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
    size = kernel.inverse_rms(x)[..., None]
    return (x.astype(jnp.float32) * size).astype(x.dtype)
