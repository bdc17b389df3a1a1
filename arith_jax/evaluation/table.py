"""The closing table of a run."""

from collections.abc import Mapping, Sequence
from typing import Any

import rich.console
import rich.table

from arith_jax.config.experiment import Experiment

REGIONS = {
    "id": "trained sizes (up to {trained})",
    "ood": "larger, up to {limit}",
    "ood_100plus": "beyond 100 digits",
    "ood_digits": "longer numbers, trained list lengths",
    "ood_numbers": "longer lists, trained number lengths",
    "ood_both": "longer lists of longer numbers",
}


def share(correct: int, total: int) -> str:
    """A percentage, never rounded up to 100%."""
    return "100%" if correct == total else f"{min(100 * correct / total, 99.99):.2f}%"


def percent(correct: int, total: int) -> str:
    """Share and counts."""
    return f"{share(correct, total)} ({correct:,}/{total:,})"


def print_result(
    result: Mapping[str, Any], experiment: Experiment, console: rich.console.Console
) -> None:
    """Prints what `result.json` says.

    Args:
        result: Its content.
        experiment: Of the run.
        console: Where to.
    """
    task, max_cell = experiment.data.task, experiment.data.max_cell
    table = rich.table.Table(title=f"{experiment.name}, seed {result['seed']}")
    table.add_column("evaluation")
    table.add_column("exact match", justify="right")
    inside = [max(c["a"], c["b"]) for c in result["cells"] if c["total"]]
    limit = max((size for size in inside if size <= 100), default=100)
    words = {"trained": task.cell_label(*max_cell), "limit": limit}

    def add_regions(counts_of: Mapping[str, Any], prefix: str = "") -> None:
        for key, counts in counts_of.items():
            label = prefix + REGIONS[key].format(**words)
            table.add_row(label, percent(counts["correct"], counts["total"]))

    add_regions(result["exact_match"])
    for name, subtask in result.get("parts", {}).items():
        add_regions(subtask["exact_match"], f"{name}: ")
    add_regions(result.get("first_answer", {}), f"{task.first_answer}: ")
    for cell in telling_cells(result["cells"], max_cell[1]):
        label = task.cell_label(cell["a"], cell["b"])
        table.add_row(label, percent(cell["correct"], cell["total"]))
    for name, cells in result["sets"].items():
        correct = sum(cell["correct"] for cell in cells)
        lengths = f"{cells[0]['a']} to {cells[-1]['a']} digits"
        total = sum(cell["total"] for cell in cells)
        label = f"{task.eval_sets[name]}, {lengths}"
        table.add_row(label, percent(correct, total))
    table.add_section()
    table.add_row("parameters", f"{result['num_params']:,}")
    table.add_row("device", result["device"])
    for label in ("train", "compile", "eval"):
        words = {"train": "training", "compile": "compilation", "eval": "evaluation"}
        table.add_row(words[label], f"{result[f'{label}_seconds']:.1f} s")
    console.print(table)


def telling_cells(cells: Sequence[Mapping[str, Any]], max_trained: int) -> list[Any]:
    """A few diagonal cells: doublings of the trained size, the last, and 100+.

    The last is that of the grid, up to 100.
    """
    diagonal = [cell for cell in cells if cell["a"] == cell["b"] and cell["total"]]
    wanted = {max((cell["a"] for cell in diagonal if cell["a"] <= 100), default=0)}
    length = max_trained
    while length <= 100:
        wanted.add(length)
        length *= 2
    return [cell for cell in diagonal if cell["a"] in wanted or cell["a"] >= 100]
