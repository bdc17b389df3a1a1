"""What docs/paper.md says of our runs of the paper's own recipe."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from arith_jax.evaluation import plots
from tools.tables import Run, Runs, fraction, markdown, percent, seeds_of

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
        mesh = plots.draw_grid_panel(ax, run["cells"], max_digits=20)
        ood = percent(fraction(run["exact_match"]["ood"]) or 0.0)
        ax.set_title(f"seed {run['seed']}: {ood}% OOD", fontsize=10)
        ax.set_xlabel("digits of the second operand")
    axes[0].set_ylabel("digits of the first operand")
    figure.colorbar(mesh, ax=axes, label="exact match, %")
    return figure, [run["cells"] for run in runs]
