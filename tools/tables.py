"""Tables made from results: pure functions from runs to Markdown."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

Run = Mapping[str, Any]
Runs = Mapping[str, Run]
Counts = Mapping[str, int]

# The README's rows: experiment, and further runs of its weights on longer numbers.
ROWS = {
    "abacus_add_cpu": (),
    "abacus_add_gpu": ("abacus_add_reach_gpu", "abacus_add_million_gpu"),
    "abacus_long_add_gpu": (),
    "abacus_table_add_gpu": (),
    "abacus_tiny_add_gpu": (),
    "abacus_soft_add_gpu": ("abacus_soft_add_ten_gpu",),
    "abacus_soft_add_cpu": (),
    "abacus_table_soft_add_gpu": (),
    "bias_add_cpu": (),
    "nope_add_cpu": (),
}
# The README's rows of other tasks.
TASKS = (
    *("abacus_addsub_gpu", "abacus_mul_gpu", "abacus_arithmetic_gpu"),
    *("abacus_multi_add_gpu", "abacus_div_gpu", "abacus_sqrt_gpu", "abacus_sort_gpu"),
    *("abacus_radix_sort_gpu", "abacus_or_cpu"),
    *("abacus_copy_cpu", "abacus_copy_reverse_cpu"),
)


def seeds_of(results: Runs, row: str) -> list[Run]:
    """The runs of an experiment, by seed."""
    runs = [run for name, run in results.items() if name.rpartition("_s")[0] == row]
    return sorted(runs, key=lambda run: run["seed"])


def fraction(counts: Counts | None) -> float | None:
    """Share of right sums; None if none was evaluated."""
    return counts["correct"] / counts["total"] if counts and counts["total"] else None


def percent(share: float) -> str:
    """A percentage, cut and not rounded, so that an error never reads as 100."""
    if share == 1:
        return "100"
    digits = 4 if share > 0.99 else 2
    # The tolerance undoes binary fractions just below a decimal one.
    cut = int(100 * share * 10**digits + 1e-7)
    return f"{cut / 10**digits:.{digits}f}"


def over_seeds(shares: Sequence[float | None]) -> str:
    """Median and worst seed in percent, or the one value they share."""
    known = [share for share in shares if share is not None]
    if not known:
        return "-"
    if len(set(known)) == 1:
        return percent(known[0])
    return f"{percent(statistics.median_low(known))} ({percent(min(known))})"


def seconds_of(runs: Sequence[Run]) -> str:
    """Median and longest training time, or that of seeds that were trained together."""
    times = [run["train_seconds"] for run in runs]
    together = runs[0].get("trained_together", 1)
    if together > 1:
        return f"{max(times):.1f}, {together} together"
    if len(times) == 1:
        return f"{times[0]:.1f}"
    return f"{statistics.median(times):.1f} ({max(times):.1f})"


def diagonal(run: Run, length: int) -> Counts | None:
    """The cell of two operands of this length, if it was evaluated."""
    cells = [c for c in run["cells"] if c["a"] == c["b"] == length]
    return cells[0] if cells else None


def pooled(cells: Sequence[Counts | None]) -> dict[str, int] | None:
    """Right and all sums of the seeds together."""
    evaluated = [cell for cell in cells if cell]
    if not evaluated:
        return None
    return {key: sum(cell[key] for cell in evaluated) for key in ("correct", "total")}


def counts(cells: Sequence[Counts | None], between: str = "/") -> str:
    """Right and all sums of the seeds together, in words."""
    sums = pooled(cells)
    return f"{sums['correct']:,}{between}{sums['total']:,}" if sums else "-"


def device(run: Run) -> str:
    """The device, in words."""
    name = run["device"].removeprefix("1 x ")
    return "2 CPU cores" if name == "cpu" else name.removesuffix(" 80GB HBM3")


def trained_on(run: Run) -> int:
    """Digits of the longest operand trained on."""
    return run["config"]["full"]["data"]["max_digits"]


def markdown(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table."""
    rows = [header, ["---"] * len(header), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def results_table(results: Runs) -> str:
    """The README's table: one row per experiment, its seeds together."""
    header = ["experiment", "device", "seeds", "trained on", "parameters"]
    header += ["training, s", "trained lengths, %", "longer, to 100, %"]
    header += ["1,000 + 1,000", "10,000 + 10,000", "100,000 + 100,000"]
    lines = []
    for row, further in ROWS.items():
        runs = seeds_of(results, row)
        if not runs:
            continue
        all_runs = [
            *runs,
            *(run for name in further for run in seeds_of(results, name)),
        ]
        first = runs[0]
        line = [f"`{row}`", device(first), str(len(runs))]
        line += [f"<= {trained_on(first)} digits", f"{first['num_params']:,}"]
        line.append(seconds_of(runs))
        line += [
            over_seeds([fraction(run["exact_match"].get(region)) for run in runs])
            for region in ("id", "ood")
        ]
        line += [
            counts([diagonal(run, n) for run in all_runs])
            for n in (1_000, 10_000, 100_000)
        ]
        lines.append(line)
    return markdown(header, lines)


def tasks_table(results: Runs) -> str:
    """The README's other tasks: trained sizes, larger ones, the largest evaluated."""
    header = ["experiment", "device", "seeds", "trained on", "parameters"]
    header += ["training, s", "trained sizes, %", "larger, %", "largest cell"]
    lines = []
    for row in TASKS:
        runs = seeds_of(results, row)
        if not runs:
            continue
        first = runs[0]
        lists = first["config"]["full"]["data"]["max_numbers"]
        sizes = f"<= {trained_on(first)} digits" + f", <= {lists} numbers" * (lists > 0)
        largest = max(cell["a"] for cell in first["cells"] if cell["a"] == cell["b"])
        line = [f"`{row}`", device(first), str(len(runs)), sizes]
        line += [f"{first['num_params']:,}", seconds_of(runs)]
        line += [
            over_seeds([fraction(regions(run, *names)) for run in runs])
            for names in (("id",), ("ood", "ood_100plus"))
        ]
        cells = [diagonal(run, largest) for run in runs]
        lines.append([*line, f"{largest:,} x {largest:,}: {counts(cells)}"])
    return markdown(header, lines)


def regions(run: Run, *names: str) -> Counts | None:
    """Some regions of a run together."""
    return pooled([run["exact_match"].get(name) for name in names])


def headline(results: Runs) -> str:
    """The README's first claim, from the runs of the flagship on both devices."""
    laptop = seeds_of(results, "abacus_add_cpu")
    gpu = seeds_of(results, "abacus_add_gpu")
    reach = seeds_of(results, "abacus_add_reach_gpu")
    near = [diagonal(run, 1_000) for run in gpu]
    far = [diagonal(run, 100_000) for run in reach]
    furthest = [
        diagonal(run, 1_000_000) for run in seeds_of(results, "abacus_add_far_gpu")
    ]
    at_1000 = counts([diagonal(run, 1_000) for run in laptop], " of ")
    # The first run compiles; the others find its programs in the cache.
    compiled = max(run["compile_seconds"] for run in gpu)
    return (
        f"Trained for {statistics.median(r['train_seconds'] for r in gpu):.1f} seconds "
        f"on one {device(gpu[0]).removeprefix('NVIDIA ')} (compiled in "
        f"{compiled:.0f}, once), on sums of at most "
        f"{trained_on(gpu[0])} digits, a model of {gpu[0]['num_params']:,} parameters "
        f"gets {counts(near, ' of ')} sums of 1,000 digits and "
        f"{counts(far, ' of ')} sums of 100,000 digits exactly right ({len(gpu)} "
        f"seeds together, last step, nothing selected; of 1,000,000 digits "
        f"{counts(furthest, ' of ')}, seed 0). On {device(laptop[0])}, "
        f"{statistics.median(r['train_seconds'] for r in laptop):.0f} seconds on at "
        f"most {trained_on(laptop[0])} digits: {at_1000} sums of 1,000 digits "
        f"({len(laptop)} seeds)."
    )


def grid_of(run: Run) -> Counts | None:
    """The whole 100 x 100 grid of a run that graded every cell."""
    return regions(run, "id", "ood")


def longer_of(run: Run) -> Counts | None:
    """The part of the grid that is longer than what was trained on."""
    return regions(run, "ood")
