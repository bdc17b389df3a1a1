"""Numerical parity: our passes and training steps on tensors of the original.

A fixture folder holds `case.json`, the original's parameters and what it computed.
"""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import rich.table
import safetensors.numpy

from arith_jax.config.training import OptimConfig
from arith_jax.mcleish import names
from arith_jax.mcleish.fixtures import GATES, Case, Errors
from arith_jax.mcleish.passes import (
    Inputs,
    Settings,
    check_case,
    loss_and_gradients,
)
from arith_jax.model.transformer import Transformer
from arith_jax.training.log import make_console
from arith_jax.training.optim import schedule
from arith_jax.training.state import accumulate_gradients, state_from


def optim_config(spec: Mapping[str, Any]) -> OptimConfig:
    """Our optimizer and schedules for those of a recorded training."""
    group = spec["optimizer"]["groups"][0]
    return OptimConfig(
        optimizer="adamw",
        learning_rate=spec["optimizer"]["lr"],
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


def check_train_steps(folder: pathlib.Path) -> Errors:
    """Accumulation, clipping, AdamW and both schedules over recorded micro-batches."""
    case = Case(folder, "state_dict_before.safetensors")
    spec, config = case.spec, optim_config(case.spec)
    model, state = (
        Transformer(case.config({})),
        state_from(config, case.original.params),
    )
    advance = jax.jit(accumulate_gradients, static_argnums=0)
    fraction = 0.0
    for entry, ids, start in zip(
        spec["log"],
        case.tensors["input_ids"],
        case.tensors["initial_states"],
        strict=True,
    ):
        plan = schedule(config, fraction)
        rate = config.learning_rate * float(plan.multiplier)
        case.errors.add("learning rates", abs(rate - entry["learning_rate_in_force"]))
        batch = case.batch(ids, entry["abacus_offset_k"])
        frozen = jnp.asarray(entry["n"], jnp.int32)
        inputs = Inputs(state.params, batch, jnp.array(start), frozen)
        settings = Settings(model, entry["k"], case.reduction)
        loss, gradients = loss_and_gradients(settings, inputs)
        case.errors.add("loss", abs(float(loss) - entry["loss"]))
        updates = int(state.updates)
        state = advance(config, state, gradients, plan)
        stepped = int(state.updates) > updates
        case.errors.add("ids", float(stepped != entry["optimizer_stepped"]))
        wanted = int(state.accumulation.wanted)
        case.errors.add("ids", abs(wanted - entry["accumulation_divisor"]))
        fraction = entry["elapsed_fraction_of_budget"]
    case.errors.unchecked -= {"input_ids", "initial_states"}
    after = safetensors.numpy.load_file(folder / "state_dict_after.safetensors")
    ours = case.as_theirs(state.params)
    skipped = set(spec.get("parameters_not_comparable", []))
    for name, expected in after.items():
        if name in ours and name not in skipped:
            case.errors.compare_norm("parameters", expected, ours[name])
        elif name.split(".")[-1] not in names.BUFFERS and name not in skipped:
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
    console = make_console()
    console.print(table)
    console.print("passed" if passed else "failed")
    return passed
