"""The printed form of measurements."""

from collections.abc import Mapping, Sequence
from typing import Any

import rich.table


def milliseconds(seconds: Mapping[str, Any], steps: int = 1) -> str:
    """Median, smallest and largest of seconds per `steps` steps."""
    median, smallest, largest = (
        1e3 * seconds[key] / steps for key in ("median", "min", "max")
    )
    return f"{median:,.2f} ms (min {smallest:,.2f}, max {largest:,.2f})"


def megabytes(count: int) -> str:
    """Bytes, readable."""
    return f"{count / 2**20:,.0f} MiB"


def rate(flops: float, share: float) -> str:
    """Operations a second and their share of the measured peak."""
    return f"{flops / 1e12:,.3f} TFLOP/s, {100 * share:.1f}% of the peak"


def train_rows(measured: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the table of `train` says."""
    peak, memory = measured["matmul_peak"], measured["peak_memory"]
    return [
        ("parameters of a model", f"{measured['num_params']:,}"),
        ("models trained together", f"{measured['num_seeds']}"),
        ("samples a step", f"{measured['samples_per_step']:,}"),
        ("samples/s", f"{measured['samples_per_second']:,.0f}"),
        ("tokens/s, padding included", f"{measured['tokens_per_second']:,.0f}"),
        ("tokens/s, without padding", f"{measured['useful_tokens_per_second']:,.0f}"),
        ("step, each waited for", milliseconds(measured["step_seconds"])),
        (
            f"step, in groups of {measured['group_steps']}",
            milliseconds(measured["group_seconds"], measured["group_steps"]),
        ),
        (
            "compilation",
            f"{measured['compile_seconds']:.1f} s, {measured['programs']} program(s)",
        ),
        (f"peak memory of the {memory['of']}", megabytes(memory["bytes"])),
        ("memory planned for a step", megabytes(measured["program_bytes"])),
        (
            "model, padding included",
            rate(measured["flops_per_second"], measured["share_of_peak"]),
        ),
        (
            "model, without padding",
            rate(measured["useful_flops_per_second"], measured["useful_share_of_peak"]),
        ),
        (
            f"peak of a device: {peak['dtype']}, {peak['size']} x {peak['size']}",
            f"{peak['flops_per_second'] / 1e12:,.3f} TFLOP/s",
        ),
    ]


def eval_rows(measured: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the table of `eval` says."""
    rows = [
        ("parameters", f"{measured['num_params']:,}"),
        ("cells, sums", f"{measured['cells']:,}, {measured['sums']:,}"),
        (
            "whole grid, first time",
            f"{measured['grid_seconds_with_compilation']:.2f} s",
        ),
    ]
    if "grid_seconds" in measured:
        rows += [
            ("whole grid, compiled", f"{measured['grid_seconds']['median']:.2f} s"),
            ("sums/s, compiled", f"{measured['sums_per_second']:,.0f}"),
        ]
    return rows


def decode_rows(measured: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the table of `decode` says."""
    rows = [("parameters", f"{measured['num_params']:,}")]
    for length in measured["lengths"]:
        label = f"{length['batch']} sums of {length['digits']} digits"
        rate = f"{length['tokens_per_second']:,.0f} tokens/s"
        rows.append((label, f"{milliseconds(length['seconds'])}, {rate}"))
    return rows


def data_rows(measured: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the table of `data` says."""
    group = measured["group_steps"]
    return [
        ("examples a batch", f"{measured['samples_per_step']:,}"),
        ("tokens a row", f"{measured['row_tokens']:,}"),
        ("batch", milliseconds(measured["group_seconds"], group)),
        ("examples/s", f"{measured['examples_per_second']:,.0f}"),
    ]


def profile_table(measured: Mapping[str, Any], title: str) -> rich.table.Table:
    """Milliseconds a step and share of each part, products apart from the rest."""
    names = ("part of the step", "products, ms", "other, ms", "share, %")
    table = rich.table.Table(*names, title=title)
    parts = measured["parts"]
    busy = sum(part["products"] + part["other"] for part in parts)
    for part in parts:
        times = part["products"], part["other"]
        values = [f"{1e3 * seconds:,.2f}" for seconds in times]
        table.add_row(part["part"], *values, f"{100 * sum(times) / busy:.1f}")
    products = sum(part["products"] for part in parts)
    values = [f"{1e3 * seconds:,.2f}" for seconds in (products, busy - products)]
    table.add_row("all operations", *values, "100")
    table.add_row(
        "a step, by the clock", "", f"{1e3 * measured['seconds_per_step']:,.2f}"
    )
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


def make_table(what: str, measured: Mapping[str, Any], title: str) -> rich.table.Table:
    """The printed form of what was measured."""
    if "scaling" in measured:
        return scaling_table(measured["scaling"], title)
    if what == "profile":
        return profile_table(measured, title)
    rows_of = {
        "train": train_rows,
        "eval": eval_rows,
        "decode": decode_rows,
        "data": data_rows,
    }
    table = rich.table.Table("what", "measured", title=title)
    for row in rows_of[what](measured):
        table.add_row(*row)
    return table
