"""Numerical parity: our passes and training steps on tensors of the original.

A fixture folder holds `case.json`, the original's parameters and what it computed.
"""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import rich.table
import safetensors.numpy
from jaxtyping import Array, Float

from arith_jax import layers, losses, model, optim, original, runlog, train, vocab
from arith_jax.data import Batch
from arith_jax.decode import decode
from arith_jax.fixtures import GATES, VOCABS, Case, Errors
from arith_jax.model_config import ModelConfig


@functools.partial(jax.jit, static_argnums=(0, 5, 6))
def logits_and_loss(
    config: ModelConfig,
    params: Any,
    batch: Batch,
    state: Any,
    num_frozen: Any,
    num_trained: int,
    reduction: str,
) -> tuple[Float[Array, "b t v"], Float[Array, ""]]:
    """Our forward pass from a given state, and its loss."""
    logits = model.forward(
        config,
        params,
        batch.ids,
        batch.positions,
        num_frozen=num_frozen,
        num_trained=num_trained,
        state=state,
    )
    return logits, losses.cross_entropy(logits, batch, reduction)


@functools.partial(jax.jit, static_argnums=(0, 5, 6))
def loss_and_gradients(
    config: ModelConfig, params: Any, *arguments: Any
) -> tuple[Float[Array, ""], Any]:
    """The loss of `logits_and_loss` and its gradients."""
    loss_of = lambda params: logits_and_loss(config, params, *arguments)[1]
    return jax.value_and_grad(loss_of)(params)


def inputs_of(
    case: Case, variant: Mapping[str, Any], n: int, k: int, state: Any, offset: Any
) -> tuple[Any, ...]:
    """Arguments of `logits_and_loss` for a variant at a depth, state and offset."""
    params = case.original.params
    overrides = variant.get("parameter_overrides_for_this_variant")
    if overrides:
        theirs = {**case.as_theirs(params), **case.original.buffers}
        theirs |= {k: np.array(v, np.float32) for k, v in overrides.items()}
        params = original.from_original(theirs, case.spec["arch"]).params
    batch = case.batch(case.tensors["input_ids"], offset)
    config = case.config(variant)
    frozen = jnp.asarray(n, jnp.int32)
    return config, params, batch, state, frozen, k, case.reduction


def check_forward(case: Case, name: str, variant: Mapping[str, Any]) -> None:
    """Logits, loss, gradients and intermediate activations of a variant."""
    state = case.state(variant["initial_state_tensor"])
    n, k = variant["n_no_grad"], variant["k_with_grad"]
    offset = variant.get("abacus_offset_k")
    inputs = inputs_of(case, variant, n, k, state, offset)
    logits, loss = logits_and_loss(*inputs)
    case.errors.compare("logits", f"{name}.logits", logits)
    case.errors.compare("loss", f"{name}.loss", loss)
    if "grads_file" in variant:
        recorded = safetensors.numpy.load_file(case.folder / variant["grads_file"])
        found = case.as_theirs(loss_and_gradients(*inputs)[1])
        compare_gradients(case, variant, recorded, found)
    traced = [key for key in case.tensors if key.startswith(f"{name}.trace.")]
    if traced:
        found = trace(case, variant, n + k, state, offset)
        for key in traced:
            step = key.removeprefix(f"{name}.trace.")
            if step in found:
                case.errors.compare("activations", key, found[step])


def compare_gradients(
    case: Case,
    variant: Mapping[str, Any],
    recorded: Mapping[str, np.ndarray],
    found: Mapping[str, np.ndarray],
) -> None:
    """Gradients by parameter; those that are exactly zero in truth absolutely."""
    zero = variant.get("parameters_whose_true_gradient_is_zero", [])
    frozen = set(variant.get("parameters_without_grad", []))
    for name in recorded.keys() ^ (found.keys() - frozen):
        case.errors.unchecked.add(f"{variant['grads_file']}:{name}")
    for name in recorded.keys() & found.keys():
        if name in zero:
            size = max(np.max(np.abs(recorded[name])), np.max(np.abs(found[name])))
            case.errors.add("zero gradients", size)
        else:
            case.errors.compare_norm("gradients", recorded[name], found[name])


def trace(
    case: Case, variant: Mapping[str, Any], depth: int, state: Any, offset: Any
) -> dict[str, Any]:
    """Activations along one pass, by the names of the fixtures, layer by layer."""
    config, params = case.config(variant), case.original.params
    batch = case.batch(case.tensors["input_ids"], offset)
    context = model.make_context(batch.positions)
    network, layer = model.Transformer(config), layers.Layer(config)
    variables = {"params": params}
    emb = network.apply(variables, batch.ids, context, method="embed")
    state = emb if state is None else state
    found, blocks = {"embedding_out": emb}, []
    for _ in range(depth):
        if config.injection == "recurrence":
            state = state + emb
        for index in range(config.layers):
            own = jax.tree.map(lambda x, i=index: x[i], params["layers"])
            (state, _), inner = layer.apply(
                {"params": own}, state, emb, context, None, capture_intermediates=True
            )
            inner = inner["intermediates"]
            if "layer0_first_attn_out" not in found:
                found["layer0_first_attn_out"] = inner["attention"]["__call__"][0][0]
                found["layer0_first_ffn_out"] = inner["mlp"]["__call__"][0]
                if "fire" in config.positions:
                    bias = inner["attention"]["fire"]["__call__"][0]
                    found["layer0_fire_bias"] = bias
            if config.injection == "layer":
                blocks.append(state)
        if config.injection == "recurrence":
            blocks.append(state)
    found |= {f"block_call_{i}_out": block for i, block in enumerate(blocks)}
    _, inner = network.apply(
        variables, state, method="readout", capture_intermediates=True
    )
    found["final_norm_out"] = inner["intermediates"]["final_norm"]["__call__"][0]
    return found


def check_loss_grid(case: Case, name: str, variant: Mapping[str, Any]) -> None:
    """The loss of every (n, k) that can be drawn."""
    expected = case.tensors[f"{name}.loss"]
    state, offset = (
        case.state(variant["initial_state_tensor"]),
        variant["abacus_offset_k"],
    )
    found = np.full(expected.shape, np.nan)
    for n, k in np.argwhere(np.isfinite(expected)).tolist():
        inputs = inputs_of(case, variant, n, k + 1, state, offset)
        found[n, k] = logits_and_loss(*inputs)[1]
    case.errors.unchecked.discard(f"{name}.loss")
    drawn = np.isfinite(expected)
    case.errors.add("loss", np.max(np.abs(found[drawn] - expected[drawn])))


def check_training_forward(case: Case, name: str, variant: Mapping[str, Any]) -> None:
    """The whole training loss: the calls it makes, alpha and throttle."""
    states = variant["initial_state_tensors_per_call"]
    offsets = variant["abacus_offset_k_per_call"]
    calls, logits = [], None
    for index, (n, k) in enumerate(variant["calls_in_order_n_k"]):
        state = case.state(states[index])
        inputs = inputs_of(case, variant, n, k, state, offsets[index])
        logits, loss = logits_and_loss(*inputs)
        calls.append(float(loss))
    alpha = variant["alpha"]
    loss = calls[0] if len(calls) == 1 else (1 - alpha) * calls[0] + alpha * calls[1]
    if variant.get("throttle"):
        loss *= losses.throttle_factor(case.original.config)
    case.errors.compare("loss", f"{name}.loss", np.array(loss))
    assert logits is not None
    case.errors.compare("logits", f"{name}.last_position_logits", logits[:, -1])


def check_generation(case: Case, name: str, variant: Mapping[str, Any]) -> None:
    """Greedy tokens by our cached decoding."""
    config = dataclasses.replace(
        case.config(variant), recurrences=variant["recurrences"], max_backprop=1
    )
    symbols = VOCABS[case.spec.get("tokenizer_type", "pad")]
    prompts = np.array([symbols.encode(text) for text in variant["prompts"]])
    case.errors.compare("ids", f"{name}.prompt_ids", prompts)
    batch = case.batch(prompts, 0)
    lengths = jnp.full((len(prompts),), prompts.shape[1])
    expected = case.tensors[f"{name}.generated_ids"]
    tokens = decode(
        config,
        case.original.params,
        batch.ids,
        lengths,
        expected.shape[1],
        batch.positions,
        False,
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
        found = case.batch(rows, 0).positions
        case.errors.compare("ids", "abacus_position_ids", found)
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
    made = original.new_buffers(theirs.config, case.by_head, theirs.compiled)
    for name in made.keys() ^ theirs.buffers.keys():
        case.errors.unchecked.add(name)
    for name in made.keys() & theirs.buffers.keys():
        difference = made[name].astype(np.float64) - theirs.buffers[name]
        case.errors.add("buffers", np.max(np.abs(difference)))


def check_train_steps(folder: pathlib.Path) -> Errors:
    """Accumulation, clipping, AdamW and both schedules over recorded micro-batches."""
    case = Case(folder, "state_dict_before.safetensors")
    spec = case.spec
    group = spec["optimizer"]["groups"][0]
    config = optim.OptimConfig(
        optimizer="adamw",
        learning_rate=spec["optimizer"]["lr"],
        muon_learning_rate=0.0,
        beta1=group["betas"][0],
        beta2=group["betas"][1],
        eps=group["eps"],
        weight_decay=group["weight_decay"],
        clip_norm=spec["gradient_clipping"],
        warmup=spec["warmup_steps"] / spec["schedule_steps"],
        decay_start=1 - spec["cooldown_steps"] / spec["schedule_steps"],
        final_learning_rate=0.0,
        ema_decay=0.0,
        batch_size=spec["max_batch_size"],
        micro_batch_size=spec["microbatch_size"],
        ramp_until=spec["batch_size_ramp"],
    )
    state = train.state_from(config, case.original.params)
    advance = jax.jit(train.accumulate_gradients, static_argnums=0)
    fraction = 0.0
    for entry, ids, start in zip(
        spec["log"],
        case.tensors["input_ids"],
        case.tensors["initial_states"],
        strict=True,
    ):
        rate = config.learning_rate * float(optim.lr_multiplier(config, fraction))
        case.errors.add("learning rates", abs(rate - entry["learning_rate_in_force"]))
        loss, gradients = loss_and_gradients(
            case.config({}),
            state.params,
            case.batch(ids, entry["abacus_offset_k"]),
            jnp.array(start),
            jnp.asarray(entry["n"], jnp.int32),
            entry["k"],
            case.reduction,
        )
        case.errors.add("loss", abs(float(loss) - entry["loss"]))
        updates = int(state.updates)
        state = advance(config, state, gradients, jnp.asarray(fraction, jnp.float32))
        stepped = int(state.updates) > updates
        case.errors.add("ids", float(stepped != entry["optimizer_stepped"]))
        case.errors.add(
            "ids", abs(int(state.accumulation.wanted) - entry["accumulation_divisor"])
        )
        fraction = entry["elapsed_fraction_of_budget"]
    case.errors.unchecked -= {"input_ids", "initial_states"}
    after = safetensors.numpy.load_file(folder / "state_dict_after.safetensors")
    found = case.as_theirs(state.params)
    skipped = set(spec.get("parameters_not_comparable", []))
    for name, expected in after.items():
        if name in found and name not in skipped:
            case.errors.compare_norm("parameters", expected, found[name])
        elif name.split(".")[-1] not in original.BUFFERS and name not in skipped:
            case.errors.unchecked.add(name)
    return case.errors


def check(folders: Sequence[pathlib.Path]) -> bool:
    """Checks fixture folders, prints a table, and says whether all passed.

    Raises:
        ValueError: If a folder cannot be read or holds what is not supported.
    """
    table = rich.table.Table(title="parity with the original, largest error (gate)")
    for column in ("case", "kind", "error", "gate", ""):
        table.add_column(column, justify="right" if column == "error" else "left")
    passed = True
    with jax.default_matmul_precision("highest"):
        for folder in folders:
            spec_path = folder / "case.json"
            is_training = spec_path.exists() and "log" in json.loads(
                spec_path.read_text()
            )
            errors = check_train_steps(folder) if is_training else check_case(folder)
            passed = passed and errors.passed
            for kind, error in errors.largest.items():
                verdict = "ok" if error <= GATES[kind] else "FAILED"
                gate = f"{GATES[kind]:.0e}"
                table.add_row(folder.name, kind, f"{error:.1e}", gate, verdict)
            for name in sorted(errors.unchecked):
                table.add_row(folder.name, name, "", "", "NOT CHECKED")
            table.add_section()
    console = runlog.make_console()
    console.print(table)
    console.print("passed" if passed else "failed")
    return passed
