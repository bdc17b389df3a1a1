"""Tables made from results: pure functions from runs to Markdown."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from configs.ablation_add import CHANGES

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
    *("abacus_radix_sort_5min_gpu", "abacus_or_cpu"),
    *("abacus_copy_cpu", "abacus_copy_reverse_cpu"),
)
# What makes a model without a window carry: runs, and what is set.
FAR = (
    ("soft_add_kinds_gpu", "a bias for symbols"),
    ("soft_add_copies_gpu", "far copies"),
    ("soft_add_short_gpu", "both"),
    ("abacus_soft_add_gpu", "both, `abacus_soft_add.py:gpu`"),
    ("table_add_copies_gpu", "learned table, far copies"),
    ("table_add_copies_long_gpu", "the same, longer"),
    ("table_add_copies_scaled_gpu", "the same, scaled logits"),
    ("table_add_copies_noise_gpu", "the same, key noise 2"),
    ("table_soft_digits_gpu", "learned table, digits see those of other sums"),
    ("table_soft_digits_long_gpu", "the same, longer"),
    ("abacus_table_soft_add_gpu", "so do symbols: `abacus_table_add.py:far=bias,gpu`"),
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


def change_text(change: str) -> str:
    """The assignments of a row of the ablation."""
    values = CHANGES[change].items()
    return ", ".join(f"{key}={value}" for key, value in values) or "nothing"


def ablation_table(results: Runs, budget: str) -> str:
    """What each change of `configs/ablation_add.py` gives with a budget of steps."""
    header = ["change", "what is set", "seeds", "parameters", "TFLOP"]
    header += ["trained lengths, %", "longer, to 100, %", "100 + 100, %"]
    header += ["1,000 + 1,000, %"]
    lines = []
    for change in CHANGES:
        runs = seeds_of(results, f"ablation_add_{change}_{budget}")
        if not runs:
            continue
        line = [f"`{change}`", change_text(change), str(len(runs))]
        line.append(f"{runs[0]['num_params']:,}")
        line.append(f"{statistics.median(run['flops'] for run in runs) / 1e12:.1f}")
        line += [
            over_seeds([fraction(run["exact_match"].get(region)) for run in runs])
            for region in ("id", "ood")
        ]
        line += [
            over_seeds([fraction(diagonal(run, n)) for run in runs])
            for n in (100, 1_000)
        ]
        lines.append(line)
    return markdown(header, lines)


def far_table(results: Runs) -> str:
    """What makes models without a window carry."""
    header = ["what is set", "steps", "seeds", "trained lengths, %"]
    header += ["longer, to 100, %", "100 + 100, %", "1,000 + 1,000, %"]
    header += ["2,000 + 2,000, %"]
    lines = []
    for row, what in FAR:
        runs = seeds_of(results, row)
        line = [what, f"{runs[0]['steps']:,}", str(len(runs))]
        line += [
            over_seeds([fraction(run["exact_match"].get(region)) for run in runs])
            for region in ("id", "ood")
        ]
        line += [
            over_seeds([fraction(diagonal(run, n)) for run in runs])
            for n in (100, 1_000, 2_000)
        ]
        lines.append(line)
    return markdown(header, lines)


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


def worst(runs: Sequence[Run], measure: Callable[[Run], Counts | None]) -> str:
    """Median and worst seed of one measure, in percent."""
    return over_seeds([fraction(measure(run)) for run in runs])


def grid_of(run: Run) -> Counts | None:
    """The whole 100 x 100 grid of a run."""
    return regions(run, "id", "ood")


def sets_of(run: Run) -> Counts | None:
    """The special operands of a run together."""
    return pooled([cell for cells in run["sets"].values() for cell in cells])


def records_table(results: Runs) -> str:
    """Goals of length generalization and what was reached, median (worst) of seeds."""
    gpu, laptop = (seeds_of(results, f"abacus_add_{x}") for x in ("gpu", "cpu"))
    soft_laptop = seeds_of(results, "abacus_soft_add_cpu")
    million, reach, far, ten, table, tiny, soft, soft_ten, soft_table = (
        seeds_of(results, f"abacus_{name}_gpu")
        for name in (
            *("add_million", "add_reach", "add_far"),
            *("long_add", "table_add", "tiny_add"),
            *("soft_add", "soft_add_ten", "table_soft_add"),
        )
    )

    def at(length: int) -> Callable[[Run], Counts | None]:
        return lambda run: diagonal(run, length)

    def line(goal: str, what: str, runs: Sequence[Run], *reached: str) -> list[str]:
        if not runs:
            return [goal, what, "-", "-", "not run yet"]
        return [goal, what, str(len(runs)), seconds_of(runs), "; ".join(reached)]

    lines = [
        line(
            "100 digits >= 99.9%, <= 5 s",
            "`abacus_add.py:gpu`",
            gpu,
            f"{worst(million, at(100))}% of 100,000 sums",
        ),
        line(
            "100 x 100 grid >= 99.99%, <= 30 s",
            "the same",
            gpu,
            f"{worst(gpu, grid_of)}% of 1,000,000 sums",
        ),
        line(
            "1,000 digits >= 99%, <= 60 s",
            "the same",
            gpu,
            f"{worst(gpu, at(1_000))}% of 1,000 sums",
        ),
        line(
            "10,000 digits >= 99%, <= 10 min",
            "the same",
            reach,
            f"{worst(reach, at(10_000))}% of 100 sums",
        ),
        line(
            "100,000 digits, as far as it goes",
            "the same",
            reach,
            f"{worst(reach, at(100_000))}% of 100 sums",
            f"1,000,000 (seed 0): {counts([diagonal(run, 1_000_000) for run in far])}",
        ),
        line(
            "2 CPU cores, <= 8 digits, 3 min: 160 >= 99%, 1,000 >= 95%",
            "`abacus_add.py:cpu`",
            laptop,
            f"160: {worst(laptop, at(160))}%",
            f"1,000: {worst(laptop, at(1_000))}%",
            f"10,000: {counts([diagonal(run, 10_000) for run in laptop])}",
        ),
        line(
            "no error in 1,000,000 sums <= 20 digits, 100,000 of 100, all special sets",
            "`abacus_add.py:gpu`",
            million,
            *(
                f"{name}: {counts([measure(run) for run in million])}"
                for name, measure in (
                    ("<= 20", lambda run: run["exact_match"]["id"]),
                    ("100", at(100)),
                    ("sets", sets_of),
                )
            ),
        ),
        line(
            "ten times the training is no worse",
            "`abacus_long_add.py:gpu`",
            ten,
            f"grid {worst(ten, grid_of)}%",
            f"1,000: {worst(ten, at(1_000))}%",
            f"100,000: {worst(ten, at(100_000))}%",
        ),
        line(
            "fewest parameters with 100 digits >= 99%",
            "`abacus_tiny_add.py:gpu`",
            tiny,
            f"{tiny[0]['num_params']:,} parameters" if tiny else "",
            f"100: {worst(tiny, at(100))}%",
        ),
        line(
            "no window: 1,000 digits >= 99.9%, <= 30 s; 10,000 >= 99%, <= 5 min",
            "`abacus_soft_add.py:gpu`",
            soft,
            f"1,000: {worst(soft, at(1_000))}%",
            f"10,000: {counts([diagonal(run, 10_000) for run in soft_ten])}",
        ),
        line(
            "no window, 2 CPU cores, <= 8 digits, 5 min: 160 >= 99%",
            "`abacus_soft_add.py:cpu`",
            soft_laptop,
            f"grid {worst(soft_laptop, grid_of)}%",
            f"160: {worst(soft_laptop, at(160))}%",
            f"1,000: {worst(soft_laptop, at(1_000))}%",
        ),
        line(
            "learned Abacus table, 100 digits >= 99%, <= 30 s",
            "`abacus_table_add.py:gpu`",
            table,
            f"100: {worst(table, at(100))}%",
            f"grid {worst(table, grid_of)}%",
        ),
        line(
            "no window, learned table alone, 100 digits >= 99%, <= 5 min",
            "`abacus_table_add.py:far=bias,gpu`",
            soft_table,
            f"100: {worst(soft_table, at(100))}%",
            f"120: {worst(soft_table, at(120))}%",
            f"grid {worst(soft_table, grid_of)}%",
        ),
    ]
    return markdown(["goal", "experiment", "seeds", "training, s", "reached"], lines)
