"""One layer of the recurrent block: attention, gated MLP, norms.

Imports `attention`, `gate`, `linear`, `norms` and `reading`.
"""

import flax.linen as nn
from jaxtyping import Array, Float

from arith_jax import gate, norms, reading
from arith_jax.attention import Attention, Cache, Context
from arith_jax.linear import Linear, matrix_init
from arith_jax.model_config import ModelConfig
from arith_jax.reading import Read


class Norm(nn.Module):
    """LayerNorm of a sum with float32 statistics; output in the model's dtype."""

    config: ModelConfig

    @nn.compact
    def __call__(
        self,
        *inputs: Float[Array, "*dims d"],
        added: Float[Array, "*dims d"] | None = None,
    ) -> Float[Array, "*dims d"]:
        """Adds up and normalises the last axis; `added` is added to the result."""
        parts = ScaleAndBias(name="LayerNorm_0")(inputs[0].shape[-1])
        options = norm_options(self.config, inputs[0])
        return norms.layer_norm(
            inputs, *parts, *options, () if added is None else (added,)
        )


class NormBeside(nn.Module):
    """What goes on unchanged and its LayerNorm, as `Norm` makes it, for a branch."""

    config: ModelConfig

    @nn.compact
    def __call__(
        self, x: Float[Array, "*dims d"]
    ) -> tuple[Float[Array, "*dims d"], Float[Array, "*dims d"]]:
        """The input and the branch's."""
        parts = ScaleAndBias(name="LayerNorm_0")(x.shape[-1])
        return norms.beside(x, *parts, *norm_options(self.config, x))


def norm_options(config: ModelConfig, x: Array) -> tuple[float, str, bool]:
    """Epsilon, dtype, and whether kernels normalise such arrays."""
    in_kernel = config.uses_kernels and norms.fits(x.shape[-1])
    return config.norm_eps, config.dtype, in_kernel


class ScaleAndBias(nn.Module):
    """Parameters of a norm, named as Flax names them."""

    @nn.compact
    def __call__(self, width: int) -> tuple[Float[Array, " d"], Float[Array, " d"]]:
        """Ones and zeros at the start."""
        scale = self.param("scale", nn.initializers.ones, (width,))
        return scale, self.param("bias", nn.initializers.zeros, (width,))


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
        in_kernel = self.config.uses_kernels and gate.fits(self.config.mlp_width // 2)
        hidden = gate.gated(in_kernel, both)
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
        read: Read | None = None,
        added: Float[Array, "b t d"] | None = None,
    ) -> tuple[Float[Array, "b a d"], Cache | None]:
        """The new state, of the tokens that are read if any are, and the cache.

        `added` is added to the new state, in one operation with the last norm.
        """
        cfg = self.config
        norm = lambda name: Norm(cfg, name=name)
        before = lambda name: NormBeside(cfg, name=name)
        if cfg.norm != "sandwich":
            before = lambda name: lambda x: (x, x)
        if cfg.injection == "layer":
            x = x + injected
        attention = Attention(cfg, name="attention")
        x, branch = before("attention_in_norm")(x)
        out, cache = attention(branch, context, cache, read)
        if read is not None:
            x = reading.take(x, read)
        x, branch = before("mlp_in_norm")(norm("attention_norm")(x, out))
        out = Mlp(cfg, name="mlp")(branch)
        return norm("mlp_norm")(x, out, added=added), cache
