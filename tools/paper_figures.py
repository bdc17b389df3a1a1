"""The tables of docs/paper.md: what the paper says of each figure, and our numbers."""

import pathlib
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

from arith_jax import cli
from arith_jax.sweep.entries import expand, read_sweep
from tools.paper import SWEEPS, rows_run
from tools.tables import Run, Runs, fraction, markdown, over_seeds

FIGURES = pathlib.Path(__file__).with_suffix(".toml")
CONFIGS = "configs/paper/"
# Trained sizes are named where less than this share of them is right.
LEARNED = 0.99


def figures_tables(results: Runs) -> dict[str, str]:
    """The tables of `paper_figures.toml`, addition and other: a line for each figure.

    Args:
        results: By name.
    """
    header = ["figure", "command after `configs/paper/`", "paper"]
    header += ["larger, %, here", "what it says"]
    runs_of = {row: runs for row, (_, runs) in rows_run(results).items()}
    runs = {
        decided(entry.config): runs_of[row]
        for path in sorted(SWEEPS.glob("*.toml"))
        for entry in read_sweep(path).entries
        if (row := entry.row.removeprefix("paper_")) in runs_of
    }
    parts = tomllib.loads(FIGURES.read_text(encoding="utf-8"))
    return {
        name: markdown(header, [figure_line(figure, runs) for figure in listed])
        for name, listed in parts.items()
    }


def decided(config: str) -> frozenset[tuple[str, Any]]:
    """What a config says of a row: all but its name, budget, packing and grid."""
    free = ("name", "train.", "eval.", "data.problems_per_row", "data.width_multiple")
    values = cli.default_values(config)
    return frozenset(item for item in values.items() if not item[0].startswith(free))


def figure_line(
    figure: Mapping[str, Any], runs: Mapping[frozenset[Any], Sequence[Run]]
) -> list[str]:
    """The line of one figure; `runs` are those of what configs decide."""
    commands = figure["commands"]
    configs = [config for command in commands for config in expand("", command)]
    reached, missing = [], []
    for label, config in zip(labels(configs), configs, strict=True):
        if of_config := runs.get(decided(CONFIGS + config)):
            reached.append(f"{label} {shares(of_config)}".strip())
        else:
            missing.append(label)
    if missing:
        names = f": {', '.join(missing)}" if reached else ""
        reached.append(f"not run yet{names}")
    shown = " and ".join(f"`{command}`" for command in commands)
    said = figure["says"] or "-"
    return [figure["figure"], shown, figure["paper"], "; ".join(reached), said]


def labels(configs: Sequence[str]) -> list[str]:
    """What tells each config from the others: the options that not all of them have."""
    options = [config.partition(":")[2].split(",") for config in configs]
    shared = set.intersection(*map(set, options))
    return [
        " ".join(
            option.removeprefix("arch=").removeprefix("pos=")
            for option in chosen
            if option not in shared
        )
        for chosen in options
    ]


def shares(runs: Sequence[Run]) -> str:
    """Share of larger examples; that of trained sizes in brackets if it is low.

    Then that of each subtask, and of the first answer, where there are such.
    """
    trained = [fraction(run["exact_match"].get("id")) for run in runs]
    learned = all((share or 0.0) >= LEARNED for share in trained)
    larger = larger_share([run["exact_match"] for run in runs])
    listed = [larger + ("" if learned else f" [{over_seeds(trained)}]")]
    for name in runs[0].get("parts", {}):
        parts = [run["parts"][name]["exact_match"] for run in runs]
        listed.append(f"{name} {larger_share(parts)}")
    if runs[0].get("first_answer"):
        firsts = [run["first_answer"] for run in runs]
        listed.append(f"first {larger_share(firsts)}")
    return ", ".join(listed)


def larger_share(regions: Sequence[Mapping[str, Any]]) -> str:
    """Share of larger examples, of each seed's counts by region."""
    return over_seeds([fraction(counts.get("ood")) for counts in regions])
