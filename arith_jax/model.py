"""The transformer: embedding, recurrent block of layers, readout.

Data flow: `embed` (ids, positions -> e), `core` (one recurrence: state, e -> state),
`readout` (state -> logits); `forward` strings them together.
Imports `layers` and `reading`.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from arith_jax import positions, reading
from arith_jax.attention import Cache, Context
from arith_jax.banded import Blocks, make_band
from arith_jax.layers import Layer, Mlp, Norm
from arith_jax.linear import Embed, Linear, matrix_init
from arith_jax.model_config import ModelConfig
from arith_jax.reading import Read


class Transformer(nn.Module):
    """Decoder-only transformer whose block of layers can be applied many times.

    Call `forward`, not the module; `__call__` exists to create the parameters.
    """

    config: ModelConfig

    def setup(self):
        """Names the parts; see the parameter tree."""
        cfg = self.config
        self.token = Embed(cfg, cfg.vocab_size)
        if "abacus" in cfg.positions:
            self.abacus = Embed(cfg, cfg.table_size)
        if "learned" in cfg.positions:
            self.learned = Embed(cfg, cfg.table_size)
        self.embed_norm = Norm(cfg)
        stack = nn.scan(
            Layer,
            variable_axes={"params": 0, "intermediates": 0},
            split_rngs={"params": True, "noise": True},
            in_axes=nn.broadcast,  # pyright: ignore
            length=cfg.layers,
        )
        self.layers = stack(cfg)
        if cfg.head_mlp:
            self.head_mlp = Mlp(cfg)
        self.final_norm = Norm(cfg)
        if cfg.adapter:
            self.adapter = Linear(cfg.width, matrix_init(cfg))
        self.decoder = Linear(cfg.vocab_size, matrix_init(cfg))

    def embed(self, ids: Int[Array, "b t"], context: Context) -> Float[Array, "b t d"]:
        """Sum of token and position embeddings, normalised.

        Row 0 of the Abacus table is added to the tokens that are not digits, as in the
        original.
        """
        emb = self.token(ids)
        if "abacus" in self.config.positions:
            emb = emb + self.abacus(context.table_row)
        if "learned" in self.config.positions:
            emb = emb + self.learned(context.query)
        # Half the memory traffic, and the norm's output is in that dtype anyway.
        return self.embed_norm(emb.astype(self.config.dtype))

    def core(
        self,
        state: Float[Array, "b t d"],
        emb: Float[Array, "b t d"],
        context: Context,
        caches: Sequence[Cache] = (),
        read: Read | None = None,
    ) -> tuple[Float[Array, "b a d"], list[Cache]]:
        """One recurrence: injection if it is once per recurrence, then every layer.

        Args:
            state: What the recurrence begins with.
            emb: Embedding, for the injection.
            context: Where queries and keys are.
            caches: Keys and values of each layer; empty: those of this state only.
            read: With layers in turn, the tokens whose new state is wanted; None: all.

        Returns:
            The new state, and the caches with this state's keys and values.
        """
        if self.config.injection == "recurrence":
            state = state + emb
        is_watched = self.is_mutable_collection("intermediates")
        if caches or (self.config.unroll and not is_watched):
            return self.in_turn(state, emb, context, caches, read)
        return self.layers(state, emb, context, None)[0], []

    def in_turn(
        self,
        state: Float[Array, "b t d"],
        emb: Float[Array, "b t d"],
        context: Context,
        caches: Sequence[Cache],
        read: Read | None,
        added: Float[Array, "b t d"] | None = None,
    ) -> tuple[Float[Array, "b a d"], list[Cache]]:
        """Every layer with its slice of the stacked parameters, without a scan.

        What is to be `added` to the new state is, by the last norm.

        A scan, unrolled or not, keeps what the backward pass needs of all layers in one
        array, and all caches in another: what is written there is copied in and out.
        """
        leaves, tree = jax.tree.flatten(self.variables["params"]["layers"])
        # Put together again by one concatenation of gradients, where indexing would add
        # up as many arrays of zeros but for one layer.
        parts = [jax.lax.split(leaf, (1,) * self.config.layers) for leaf in leaves]
        layer, written = Layer(self.config, parent=None), []
        for index in range(self.config.layers):
            weights = jax.tree.unflatten(tree, [part[index][0] for part in parts])
            rngs = {"noise": self.make_rng("noise")} if self.has_rng("noise") else {}
            cache = caches[index] if caches else None
            last = (read, added) if index == self.config.layers - 1 else ()
            state, cache = layer.apply(
                {"params": weights}, state, emb, context, cache, *last, rngs=rngs
            )
            written += [] if cache is None else [cache]
        return state, written

    def readout(self, state: Float[Array, "b t d"]) -> Float[Array, "b t v"]:
        """Logits in float32; the adapter is the original's extra square matrix."""
        if self.config.head_mlp:
            state = self.head_mlp(state)
        state = self.final_norm(state)
        if self.config.adapter:
            state = self.adapter(state)
        return self.decoder(state).astype(jnp.float32)

    def __call__(self, ids: Int[Array, "b t"]) -> Float[Array, "b t v"]:
        """Touches every parameter once."""
        context = make_context(jnp.zeros_like(ids), levels=self.config.position_levels)
        emb = self.embed(ids, context)
        state, _ = self.layers(emb, emb, context, None)
        return self.readout(state)


def make_context(
    abacus: Int[Array, "b t"],
    blocks: Blocks | None = None,
    lengths: Int[Array, "b n"] | None = None,
    levels: int = 1,
) -> Context:
    """Context of whole rows: every token is a query and a key.

    Raises:
        ValueError: If rows of several problems, or ids with levels, are to be attended
            to in blocks.
    """
    index = jnp.arange(abacus.shape[1])[None, :]
    if levels > 1:
        if blocks is not None or lengths is not None:
            raise ValueError("ids with levels are for whole rows of one problem")
        return context_of(levels, index, index, abacus, abacus)
    if lengths is not None:
        if blocks is not None:
            raise ValueError("blocks are for evaluation: rows of one problem each")
        start = positions.problem_starts(lengths, abacus.shape[1])
        place, index = positions.without_offset(abacus, start), index - start
        return Context(index, index, place, place, abacus, None, start, lengths)
    place = positions.without_offset(abacus)
    band = None if blocks is None else make_band(place, blocks)
    return Context(index, index, place, place, abacus, band)


def context_of(
    levels: int,
    query: Int[Array, "#b t"],
    key: Int[Array, "#b s"],
    query_ids: Int[Array, "b t"],
    key_ids: Int[Array, "b s"],
) -> Context:
    """Context of some tokens against others, by index and position id without offset.

    Args:
        levels: `position_levels` of the model, into which ids are split.
        query: Sequence index of each query.
        key: Sequence index of each key.
        query_ids: Position id of each query.
        key_ids: Position id of each key.
    """
    if levels == 1:
        return Context(query, key, query_ids, key_ids, query_ids)
    own = positions.split_levels(query_ids, levels)
    place, *other = positions.split_levels(key_ids, levels)
    if levels == 3:
        # A key of the answer has a place only as a query: beside the item it sorts in.
        place = jnp.where(other[1] > 0, 0, place)
    context = Context(query, key, own[0], place, own[0])
    context = context._replace(query_line=own[1], key_line=other[0])
    if levels == 3:
        context = context._replace(query_column=own[2], key_column=other[1])
    return context


def init_params(config: ModelConfig, key: PRNGKeyArray) -> dict[str, Any]:
    """Fresh parameters in float32."""
    ids = jnp.zeros((1, 2), jnp.int32)
    return dict(Transformer(config).init(key, ids)["params"])


def num_params(params: Any) -> int:
    """Number of scalars in a tree of parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def initial_state(
    config: ModelConfig, emb: Float[Array, "b t d"], key: PRNGKeyArray
) -> Float[Array, "b t d"]:
    """State before the first recurrence.

    Source:
        The original draws 0.02 * N(0, 1) at every forward pass, evaluation included;
        here the key decides, and evaluation always uses the same one.
    """
    if config.initial_state == "embedding":
        return emb
    return (0.02 * jax.random.normal(key, emb.shape)).astype(emb.dtype)


@jax.custom_vjp
def with_gradient(
    state: Float[Array, "b t d"], part: Float[Array, "b t d"]
) -> Float[Array, "b t d"]:
    """The state; its gradient is also that of a part, which was added without one."""
    del part
    return state


with_gradient.defvjp(lambda state, _: (state, None), lambda _, d_out: (d_out, d_out))


def forward(
    config: ModelConfig,
    params: dict[str, Any],
    ids: Int[Array, "b t"],
    abacus: Int[Array, "b t"],
    *,
    num_frozen: Int[Array, ""] | int = 0,
    num_trained: int | None = None,
    key: PRNGKeyArray | None = None,
    train: bool = False,
    state: Float[Array, "b t d"] | None = None,
    blocks: Blocks | None = None,
    lengths: Int[Array, "b n"] | None = None,
    read: Read | None = None,
) -> Float[Array, "b t v"]:
    """Logits after `num_frozen` recurrences without gradient and then `num_trained`.

    Args:
        config: The model.
        params: Its parameters.
        ids: Tokens.
        abacus: Abacus id of each token, `Batch.positions`.
        num_frozen: n, recurrences without gradient to parameters or embedding; may be
            traced, so one compilation serves all n.
        num_trained: k, recurrences with gradient; static. Default: all.
        key: Decides the random initial state and the key noise; default a fixed key.
        train: Whether key noise is on.
        state: State before the first recurrence; default: what the config says.
        blocks: Attend within blocks of this size (`banded.fitting_blocks`), which is
            exact for a window of Abacus ids; static. Default: whole rows.
        lengths: `PackedBatch.lengths`, for rows of several problems. Default: one each.
        read: The tokens whose logits are wanted, 0 for the others; with `config.unroll`
            those others are left out of the end of the last layer. Default: all.
    """
    model = Transformer(config)
    context = make_context(abacus, blocks, lengths, config.position_levels)
    key = jax.random.key(0) if key is None else key
    num_trained = config.recurrences if num_trained is None else num_trained
    key_state, key_noise = jax.random.split(key)

    def run(weights: Any, method: str, *args: Any, index: Any = 0) -> Any:
        rngs = {"noise": jax.random.fold_in(key_noise, index)} if train else {}
        return model.apply({"params": weights}, *args, method=method, rngs=rngs)

    emb = run(params, "embed", ids, context)
    reached = initial_state(config, emb, key_state) if state is None else state
    # In turn, the last norm of a recurrence adds the injection of the next one.
    is_ahead = bool(config.unroll and config.injection == "recurrence" and num_trained)
    if is_ahead:
        reached = reached + emb

    def recur(weights: Any, emb: Array, state: Array, index: Any, is_last: bool):
        args = state, emb, context, (), read if is_last else None
        if is_ahead:
            added = None if is_last else emb
            return run(weights, "in_turn", *args, added, index=index)[0]
        return run(weights, "core", *args, index=index)[0]

    if not (isinstance(num_frozen, int) and num_frozen == 0):
        frozen = jax.lax.stop_gradient((params, emb, reached))

        def frozen_step(index: Int[Array, ""], state: Float[Array, "b t d"]):
            return recur(*frozen[:2], state, index, False)

        after = jax.lax.fori_loop(0, num_frozen, frozen_step, frozen[2])
        if is_ahead:
            after = with_gradient(after, emb)
        # Without frozen recurrences the gradient also reaches the initial state.
        reached = jnp.where(jnp.asarray(num_frozen) > 0, after, reached)

    def step(state: Float[Array, "b t d"], index: Int[Array, ""]):
        return recur(params, emb, state, index, False), None

    if config.unroll:
        for index in range(num_trained):
            is_last = index == num_trained - 1
            reached = recur(params, emb, reached, num_frozen + index, is_last)
    else:
        reached, _ = jax.lax.scan(step, reached, num_frozen + jnp.arange(num_trained))
    if read is not None and not (config.unroll and num_trained):
        reached = reading.take(reached, read)
    logits = run(params, "readout", reached)
    return logits if read is None else reading.put_back(logits, read)


def attention_weights(
    config: ModelConfig,
    params: dict[str, Any],
    ids: Int[Array, "b t"],
    abacus: Int[Array, "b t"],
) -> Float[Array, "r l b h t s"]:
    """Attention of every layer at every recurrence, as evaluation computes it.

    Logits are not materialised for long rows elsewhere: here they are.
    """
    model = Transformer(config)
    context = make_context(abacus, levels=config.position_levels)
    key_state, _ = jax.random.split(jax.random.key(0))

    def run(method: str, *args: Any) -> Any:
        variables = {"params": params}
        return model.apply(variables, *args, method=method, mutable=["intermediates"])

    emb, _ = run("embed", ids, context)
    state, found = initial_state(config, emb, key_state), []
    for _ in range(config.recurrences):
        (state, _), sown = run("core", state, emb, context)
        found.append(sown["intermediates"]["layers"]["attention"]["weights"][0])
    return jnp.stack(found)
