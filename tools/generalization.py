"""Tables of docs/length_generalization.md."""

import statistics
from collections.abc import Callable, Sequence

from configs.ablation_add import CHANGES
from tools.tables import (
    Counts,
    Run,
    Runs,
    counts,
    diagonal,
    fraction,
    grid_of,
    longer_of,
    markdown,
    over_seeds,
    pooled,
    seconds_of,
    seeds_of,
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


def worst(runs: Sequence[Run], measure: Callable[[Run], Counts | None]) -> str:
    """Median and worst seed of one measure, in percent."""
    return over_seeds([fraction(measure(run)) for run in runs])


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
            f"longer sums {worst(soft_laptop, longer_of)}%",
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
            f"longer sums {worst(soft_table, longer_of)}%",
        ),
    ]
    return markdown(["goal", "experiment", "seeds", "training, s", "reached"], lines)
