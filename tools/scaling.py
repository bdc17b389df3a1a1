"""What several seeds and devices cost, measured, and many GPUs reckoned.

How long the paper's runs would take on many GPUs is a model: each step takes what it
takes on one GPU, and then all add up their gradients, in float32, with nothing else
done meanwhile.
"""

from collections.abc import Mapping
from typing import Any

from tools.tables import device, markdown

# Sums of a run that took the paper a day of one RTX A4000, as many as 8x2 takes here in
# 24 minutes.
NUM_SUMS = 37_000_000
GPUS = (1, 2, 4, 8, 16, 32, 64)
GPUS_PER_HOST = 8
# Bytes a second of an all-reduce, by NCCL's "bus bandwidth": measured among the 8 GPUs
# of one host (1 GiB); between hosts that of one 400 Gbit/s link each, assumed.
INSIDE_HOST, BETWEEN_HOSTS = 361e9, 50e9
MODELS = {
    "train_8x2": "8x2",
    "train_16x1": "16x1",
    "train_1x16": "1x16",
}


def sum_seconds(num_params: int, num_gpus: int) -> float:
    """Seconds to add up the gradients of all GPUs, first inside each host."""
    size = 4 * num_params
    inside, hosts = min(num_gpus, GPUS_PER_HOST), -(-num_gpus // GPUS_PER_HOST)
    share = lambda n: 2 * (n - 1) / n
    return share(inside) * size / INSIDE_HOST + share(hosts) * size / BETWEEN_HOSTS


def scaling_plan(records: Mapping[str, Mapping[str, Any]]) -> str:
    """Minutes of a run and share of the ideal speed, for each model and GPU count.

    Args:
        records: Of `results/speed/`.
    """
    header = ["model", "parameters", "sums a step and GPU"]
    header += [f"{n} GPU{'s' * (n > 1)}" for n in GPUS]
    lines = []
    for name, label in MODELS.items():
        numbers = records[name]["measured"]
        size, params = numbers["samples_per_step"], numbers["num_params"]
        step = size / numbers["samples_per_second"]
        line = [label, f"{params / 1e6:.1f} M", f"{size:,}"]
        for num_gpus in GPUS:
            together = step + sum_seconds(params, num_gpus)
            minutes = NUM_SUMS / (size * num_gpus) * together / 60
            line.append(f"{minutes:.1f} min ({100 * step / together:.0f}%)")
        lines.append(line)
    return markdown(header, lines)


def devices_table(
    records: Mapping[str, Mapping[str, Any]], one_grid: Mapping[str, Any]
) -> str:
    """The same work on one GPU and on two of one host, and how many times as fast.

    Args:
        records: Of `results/scaling/`.
        one_grid: The record of the grid on one GPU.
    """
    lines = []
    for model in ("8x2", "16x1"):
        one, two = (records[f"devices_{model}_{n}"]["measured"] for n in (1, 2))
        rates = [numbers["samples_per_second"] for numbers in (one, two)]
        label = f"training {model}, {one['samples_per_step']:,} sums a step"
        lines.append([label, *(f"{rate:,.0f} sums/s" for rate in rates)])
        lines[-1].append(f"{rates[1] / rates[0]:.2f}")
    grids = [one_grid["measured"], records["devices_grid_8x2_2"]["measured"]]
    first = [numbers["grid_seconds_with_compilation"] for numbers in grids]
    label = f"8x2, {grids[1]['sums']:,} sums of the grid, with compilation"
    line = [label, *(f"{seconds:.1f} s" for seconds in first)]
    lines.append([*line, f"{first[0] / first[1]:.2f}"])
    return markdown(["work", "one H100", "two H100s", "times as fast"], lines)


def seeds_table(records: Mapping[str, Mapping[str, Any]]) -> str:
    """A step of the flagship with one seed and with several, on one GPU."""
    header = ["seeds", "device", "a step", "sums/s of all seeds"]
    lines = []
    for name in ("seeds_1", "seeds_8"):
        numbers = records[name]["measured"]
        seconds = numbers["group_seconds"]["median"] / numbers["group_steps"]
        line = [str(numbers["num_seeds"]), device(records[name])]
        rate = f"{numbers['samples_per_second']:,.0f}"
        lines.append([*line, f"{1e3 * seconds:.2f} ms", rate])
    return markdown(header, lines)
