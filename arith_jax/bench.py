"""Measures how fast an experiment trains, evaluates, decodes or draws its data.

    python -m arith_jax.bench train --config=configs/abacus_add.py:cpu [--steps=N]
        [--scaling] [--out=FILE.json] [--config.KEY=VALUE ...]

What: `train`, `profile` (where the time of a training step goes), `eval` (the config's
whole grid), `decode` (100 sums of 20, 60 and 100 digits) or `data`. Prints a table and
writes all numbers with the raw times, by default to runs/bench/. Compiled programs are
not kept between runs unless JAX_COMPILATION_CACHE_DIR is set, so that compilation is
measured, too.
"""

import dataclasses
import os
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from absl import flags

from arith_jax import cli
from arith_jax.benchmark import answering, training
from arith_jax.benchmark.tables import make_table
from arith_jax.config.experiment import Experiment
from arith_jax.model.execution import resolve
from arith_jax.training.log import make_console
from arith_jax.training.record import device_name, run_record, write_json

# What is measured -> default of --steps: steps, or passes over the same work.
WHATS = {"train": 30, "profile": 10, "eval": 1, "decode": 5, "data": 50}


def measure(
    what: str, experiment: Experiment, steps: int, *, scaling: bool = False
) -> dict[str, Any]:
    """Every number of one measurement, with raw times."""
    if scaling:
        return {"scaling": training.train_scaling(experiment, steps)}
    functions = {
        "train": training.train_speed,
        "profile": training.train_profile,
        "eval": answering.eval_speed,
        "decode": answering.decode_speed,
        "data": training.data_speed,
    }
    return functions[what](experiment, steps)


def make_flags(arguments: Sequence[str]) -> flags.FlagValues:
    """The flags of this command.

    Args:
        arguments: Its command line.
    """
    values = cli.new_flags(config_in=arguments)
    flags.DEFINE_integer(
        "steps",
        None,
        "Timed steps (train, profile, data) or repetitions (eval, decode); default "
        + ", ".join(f"{what} {count}" for what, count in WHATS.items())
        + "; 0 for eval: only the first pass, with compilation.",
        lower_bound=0,
        flag_values=values,
    )
    flags.DEFINE_string(
        "out",
        None,
        "File of the numbers; default runs/bench/<config>_<preset>_<what>.json",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "scaling",
        False,
        "For train: step time and memory at several batches and depths.",
        flag_values=values,
    )
    return values


def main(arguments: Sequence[str]) -> None:
    """Measures, prints and writes.

    Raises:
        ValueError: If what to measure is not said, or unknown, or nothing is timed.
    """
    values = make_flags(arguments)
    rest = cli.parse(values, arguments, __doc__ or "")
    if len(rest) != 1 or rest[0] not in WHATS:
        raise ValueError(
            f"what to measure is {' '.join(rest)!r}; allowed: one of {', '.join(WHATS)}"
        )
    what = rest[0]
    if values.scaling and what != "train":
        raise ValueError(f"--scaling is for train, not for {what}")
    if values.steps == 0 and what != "eval":
        raise ValueError(f"--steps=0: must be at least 1 for {what}")
    experiment, overrides = cli.experiment_of(values)
    execution, missing = resolve(experiment.execution)
    steps = WHATS[what] if values.steps is None else values.steps
    resolved = dataclasses.replace(experiment, execution=execution)
    measured = measure(what, resolved, steps, scaling=values.scaling)
    console = make_console()
    if missing:
        console.print(missing, soft_wrap=True)
    label = f"{experiment.name}:{experiment.preset}, {what}, {device_name()}"
    console.print(make_table(what, measured, label))
    name = f"{experiment.name}_{experiment.preset}_{what}"
    if values.scaling:
        name += "_scaling"
    path = pathlib.Path(values.out or f"runs/bench/{name}.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    record = {"what": what, **run_record(experiment, overrides), "measured": measured}
    write_json(path, record)
    console.print(f"numbers in {path}", soft_wrap=True)


def show_operations(arguments: Sequence[str]) -> None:
    """For `profile`, makes a GPU run operations one by one, not whole graphs of them.

    The profiler sees graphs as one operation. XLA reads this once, when JAX first looks
    for devices, which reading the config does already.
    """
    if "profile" in arguments:
        flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_enable_command_buffer="
        os.environ["XLA_FLAGS"] = flags.strip()


if __name__ == "__main__":
    show_operations(sys.argv)
    cli.run(main)
