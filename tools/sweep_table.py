"""The table of a sweep, from its workdirs and from `results/`."""

import json
import pathlib
import statistics
from typing import Any

from arith_jax.evaluation.table import REGIONS
from arith_jax.sweep.entries import Sweep
from arith_jax.sweep.progress import is_result_of
from tools.tables import fraction, markdown, over_seeds, seconds_of


def results_of(sweep: Sweep, folder: pathlib.Path) -> dict[str, dict[str, Any]]:
    """Results by the entry's name: of its workdir, or else of the folder.

    Args:
        sweep: Whose results are wanted.
        folder: Of results that were copied there under their names.
    """
    found = {}
    for entry in sweep.entries:
        copied = folder / f"{entry.name}.json"
        for path in (sweep.root / entry.name / "result.json", copied):
            if entry.name not in found and path.exists():
                result = json.loads(path.read_text())
                # A run of this name may have had other overrides of the whole file.
                if is_result_of(entry, result):
                    found[entry.name] = result
    return found


def sweep_table(sweep: Sweep, results: dict[str, dict[str, Any]]) -> str:
    """One line for each config and its overrides, the seeds together.

    Args:
        sweep: What was wanted.
        results: What is finished, by the entry's name.
    """
    evaluated = {name for run in results.values() for name in run["exact_match"]}
    regions = [name for name in REGIONS if name in evaluated]
    header = ["experiment", "seeds", *(f"{name}, %" for name in regions)]
    header += ["training, s", "samples"]
    rows: dict[str, list[str]] = {}
    for entry in sweep.entries:
        rows.setdefault(entry.row, []).append(entry.name)
    lines = []
    for row, names in rows.items():
        runs = [results[name] for name in names if name in results]
        line = [f"`{row}`", f"{len(runs)} of {len(names)}"]
        line += [
            over_seeds([fraction(run["exact_match"].get(region)) for run in runs])
            for region in regions
        ]
        if runs:
            samples = statistics.median_low(run["samples"] for run in runs)
            line += [seconds_of(runs), f"{samples:,}"]
        else:
            line += ["-", "-"]
        lines.append(line)
    return markdown(header, lines)
