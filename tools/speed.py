"""The README's tables of speed, made from files of `python -m arith_jax.bench`."""

from collections.abc import Mapping
from typing import Any

from tools.tables import device, markdown

# File of `results/speed/` -> what was done, our goal on an H100, the original's best on
# one (PyTorch 2.11, fp16, 512 rows of 64 tokens a micro-batch, blocks compiled where
# that helps). The time of its grid is reckoned from its rate; it decodes one cell after
# another.
LINES = {
    "train_16x1": (
        "training 16x1, width 1024, 2,048 sums a micro-batch",
        "13,000 sums/s, 50% without padding",
        "6,557 sums/s",
    ),
    "train_8x2": ("training 8x2, progressive loss", "22,000 sums/s", "7,463 sums/s"),
    "train_1x16": (
        "training 1x16, progressive loss, 2,048 sums a micro-batch",
        "38,000 sums/s",
        "12,656 sums/s",
    ),
    "train_16x1_fire": ("training 16x1 with FIRE", "10,000 sums/s", "3,948 sums/s"),
    "train_wide": (
        "training 2 layers, width 512, 2,048 sums a step",
        "250,000 sums/s",
        "",
    ),
    "train_gpu": ("training `abacus_add.py:gpu`", "", ""),
    "train_cpu": ("training `abacus_add.py:cpu`", "", ""),
    "grid_8x2": ("a million sums of the grid, 8x2", "60 s", "5.5 hours"),
    "grid_gpu": ("a million sums of the grid, `abacus_add.py:gpu`", "10 s", ""),
    "grid_cpu": ("the grid of `abacus_add.py:cpu`", "", ""),
    "decode_16x1": ("decoding 100 sums of 100 digits, 16x1", "0.25 s", "4.95 s"),
    "decode_gpu": ("decoding 100 sums of 100 digits, `abacus_add.py:gpu`", "", ""),
    "decode_cpu": ("decoding 100 sums of 100 digits, `abacus_add.py:cpu`", "", ""),
}


def measured(record: Mapping[str, Any]) -> str:
    """The figures of one file: rate and share of the peak, or seconds."""
    numbers = record["measured"]
    if record["what"] == "train":
        shares = (numbers[f"{kind}share_of_peak"] for kind in ("", "useful_"))
        peak = " / ".join(f"{100 * share:.0f}%" for share in shares)
        return f"{numbers['samples_per_second']:,.0f} sums/s, {peak} of the peak"
    if record["what"] == "eval":
        seconds = f"{numbers['grid_seconds_with_compilation']:.1f} s"
        if "grid_seconds" in numbers:
            seconds += f", {numbers['grid_seconds']['median']:.1f} s compiled"
        return f"{seconds} ({numbers['sums']:,} sums)"
    longest = max(numbers["lengths"], key=lambda length: length["digits"])
    return f"{longest['seconds']['median']:.2f} s"


def speed_table(records: Mapping[str, Mapping[str, Any]]) -> str:
    """A row for every file, in the order of `LINES`.

    Raises:
        KeyError: If a file is none of `LINES`.
    """
    unknown = sorted(records.keys() - LINES.keys())
    if unknown:
        raise KeyError(f"results/speed/{unknown[0]}.json is not in tools/speed.py")
    rows = [
        [
            label,
            device(records[name]),
            measured(records[name]),
            goal or "-",
            best or "-",
        ]
        for name, (label, goal, best) in LINES.items()
        if name in records
    ]
    header = ["work", "device", "measured", "goal, H100", "the original, H100"]
    return markdown(header, rows)


def scaling_table(record: Mapping[str, Any]) -> str:
    """Step time and planned memory by sums a step and by layers.

    Whole, and by what they should be proportional to.
    """
    header = ["sums a step", "layers", "a step", "a sum and layer", "planned memory"]
    rows = []
    for row in record["measured"]["scaling"]:
        samples, layers = row["samples_per_step"], row["layers"]
        seconds = row["seconds_per_step"]
        rows.append(
            [
                f"{samples:,}",
                f"{layers}",
                f"{1e3 * seconds:.1f} ms",
                f"{1e6 * seconds / samples / layers:.2f} us",
                f"{row['program_bytes'] / 2**20:,.0f} MiB",
            ]
        )
    return markdown(header, rows)
