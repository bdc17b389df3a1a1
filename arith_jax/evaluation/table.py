"""The closing table of a run."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import rich.console
import rich.table

from arith_jax.config.experiment import Experiment
from arith_jax.evaluation.summary import telling_counts

REGIONS = {
    "id": "trained sizes (up to {trained})",
    "ood": "larger, up to {limit}",
    "ood_100plus": "beyond 100 digits",
    "ood_digits": "longer numbers, trained list lengths",
    "ood_numbers": "longer lists, trained number lengths",
    "ood_both": "longer lists of longer numbers",
}


def share_text(share: float) -> str:
    """A percentage, never rounded up to 100%."""
    return "100%" if share == 1 else f"{min(100 * share, 99.99):.2f}%"


def percent(correct: int, total: int) -> str:
    """Share and counts, never rounded up to 100%."""
    return f"{share_text(correct / total)} ({correct:,}/{total:,})"


def print_result(
    result: Mapping[str, Any], experiment: Experiment, console: rich.console.Console
) -> None:
    """Prints what `result.json` says.

    Args:
        result: Its content.
        experiment: Of the run.
        console: Where to.
    """
    table = rich.table.Table(title=f"{experiment.name}, {experiment.seeds_text}")
    table.add_column("evaluation")
    table.add_column("exact match", justify="right")
    for label, counts in labelled(telling_counts(result), experiment):
        table.add_row(label, percent(counts["correct"], counts["total"]))
    print_with_costs(table, result, console)


def print_summary(
    summary: Mapping[str, Any], experiment: Experiment, console: rich.console.Console
) -> None:
    """Prints what `summary.json` says.

    Args:
        summary: Its content.
        experiment: Of the run, with several seeds.
        console: Where to.
    """
    table = rich.table.Table(title=f"{experiment.name}, {experiment.seeds_text}")
    table.add_column("evaluation")
    for name in ("median", "min", "max", "95% interval of the mean"):
        table.add_column(name, justify="right")
    for label, spread in labelled(summary, experiment):
        shares = [share_text(spread[name]) for name in ("median", "min", "max")]
        interval = " to ".join(share_text(end) for end in spread["interval"])
        table.add_row(label, *shares, interval)
    print_with_costs(table, summary, console)


def labelled(
    content: Mapping[str, Any], experiment: Experiment
) -> Iterator[tuple[str, Any]]:
    """The rows of a table: what was evaluated, in words, and its counts or spread.

    Args:
        content: From `summary.telling_counts` or `summary.over_seeds`.
        experiment: Of the run.
    """
    task, max_cell = experiment.data.task, experiment.data.max_cell
    words = {"trained": task.cell_label(*max_cell), "limit": content["grid_limit"]}
    for key, value in content["exact_match"].items():
        yield REGIONS[key].format(**words), value
    for name, part in content["parts"].items():
        for key, value in part.items():
            yield f"{name}: {REGIONS[key].format(**words)}", value
    for key, value in content["first_answer"].items():
        yield f"{task.first_answer}: {REGIONS[key].format(**words)}", value
    for cell in telling_cells(content["diagonal"], max_cell[1]):
        yield task.cell_label(cell["a"], cell["b"]), cell
    for name, value in content["sets"].items():
        lengths = f"{value['first']} to {value['last']} digits"
        yield f"{task.eval_sets[name]}, {lengths}", value


def print_with_costs(
    table: rich.table.Table, content: Mapping[str, Any], console: rich.console.Console
) -> None:
    """Prints a table that ends with size, device and seconds."""
    table.add_section()
    table.add_row("parameters", f"{content['num_params']:,}")
    table.add_row("device", content["device"])
    words = {"train": "training", "compile": "compilation", "eval": "evaluation"}
    for label, word in words.items():
        table.add_row(word, f"{content[f'{label}_seconds']:.1f} s")
    console.print(table)


def telling_cells(
    diagonal: Sequence[Mapping[str, Any]], max_trained: int
) -> list[Mapping[str, Any]]:
    """A few diagonal cells: doublings of the trained size, the last, and 100+.

    The last is that of the grid, up to 100.
    """
    wanted = {max((cell["a"] for cell in diagonal if cell["a"] <= 100), default=0)}
    length = max_trained
    while length <= 100:
        wanted.add(length)
        length *= 2
    return [cell for cell in diagonal if cell["a"] in wanted or cell["a"] >= 100]
