"""What docs/paper.md says of our runs of the paper's own recipe."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from arith_jax.evaluation import plots
from arith_jax.sweep.entries import read_sweep
from arith_jax.sweep.progress import is_result_of
from tools.tables import Run, Runs, fraction, markdown, over_seeds, percent, seeds_of

SWEEPS = pathlib.Path(__file__).parent.parent / "sweeps" / "paper"

# Runs of 8x2 with Abacus embeddings, by their budget.
BUDGETS = ("paper_addition_8x2_abacus_7min", "paper_addition_8x2_abacus_24min")
BANDS = ((1, 20), (21, 40), (41, 60), (61, 80), (81, 100))
DIAGONAL = (100, 110, 120, 130)


def counted(cells: Sequence[Mapping[str, Any]]) -> str:
    """Right and all sums of some cells."""
    correct, total = (sum(cell[key] for cell in cells) for key in ("correct", "total"))
    return f"{correct}/{total}" if total else "-"


def share(cells: Sequence[Mapping[str, Any]]) -> str:
    """Percentage of right sums of some cells."""
    correct, total = (sum(cell[key] for cell in cells) for key in ("correct", "total"))
    return percent(correct / total) if total else "-"


def headline_table(results: Runs) -> str:
    """One line for each run of the best model: counts, and shares by length."""
    header = ["training, s", "device", "sums", "seed", "trained lengths", "OOD, %"]
    header += [f"{low} to {high}" for low, high in BANDS]
    header += [f"{n} + {n}" for n in DIAGONAL]
    lines = [headline_line(run) for row in BUDGETS for run in seeds_of(results, row)]
    return markdown(header, lines)


def headline_sentence(results: Runs) -> str:
    """What the longest runs of the best model reached, for the README."""
    runs = seeds_of(results, BUDGETS[-1])
    outside = [run["exact_match"]["ood"] for run in runs]
    shares = [f"{percent(fraction(counts) or 0.0):.5}%" for counts in outside]
    minutes = round(max(run["train_seconds"] for run in runs) / 60)
    return (
        f"The paper's best model by its own recipe ({runs[0]['num_params']:,} "
        f"parameters) gets {' and '.join(shares)} of longer sums, to 100 digits, after "
        f"{minutes} minutes of one H100 ({len(runs)} seeds, {outside[0]['total']:,} "
        "sums each); the paper has 99.1% after a day of an A4000."
    )


def headline_line(run: Run) -> list[str]:
    """A run's line of `headline_table`."""
    cells = run["cells"]
    inside = [cell for cell in cells if max(cell["a"], cell["b"]) <= 100]
    bands = [
        [cell for cell in inside if low <= max(cell["a"], cell["b"]) <= high]
        for low, high in BANDS
    ]
    diagonal = [
        [cell for cell in cells if cell["a"] == cell["b"] == n] for n in DIAGONAL
    ]
    trained = run["exact_match"]["id"]
    return [
        f"{run['train_seconds']:.0f}",
        run["device"].removeprefix("1 x "),
        f"{run['samples'] / 1e6:.1f} M",
        str(run["seed"]),
        f"{trained['correct']:,}/{trained['total']:,}",
        percent(fraction(run["exact_match"]["ood"]) or 0.0),
        *map(share, bands),
        *map(counted, diagonal),
    ]


def headline_grids(results: Runs) -> tuple[Figure, Any]:
    """Heat maps of the longest runs of the best model, one for each seed."""
    runs = seeds_of(results, BUDGETS[-1])
    figure = Figure(figsize=(3.6 * len(runs) + 1.2, 3.9), dpi=110, layout="constrained")
    axes = figure.subplots(1, len(runs), sharey=True, squeeze=False)[0]
    mesh = None
    for ax, run in zip(axes, runs, strict=True):
        mesh = plots.draw_grid_panel(ax, run["cells"], (20, 20))
        ood = percent(fraction(run["exact_match"]["ood"]) or 0.0)
        ax.set_title(f"seed {run['seed']}: {ood}% OOD", fontsize=10)
        ax.set_xlabel("digits of the second operand")
    axes[0].set_ylabel("digits of the first operand")
    figure.colorbar(mesh, ax=axes, label="exact match, %")
    return figure, [run["cells"] for run in runs]


def rows_run(results: Runs) -> dict[str, tuple[list[str], list[Run]]]:
    """By experiment: in which sweeps of `SWEEPS` it is, and its results.

    Experiments without a result are left out.
    """
    rows: dict[str, tuple[list[str], list[Run]]] = {}
    for path in sorted(SWEEPS.glob("*.toml")):
        for entry in read_sweep(path).entries:
            result = results.get(entry.name)
            # A run of this name may have had another budget.
            if result is None or not is_result_of(entry, result):
                continue
            row = entry.row.removeprefix("paper_")
            labels, runs = rows.setdefault(row, ([], []))
            label = path.stem.replace("figure_", "").replace("_", " ").lstrip("0")
            labels += [label] * (label not in labels)
            runs += [result] * (result not in runs)
    return rows


def rows_table(results: Runs) -> str:
    """One line for each experiment, as far as it was run."""
    header = ["experiment", "figures", "seeds", "sums", "training, s"]
    header += ["trained sizes, %", "larger, %", "120 + 120, %"]
    lines = []
    for row, (labels, runs) in rows_run(results).items():
        shares = [
            [fraction(run["exact_match"].get(region)) for run in runs]
            for region in ("id", "ood")
        ]
        far = [
            fraction(next((c for c in run["cells"] if c["a"] == c["b"] == 120), None))
            for run in runs
        ]
        sums = min(run["samples"] for run in runs) / 1e6
        seconds = f"{max(run['train_seconds'] for run in runs):.0f}"
        line = [f"`{row}`", ", ".join(labels), str(len(runs)), f"{sums:.1f} M", seconds]
        lines.append([*line, *map(over_seeds, shares), over_seeds(far)])
    return markdown(header, lines)


def rows_bars(results: Runs) -> tuple[Figure, Any]:
    """A bar for each experiment: the mean over seeds on longer operands."""
    bars = [
        (row, [100 * (fraction(run["exact_match"]["ood"]) or 0.0) for run in runs])
        for row, (_, runs) in rows_run(results).items()
    ]
    figure = Figure(figsize=(7, 0.8 + 0.28 * len(bars)), dpi=110, layout="constrained")
    ax = figure.subplots()
    for place, (_, shares) in enumerate(bars):
        ax.barh(place, sum(shares) / len(shares), color="#4c72b0")
        ax.plot(shares, [place] * len(shares), "k|")
    ax.set_yticks(range(len(bars)), [name for name, _ in bars], fontsize=8)
    ax.invert_yaxis()
    ax.set_xlim(0, 100)
    ax.set_xlabel("exact match on longer operands, %; a line for each seed")
    return figure, bars
