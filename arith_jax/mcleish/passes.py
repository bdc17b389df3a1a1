"""Forward passes, losses and gradients against recordings of the original."""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from jaxtyping import Array, Float

from arith_jax import vocab
from arith_jax.config.model import Execution
from arith_jax.data.batch import Batch
from arith_jax.mcleish import names
from arith_jax.mcleish.fixtures import VOCABS, Case, Errors
from arith_jax.model.context import make_context
from arith_jax.model.decode import decode
from arith_jax.model.forward import forward
from arith_jax.model.layers import make_layer
from arith_jax.model.transformer import Transformer
from arith_jax.training import losses


class Inputs(NamedTuple):
    """What one pass starts from.

    Attributes:
        params: Our parameters.
        batch: Rows, with the offset of the pass.
        state: Before the first recurrence; None: the embedding.
        num_frozen: Recurrences without gradient.
    """

    params: Any
    batch: Batch
    state: Any
    num_frozen: Any


class Settings(NamedTuple):
    """What one pass is decided by; static."""

    model: Transformer
    num_trained: int
    reduction: str


@functools.partial(jax.jit, static_argnums=0)
def logits_and_loss(
    settings: Settings, inputs: Inputs
) -> tuple[Float[Array, "b t v"], Float[Array, ""]]:
    """Our forward pass from a given state, and its loss."""
    batch = inputs.batch
    logits = forward(
        settings.model,
        inputs.params,
        batch.ids,
        batch.positions,
        num_frozen=inputs.num_frozen,
        num_trained=settings.num_trained,
        state=inputs.state,
        num_segments=1,
    )
    return logits, losses.cross_entropy(logits, batch, reduction=settings.reduction)


@functools.partial(jax.jit, static_argnums=0)
def loss_and_gradients(
    settings: Settings, inputs: Inputs
) -> tuple[Float[Array, ""], Any]:
    """The loss of `logits_and_loss` and its gradients."""

    def loss_of(params: Any) -> Float[Array, ""]:
        return logits_and_loss(settings, inputs._replace(params=params))[1]

    return jax.value_and_grad(loss_of)(inputs.params)


@functools.partial(jax.jit, static_argnums=0)
def combined_gradients(
    weighted: tuple[tuple[float, Settings], ...], inputs: tuple[Inputs, ...]
) -> Any:
    """Gradients of a weighted sum of losses of several passes."""

    def loss_of(params: Any) -> Float[Array, ""]:
        total = jnp.zeros(())
        for (weight, settings), part in zip(weighted, inputs, strict=True):
            part = part._replace(params=params)
            total = total + weight * logits_and_loss(settings, part)[1]
        return total

    return jax.grad(loss_of)(inputs[0].params)


def pass_of(
    case: Case,
    variant: Mapping[str, Any],
    depth: losses.Depth,
    *,
    state: Any,
    offset: int | None,
) -> tuple[Settings, Inputs]:
    """One pass of a variant.

    Args:
        case: The recording.
        variant: Of the case.
        depth: Recurrences without and with gradient.
        state: Before the first recurrence; None: the embedding.
        offset: Of the Abacus ids.
    """
    params = case.original.params
    overrides = variant.get("parameter_overrides_for_this_variant")
    if overrides:
        theirs = {**case.as_theirs(params), **case.original.buffers}
        theirs |= {k: np.array(v, np.float32) for k, v in overrides.items()}
        params = names.from_original(theirs, case.spec["arch"]).params
    batch = case.batch(case.tensors["input_ids"], offset)
    model = Transformer(case.config(variant))
    frozen = jnp.asarray(depth.num_frozen, jnp.int32)
    settings = Settings(model, depth.num_trained, case.reduction)
    return settings, Inputs(params, batch, state, frozen)


def check_forward(case: Case, name: str, variant: Mapping[str, Any]) -> None:
    """Logits, loss, gradients and intermediate activations of a variant."""
    state = case.state(variant["initial_state_tensor"])
    depth = losses.Depth(variant["n_no_grad"], variant["k_with_grad"])
    offset = variant.get("abacus_offset_k")
    one_pass = pass_of(case, variant, depth, state=state, offset=offset)
    logits, loss = logits_and_loss(*one_pass)
    case.errors.compare("logits", f"{name}.logits", logits)
    case.errors.compare("loss", f"{name}.loss", loss)
    if "grads_file" in variant:
        compare_gradients(case, variant, loss_and_gradients(*one_pass)[1])
    traced = [key for key in case.tensors if key.startswith(f"{name}.trace.")]
    if traced:
        total = int(depth.num_frozen) + depth.num_trained
        activations = trace(*one_pass, depth=total)
        for key in traced:
            step = key.removeprefix(f"{name}.trace.")
            if step in activations:
                case.errors.compare("activations", key, activations[step])


def compare_gradients(case: Case, variant: Mapping[str, Any], gradients: Any) -> None:
    """Gradients by parameter; those that are exactly zero in truth absolutely."""
    recorded = safetensors.numpy.load_file(case.folder / variant["grads_file"])
    ours = case.as_theirs(gradients)
    zero = variant.get("parameters_whose_true_gradient_is_zero", [])
    frozen = set(variant.get("parameters_without_grad", []))
    for name in recorded.keys() ^ (ours.keys() - frozen):
        case.errors.unchecked.add(f"{variant['grads_file']}:{name}")
    for name in recorded.keys() & ours.keys():
        if name in zero:
            size = max(np.max(np.abs(recorded[name])), np.max(np.abs(ours[name])))
            case.errors.add("zero gradients", size)
        else:
            case.errors.compare_norm("gradients", recorded[name], ours[name])


def trace(settings: Settings, inputs: Inputs, *, depth: int) -> dict[str, Any]:
    """Activations along one pass, by the names of the fixtures, layer by layer."""
    model, params, batch = settings.model, inputs.params, inputs.batch
    config = model.config
    context = make_context(config.scheme, batch.positions)
    layer, variables = make_layer(config, Execution()), {"params": params}
    emb = model.apply(variables, batch.ids, context, method="embed")
    state = emb if inputs.state is None else inputs.state
    activations, blocks = {"embedding_out": emb}, []
    for _ in range(depth):
        if config.injection == "recurrence":
            state = state + emb
        for index in range(config.num_layers):
            weights = jax.tree.map(lambda x, i=index: x[i], params["layers"])
            (state, _), inner = layer.apply(
                {"params": weights}, state, emb, context, capture_intermediates=True
            )
            inner = inner["intermediates"]
            if "layer0_first_attn_out" not in activations:
                attention = inner["attention"]
                activations["layer0_first_attn_out"] = attention["__call__"][0][0]
                activations["layer0_first_ffn_out"] = inner["mlp"]["__call__"][0]
                if "fire" in config.positions:
                    bias = attention["fire"]["__call__"][0]
                    activations["layer0_fire_bias"] = bias
            if config.injection == "layer":
                blocks.append(state)
        if config.injection == "recurrence":
            blocks.append(state)
    activations |= {f"block_call_{i}_out": block for i, block in enumerate(blocks)}
    _, inner = model.apply(
        variables, state, method="readout", capture_intermediates=True
    )
    final = inner["intermediates"]["final_norm"]["__call__"][0]
    return activations | {"final_norm_out": final}


def check_loss_grid(case: Case, name: str, variant: Mapping[str, Any]) -> None:
    """The loss of every (n, k) that can be drawn."""
    expected = case.tensors[f"{name}.loss"]
    state = case.state(variant["initial_state_tensor"])
    offset = variant["abacus_offset_k"]
    ours = np.full(expected.shape, np.nan)
    for n, k in np.argwhere(np.isfinite(expected)).tolist():
        depth = losses.Depth(n, k + 1)
        one_pass = pass_of(case, variant, depth, state=state, offset=offset)
        ours[n, k] = logits_and_loss(*one_pass)[1]
    case.errors.unchecked.discard(f"{name}.loss")
    drawn = np.isfinite(expected)
    case.errors.add("loss", np.max(np.abs(ours[drawn] - expected[drawn])))


def check_training_forward(case: Case, name: str, variant: Mapping[str, Any]) -> None:
    """The whole training loss: the passes it makes, alpha and throttle.

    The original reports the logits of its first pass, which is the full one where
    there are two.
    """
    states = variant["initial_state_tensors_per_call"]
    offsets = variant["abacus_offset_k_per_call"]
    passes = [
        pass_of(
            case,
            variant,
            losses.Depth(n, k),
            state=case.state(state),
            offset=offset,
        )
        for (n, k), state, offset in zip(
            variant["calls_in_order_n_k"], states, offsets, strict=True
        )
    ]
    alpha = variant["alpha"]
    weights = [1.0] if len(passes) == 1 else [1 - alpha, alpha]
    if variant.get("throttle"):
        config, max_backprop = case.original.config, case.original.max_backprop
        factor = losses.throttle_factor(config.num_recurrences, max_backprop)
        weights = [factor * weight for weight in weights]
    results = [logits_and_loss(*one_pass) for one_pass in passes]
    loss = sum(w * float(part) for w, (_, part) in zip(weights, results, strict=True))
    case.errors.compare("loss", f"{name}.loss", np.array(loss))
    last = results[0][0][:, -1]
    case.errors.compare("logits", f"{name}.last_position_logits", last)
    if "grads_file" in variant:
        settings = [settings for settings, _ in passes]
        weighted = tuple(zip(weights, settings, strict=True))
        inputs = tuple(part for _, part in passes)
        compare_gradients(case, variant, combined_gradients(weighted, inputs))


def check_generation(case: Case, name: str, variant: Mapping[str, Any]) -> None:
    """Greedy tokens by our cached decoding."""
    config = dataclasses.replace(
        case.config(variant), num_recurrences=variant["recurrences"]
    )
    symbols = VOCABS[case.spec.get("tokenizer_type", "pad")]
    prompts = np.array([symbols.encode(text) for text in variant["prompts"]])
    case.errors.compare("ids", f"{name}.prompt_ids", prompts)
    batch = case.batch(prompts, 0)
    lengths = jnp.full((len(prompts),), prompts.shape[1])
    expected = case.tensors[f"{name}.generated_ids"]
    tokens = decode(
        Transformer(config),
        case.original.params,
        batch.ids,
        lengths,
        num_new=expected.shape[1],
        positions=batch.positions,
        stop=False,
    )
    case.errors.compare("ids", f"{name}.generated_ids", tokens)


def check_case(folder: pathlib.Path) -> Errors:
    """Every variant of a fixture of forward passes."""
    case = Case(folder, "state_dict.safetensors")
    rows = case.tensors["input_ids"]
    symbols = VOCABS[case.spec.get("tokenizer_type", "pad")]
    encoded = np.zeros_like(rows)
    for row, text in zip(encoded, case.spec["strings"], strict=True):
        ids = [*symbols.encode(text), vocab.EOS]
        row[: len(ids)] = ids
    case.errors.compare("ids", "input_ids", encoded)
    if "abacus_position_ids" in case.tensors:
        ids = case.batch(rows, 0).positions
        case.errors.compare("ids", "abacus_position_ids", ids)
    check_buffers(case)
    for name, variant in case.spec["variants"].items():
        if "calls_in_order_n_k" in variant:
            check_training_forward(case, name, variant)
        elif "prompts" in variant:
            check_generation(case, name, variant)
        elif "n_no_grad" in variant:
            check_forward(case, name, variant)
        else:
            check_loss_grid(case, name, variant)
    return case.errors


def check_buffers(case: Case) -> None:
    """The original's constants are the ones we compute with."""
    theirs = case.original
    made = names.new_buffers(
        theirs.config, by_head=theirs.by_head, compiled=theirs.compiled
    )
    for name in made.keys() ^ theirs.buffers.keys():
        case.errors.unchecked.add(name)
    for name in made.keys() & theirs.buffers.keys():
        difference = made[name].astype(np.float64) - theirs.buffers[name]
        case.errors.add("buffers", np.max(np.abs(difference)))
