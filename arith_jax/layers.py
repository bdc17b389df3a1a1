"""One layer of the recurrent block: attention, gated MLP, norms.

Imports `attention`, `linear` and `norms`.
"""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from arith_jax import norms
from arith_jax.attention import Attention, Cache, Context
from arith_jax.linear import Linear, matrix_init
from arith_jax.model_config import ModelConfig


class Norm(nn.Module):
    """LayerNorm of a sum with float32 statistics; output in the model's dtype."""

    config: ModelConfig

    @nn.compact
    def __call__(self, *inputs: Float[Array, "*dims d"]) -> Float[Array, "*dims d"]:
        """Adds up and normalises the last axis."""
        cfg, width = self.config, inputs[0].shape[-1]
        scale, bias = ScaleAndBias(name="LayerNorm_0")(width)
        in_kernel = cfg.uses_kernels and norms.fits(width)
        return norms.layer_norm(inputs, scale, bias, cfg.norm_eps, cfg.dtype, in_kernel)


class ScaleAndBias(nn.Module):
    """Parameters of a norm, named as Flax names them."""

    @nn.compact
    def __call__(self, width: int) -> tuple[Float[Array, " d"], Float[Array, " d"]]:
        """Ones and zeros at the start."""
        scale = self.param("scale", nn.initializers.ones, (width,))
        return scale, self.param("bias", nn.initializers.zeros, (width,))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def gated(in_one: bool, x: Float[Array, "*dims m"]) -> Float[Array, "*dims n"]:
    """gelu(g) * u, exact GELU, of the halves (u, g) of the last axis.

    Its gradient keeps `x` only and is worked out in float32.

    Args:
        in_one: Whether both halves of the gradient are one operation, each number of
            which takes the work of two: faster where memory is what takes time.
        x: Both halves.
    """
    del in_one  # for the gradient
    u, g = halves(x)
    return (g * normal_cdf(g) * u).astype(x.dtype)


def gated_forward(in_one: bool, x: Array) -> tuple[Array, Array]:
    """The product, and what the backward pass needs."""
    return gated(in_one, x), x


def gated_backward(in_one: bool, x: Array, d_out: Array) -> tuple[Array]:
    """Gradient of `gated`."""
    u, g = halves(x)
    d_out = d_out.astype(jnp.float32)
    cdf, density = normal_cdf(g), jnp.exp(-0.5 * g * g) / math.sqrt(2 * math.pi)
    d_u, d_g = d_out * g * cdf, d_out * u * (cdf + g * density)
    if not in_one:
        return (jnp.concatenate([d_u, d_g], axis=-1).astype(x.dtype),)
    shape = (*x.shape[:-1], 2, x.shape[-1] // 2)
    is_first = jax.lax.broadcasted_iota(jnp.int32, shape, x.ndim - 1) == 0
    d_x = jnp.where(is_first, d_u[..., None, :], d_g[..., None, :])
    return (d_x.astype(x.dtype).reshape(x.shape),)


gated.defvjp(gated_forward, gated_backward)


def halves(x: Array) -> list[Array]:
    """Both halves of the last axis in float32."""
    return [half.astype(jnp.float32) for half in jnp.split(x, 2, axis=-1)]


def normal_cdf(x: Array) -> Array:
    """Distribution function of the standard normal distribution."""
    return 0.5 * (1 + jax.lax.erf(x * math.sqrt(0.5)))


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
        both = Linear(self.config.mlp_width, init, name="in")(x)
        hidden = gated(self.config.uses_kernels, both)
        return Linear(x.shape[-1], init, name="out")(hidden)  # pyright: ignore


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
        norm = lambda name: Norm(cfg, name=name)
        before = norm if cfg.norm == "sandwich" else lambda name: lambda h: h
        if cfg.injection == "layer":
            x = x + injected
        attention = Attention(cfg, name="attention")
        out, cache = attention(before("attention_in_norm")(x), context, cache)
        x = norm("attention_norm")(x, out)
        out = Mlp(cfg, name="mlp")(before("mlp_in_norm")(x))
        return norm("mlp_norm")(x, out), cache
