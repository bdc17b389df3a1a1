"""The transformer: embedding, recurrent block of layers, readout.

Data flow: `embed` (ids, positions -> e), `recur` (state, e -> state), `readout` (state
-> logits); `forward` in `forward.py` strings them together.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from arith_jax.config.model import Execution, ModelConfig
from arith_jax.config.training import NO_NOISE, Noise
from arith_jax.model.context import Context, make_context
from arith_jax.model.embedding import AbacusEmbedding, Embed
from arith_jax.model.initializers import matrix_init
from arith_jax.model.layers import GatedMlp, Norm, RecurrentBlock, make_layer


class Transformer(nn.Module):
    """Decoder-only transformer whose block of layers can be applied many times.

        >>> model = Transformer(ModelConfig(width=64))
        >>> params = init_params(model, jax.random.key(0))
        >>> positions = abacus_positions(vocab.is_digit(ids))
        >>> forward(model, params, ids, positions).shape == (*ids.shape, 19)
        True

    Call `forward`, not the module; `__call__` exists to create the parameters.

    Attributes:
        config: Shape and rules.
        execution: How the device computes it.
        noise: What disturbs attention in training.
    """

    config: ModelConfig
    execution: Execution = Execution()
    noise: Noise = NO_NOISE

    def setup(self):
        """Names the parts; see the parameter tree."""
        config, execution = self.config, self.execution
        init, dtype = matrix_init(config), execution.dtype
        self.token = Embed(config.vocab_size, config.width, execution)
        if "abacus" in config.positions:
            self.abacus = AbacusEmbedding(config.table_size, config.width, execution)
        if "learned" in config.positions:
            self.learned = Embed(config.table_size, config.width, execution)
        self.embed_norm = Norm(config.norm_eps, execution)
        self.layers = RecurrentBlock(
            make_layer(config, execution, self.noise),
            config.num_layers,
            injects=config.injection == "recurrence",
        )
        if config.mcleish.head_mlp:
            self.head_mlp = GatedMlp(config.mlp_width, init, execution)
        self.final_norm = Norm(config.norm_eps, execution)
        dense = {"use_bias": False, "kernel_init": init, "dtype": dtype}
        if config.mcleish.adapter:
            self.adapter = nn.Dense(config.width, **dense)
        self.decoder = nn.Dense(config.vocab_size, **dense)

    def embed(self, ids: Int[Array, "b t"], context: Context) -> Float[Array, "b t d"]:
        """Sum of token and position embeddings, normalised.

        Row 0 of the Abacus table is added to the tokens that are not digits, as in the
        original.
        """
        emb = self.token(ids)
        if "abacus" in self.config.positions:
            emb = emb + self.abacus(context.table_row)
        if "learned" in self.config.positions:
            emb = emb + self.learned(context.query.index)
        # Half the memory traffic, and the norm's output is in that dtype anyway.
        return self.embed_norm(emb.astype(self.execution.dtype))

    def recur(
        self,
        state: Float[Array, "b t d"],
        emb: Float[Array, "b t d"],
        context: Context,
    ) -> Float[Array, "b t d"]:
        """One recurrence, with the layers in a loop."""
        return self.layers(state, emb, context)

    def readout(self, state: Float[Array, "b t d"]) -> Float[Array, "b t v"]:
        """Logits in float32; the adapter is the original's extra square matrix."""
        if self.config.mcleish.head_mlp:
            state = self.head_mlp(state)
        state = self.final_norm(state)
        if self.config.mcleish.adapter:
            state = self.adapter(state)
        return self.decoder(state).astype(jnp.float32)

    def __call__(self, ids: Int[Array, "b t"]) -> Float[Array, "b t v"]:
        """Touches every parameter once."""
        context = make_context(self.config.scheme, jnp.zeros_like(ids))
        emb = self.embed(ids, context)
        return self.readout(self.layers(emb, emb, context))


def init_params(model: Transformer, key: PRNGKeyArray) -> dict[str, Any]:
    """Fresh parameters in float32.

        >>> params = init_params(Transformer(ModelConfig(width=64)), jax.random.key(0))
        >>> params["token"]["embedding"].shape
        (19, 64)

    Args:
        model: Whose parameters they are.
        key: Decides them.
    """
    return dict(model.init(key, jnp.zeros((1, 2), jnp.int32))["params"])


def num_params(params: Any) -> int:
    """Number of scalars in a tree of parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
