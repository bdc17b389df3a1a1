"""Measures how fast an experiment trains, evaluates, decodes or draws its data.

    python -m arith_jax.bench train --config=configs/abacus_add.py:cpu [--steps=N]
        [--scaling] [--out=FILE.json] [--config.KEY=VALUE ...]

What: `train`, `profile` (where the time of a training step goes), `eval` (the config's
whole grid), `decode` (100 sums of 20, 60 and 100 digits) or `data`. Prints a table and
writes all numbers with the raw times, by default to runs/bench/. Compiled programs are
not kept between runs unless JAX_COMPILATION_CACHE_DIR is set, so that compilation is
measured, too.
"""

import os
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import rich.table
from absl import flags

from arith_jax import command, runlog, throughput
from arith_jax.experiment import Experiment, run_record

# What is measured -> default of --steps: steps, or passes over the same work.
WHATS = {"train": 30, "profile": 10, "eval": 1, "decode": 5, "data": 50}

STEPS = flags.DEFINE_integer(
    "steps",
    None,
    "Timed steps (train, profile, data) or repetitions (eval, decode); default "
    + ", ".join(f"{what} {count}" for what, count in WHATS.items())
    + "; 0 for eval: only the first pass, with compilation.",
    lower_bound=0,
)
OUT = flags.DEFINE_string(
    "out", None, "File of the numbers; default runs/bench/<config>_<preset>_<what>.json"
)
SCALING = flags.DEFINE_bool(
    "scaling", False, "For train: step time and memory at several batches and depths."
)


def measure(
    what: str, experiment: Experiment, steps: int, scaling: bool
) -> dict[str, Any]:
    """Every number of one measurement, with raw times."""
    if what == "train":
        if scaling:
            return {"scaling": throughput.train_scaling(experiment, steps)}
        return throughput.train_speed(experiment, steps)
    if what == "profile":
        return throughput.train_profile(experiment, steps)
    if what == "eval":
        return throughput.eval_speed(experiment, steps)
    if what == "decode":
        return throughput.decode_speed(experiment, steps)
    return throughput.data_speed(experiment, steps)


def milliseconds(seconds: Mapping[str, Any], steps: int = 1) -> str:
    """Median, smallest and largest of seconds per `steps` steps."""
    median, least, most = (
        1e3 * seconds[key] / steps for key in ("median", "min", "max")
    )
    return f"{median:,.2f} ms (min {least:,.2f}, max {most:,.2f})"


def megabytes(count: int) -> str:
    """Bytes, readable."""
    return f"{count / 2**20:,.0f} MiB"


def rate(flops: float, share: float) -> str:
    """Operations a second and their share of the measured peak."""
    return f"{flops / 1e12:,.3f} TFLOP/s, {100 * share:.1f}% of the peak"


def train_rows(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the table of `train` says."""
    peak, memory = found["matmul_peak"], found["peak_memory"]
    return [
        ("parameters", f"{found['num_params']:,}"),
        ("samples a step", f"{found['samples_per_step']:,}"),
        ("samples/s", f"{found['samples_per_second']:,.0f}"),
        ("tokens/s, padding included", f"{found['tokens_per_second']:,.0f}"),
        ("tokens/s, without padding", f"{found['useful_tokens_per_second']:,.0f}"),
        ("step, each waited for", milliseconds(found["step_seconds"])),
        (
            f"step, in groups of {found['group_steps']}",
            milliseconds(found["group_seconds"], found["group_steps"]),
        ),
        (
            "compilation",
            f"{found['compile_seconds']:.1f} s, {found['programs']} program(s)",
        ),
        (f"peak memory of the {memory['of']}", megabytes(memory["bytes"])),
        ("memory planned for a step", megabytes(found["program_bytes"])),
        (
            "model, padding included",
            rate(found["flops_per_second"], found["share_of_peak"]),
        ),
        (
            "model, without padding",
            rate(found["useful_flops_per_second"], found["useful_share_of_peak"]),
        ),
        (
            f"peak: {peak['dtype']} product of {peak['size']} x {peak['size']}",
            f"{peak['flops_per_second'] / 1e12:,.3f} TFLOP/s",
        ),
    ]


def eval_rows(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the table of `eval` says."""
    rows = [
        ("parameters", f"{found['num_params']:,}"),
        ("cells, sums", f"{found['cells']:,}, {found['sums']:,}"),
        ("whole grid, first time", f"{found['grid_seconds_with_compilation']:.2f} s"),
    ]
    if "grid_seconds" in found:
        rows += [
            ("whole grid, compiled", f"{found['grid_seconds']['median']:.2f} s"),
            ("sums/s, compiled", f"{found['sums_per_second']:,.0f}"),
        ]
    return rows


def decode_rows(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the table of `decode` says."""
    rows = [("parameters", f"{found['num_params']:,}")]
    for length in found["lengths"]:
        label = f"{length['batch']} sums of {length['digits']} digits"
        rate = f"{length['tokens_per_second']:,.0f} tokens/s"
        rows.append((label, f"{milliseconds(length['seconds'])}, {rate}"))
    return rows


def data_rows(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the table of `data` says."""
    group = found["group_steps"]
    return [
        ("examples a batch", f"{found['samples_per_step']:,}"),
        ("tokens a row", f"{found['row_tokens']:,}"),
        ("batch", milliseconds(found["group_seconds"], group)),
        ("examples/s", f"{found['examples_per_second']:,.0f}"),
    ]


def profile_table(found: Mapping[str, Any], title: str) -> rich.table.Table:
    """Milliseconds a step and share of each part, products apart from the rest."""
    names = ("part of the step", "products, ms", "other, ms", "share, %")
    table = rich.table.Table(*names, title=title)
    parts = found["parts"]
    busy = sum(part["products"] + part["other"] for part in parts)
    for part in parts:
        times = part["products"], part["other"]
        values = [f"{1e3 * seconds:,.2f}" for seconds in times]
        table.add_row(part["part"], *values, f"{100 * sum(times) / busy:.1f}")
    products = sum(part["products"] for part in parts)
    values = [f"{1e3 * seconds:,.2f}" for seconds in (products, busy - products)]
    table.add_row("all operations", *values, "100")
    table.add_row("a step, by the clock", "", f"{1e3 * found['seconds_per_step']:,.2f}")
    return table


def scaling_table(rows: Sequence[Mapping[str, Any]], title: str) -> rich.table.Table:
    """Step time and memory, whole and by what they should be proportional to."""
    names = ("samples", "layers", "parameters", "step, ms", "us / sample / layer")
    names += ("planned, MiB", "KiB / sample / layer", "compilation, s")
    table = rich.table.Table(*names, title=title)
    for row in rows:
        samples, layers = row["samples_per_step"], row["layers"]
        seconds, size = row["seconds_per_step"], row["program_bytes"]
        values = [f"{samples:,}", f"{layers}", f"{row['num_params']:,}"]
        values += [f"{1e3 * seconds:,.2f}", f"{1e6 * seconds / samples / layers:,.2f}"]
        values += [f"{size / 2**20:,.1f}", f"{size / 2**10 / samples / layers:,.1f}"]
        table.add_row(*values, f"{row['compile_seconds']:.1f}")
    return table


def make_table(what: str, found: Mapping[str, Any], title: str) -> rich.table.Table:
    """The printed form of what was measured."""
    if "scaling" in found:
        return scaling_table(found["scaling"], title)
    if what == "profile":
        return profile_table(found, title)
    rows_of = {
        "train": train_rows,
        "eval": eval_rows,
        "decode": decode_rows,
        "data": data_rows,
    }
    table = rich.table.Table("what", "measured", title=title)
    for row in rows_of[what](found):
        table.add_row(*row)
    return table


def main(arguments: list[str]) -> None:
    """Measures, prints and writes.

    Raises:
        ValueError: If what to measure is not said, or unknown, or nothing is timed.
    """
    if len(arguments) != 1 or arguments[0] not in WHATS:
        raise ValueError(
            f"what to measure is {' '.join(arguments)!r}; allowed: one of "
            f"{', '.join(WHATS)}"
        )
    what = arguments[0]
    if SCALING.value and what != "train":
        raise ValueError(f"--scaling is for train, not for {what}")
    if STEPS.value == 0 and what != "eval":
        raise ValueError(f"--steps=0: must be at least 1 for {what}")
    experiment, overrides = command.experiment_of_flags()
    steps = WHATS[what] if STEPS.value is None else STEPS.value
    found = measure(what, experiment, steps, SCALING.value)
    console = runlog.make_console()
    label = f"{experiment.name}:{experiment.preset}, {what}, {runlog.device_name()}"
    console.print(make_table(what, found, label))
    name = f"{experiment.name}_{experiment.preset}_{what}"
    if SCALING.value:
        name += "_scaling"
    path = pathlib.Path(OUT.value or f"runs/bench/{name}.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    record = {"what": what, **run_record(experiment, overrides), "measured": found}
    runlog.write_json(path, record)
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
    command.run(main)
