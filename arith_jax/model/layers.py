"""Layers of the recurrent block: attention, gated MLP, norms."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from arith_jax.config.model import Execution, ModelConfig
from arith_jax.config.training import NO_NOISE, Noise
from arith_jax.kernels.geglu import geglu
from arith_jax.kernels.layer_norm import layer_norm
from arith_jax.model import gather
from arith_jax.model.attention import Attention, Cache
from arith_jax.model.context import Context
from arith_jax.model.gather import TargetIndex
from arith_jax.model.initializers import (
    Initializer,
    lecun_normal,
    matrix_init,
    qkv_init_of,
)


class Norm(nn.Module):
    """LayerNorm of a sum, with float32 statistics.

    Attributes:
        eps: Added to the variance.
        execution: Dtype of the result, and whether a kernel computes it.
    """

    eps: float = 1e-6
    execution: Execution = Execution()

    @nn.compact
    def __call__(self, *inputs: Float[Array, "*dims d"]) -> Float[Array, "*dims d"]:
        """Adds up arrays of one shape and dtype and normalises their last axis."""
        shape = inputs[0].shape[-1:]
        scale = self.param("scale", nn.initializers.ones, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, shape, jnp.float32)
        return layer_norm(
            inputs,
            scale,
            bias,
            eps=self.eps,
            dtype=self.execution.dtype,
            use_kernel=self.execution.kernels,
        )


class GatedMlp(nn.Module):
    """GELU-gated MLP: y = W1 x in halves (u, g); W2 (gelu(g) * u), exact GELU.

    Attributes:
        mlp_width: Of both halves together.
        kernel_init: Initializer of both matrices.
        execution: How the device computes it.

    Source:
        The original's `GELUglu`: the activation is on the second half, and
        `intermed_size` counts both halves.
    """

    mlp_width: int = 512
    kernel_init: Initializer = lecun_normal
    execution: Execution = Execution()

    @nn.compact
    def __call__(self, x: Float[Array, "*b t d"]) -> Float[Array, "*b t d"]:
        """Applies it to every token."""
        options = {
            "use_bias": False,
            "kernel_init": self.kernel_init,
            "dtype": x.dtype,
        }
        both = nn.Dense(self.mlp_width, name="in", **options)(x)
        hidden = geglu(both, use_kernel=self.execution.kernels)
        return nn.Dense(x.shape[-1], name="out", **options)(hidden)


class Layer(nn.Module):
    """Attention and MLP with residual branches.

    Attributes:
        attention: Mixes tokens.
        mlp: Works on each token.
        norm: post, x = LN(x + f(x)), as in the original; or sandwich,
            x = LN(x + f(LN(x))).
        norm_eps: Added to the variance.
        injects: Whether the embedding is added before the layer.
        execution: How the device computes it.
    """

    attention: Attention
    mlp: GatedMlp
    norm: str = "sandwich"
    norm_eps: float = 1e-6
    injects: bool = False
    execution: Execution = Execution()

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b t d"],
        emb: Float[Array, "b t d"],
        context: Context,
        *,
        cache: Cache | None = None,
        targets: TargetIndex | None = None,
    ) -> tuple[Float[Array, "b a d"], Cache | None]:
        """The new state, of the targets alone if there are any, and the cache.

        Args:
            x: State of every token.
            emb: Embedding of every token.
            context: Where queries and keys are.
            cache: Keys and values before these; None: there are none.
            targets: Tokens whose state is wanted; None: all.
        """
        norm = lambda name, *x: Norm(self.norm_eps, self.execution, name=name)(*x)
        inner_norm = norm if self.norm == "sandwich" else lambda name, x: x
        if self.injects:
            x = x + emb
        out, cache = self.attention(
            inner_norm("attention_in_norm", x), context, cache=cache, targets=targets
        )
        if targets is not None:
            x = gather.gather_targets(x, targets)
        x = norm("attention_norm", x, out)
        out = self.mlp(inner_norm("mlp_in_norm", x))
        return norm("mlp_norm", x, out), cache


class RecurrentBlock(nn.Module):
    """Layers one after another, with their parameters stacked along a first axis.

    Applied again and again it is a looped transformer.

        >>> positions = abacus_positions(vocab.is_digit(ids))
        >>> context = make_context(Abacus(), positions)
        >>> layer = Layer(Attention(num_heads=4), GatedMlp(mlp_width=64))
        >>> block = RecurrentBlock(layer, num_layers=2)
        >>> state = jnp.zeros((*ids.shape, 32))
        >>> variables = block.init(jax.random.key(0), state, state, context)
        >>> for _ in range(3):
        ...     state = block.apply(variables, state, state, context)

    Attributes:
        layer: What is repeated, each time with parameters of its own.
        num_layers: How often.
        injects: Whether the embedding is added before the first layer.
    """

    layer: Layer
    num_layers: int
    injects: bool = False

    def setup(self):
        """Keeps the layers' parameters directly in this module."""
        nn.share_scope(self, self.layer)

    def __call__(
        self,
        state: Float[Array, "b t d"],
        emb: Float[Array, "b t d"],
        context: Context,
    ) -> Float[Array, "b t d"]:
        """One recurrence.

        Args:
            state: What it begins with.
            emb: Embedding, for the injection.
            context: Where queries and keys are.
        """
        if self.injects:
            state = state + emb
        scan = nn.scan(
            lambda layer, state, _: (layer(state, emb, context)[0], None),
            variable_axes={"params": 0, "intermediates": 0},
            split_rngs={"params": True, "noise": True},
            length=self.num_layers,
        )
        return scan(self.layer, state, None)[0]


def make_layer(
    config: ModelConfig,
    execution: Execution,
    noise: Noise = NO_NOISE,
) -> Layer:
    """A layer of a model, not yet part of any module.

    Args:
        config: The model.
        execution: How the device computes it.
        noise: Of attention, in training.
    """
    kernel_init = matrix_init(config)
    in_attention = ("relative_abacus", "rotary_abacus", "fire", "rope")
    attention = Attention(
        num_heads=config.num_heads,
        scheme=config.scheme,
        positions=tuple(name for name in config.positions if name in in_attention),
        fire_max_length=config.fire_max_length,
        window=config.abacus_window,
        is_windowed=config.abacus_far == "mask",
        qk_norm=config.qk_norm,
        length_scale=config.length_scale,
        noise=noise,
        kernel_init=kernel_init,
        qkv_init=qkv_init_of(config),
        execution=execution,
        parent=None,
    )
    mlp = GatedMlp(config.mlp_width, kernel_init, execution, parent=None)
    return Layer(
        attention,
        mlp,
        norm=config.norm,
        norm_eps=config.norm_eps,
        injects=config.injection == "layer",
        execution=execution,
        parent=None,
    )
