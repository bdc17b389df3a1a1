"""How far the runs of a sweep are, read off their workdirs."""

import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import rich.table
import rich.text

from arith_jax.evaluation.table import share_text
from arith_jax.sweep.entries import Entry
from arith_jax.training.metrics_file import read_records

# What a state can be.
FINISHED, DIFFERS, STARTED, MISSING = "finished", "differs", "started", "-"


class State(NamedTuple):
    """How far an entry is.

    Attributes:
        word: finished; differs, if it was finished with other overrides; started; or -.
        exact_match: Right and all examples of each region, of a finished one.
    """

    word: str
    exact_match: Mapping[str, Mapping[str, int]] = {}


def state(entry: Entry, root: pathlib.Path) -> State:
    """How far an entry is.

    Args:
        entry: Of a sweep.
        root: Folder of the workdirs.
    """
    workdir = root / entry.name
    path = workdir / "result.json"
    if not path.exists():
        return State(STARTED if workdir.exists() else MISSING)
    result = json.loads(path.read_text())
    if not is_result_of(entry, result):
        return State(DIFFERS)
    return State(FINISHED, result["exact_match"])


def is_result_of(entry: Entry, result: Mapping[str, Any]) -> bool:
    """Whether a result was made with the overrides of this entry.

    Its name does not tell, since overrides of a whole file are not in it.
    """
    assignments = json.loads(json.dumps(entry.assignments))
    return result["config"]["overrides"] == assignments


def training(workdir: pathlib.Path) -> str:
    """Step, part of the budget and loss of a run, by its last complete line."""
    log, config = workdir / "metrics.jsonl", workdir / "config.json"
    if not log.exists():
        return "starting"
    records, _ = read_records(log)
    if not records:
        return "compiling"
    last = records[-1]
    budget = json.loads(config.read_text())["train"]
    if budget["steps"]:
        done = last["step"] / budget["steps"]
    else:
        done = last["train_seconds"] / (60 * budget["minutes"])
    loss = math.nan if last["loss"] is None else last["loss"]
    return f"step {last['step']:,}  {min(done, 1):.0%}  loss {loss:.4f}"


def progress_table(
    running: Sequence[tuple[str, str, pathlib.Path]],
) -> rich.table.Table:
    """What the running entries do.

    Args:
        running: Index, name of the device and workdir of each.
    """
    table = make_table("entry", "device", "name", "training")
    for index, device, workdir in running:
        table.add_row(index, device, workdir.name, training(workdir))
    return table


def result_table(
    entries: Sequence[Entry], root: pathlib.Path, failed: Mapping[int, str]
) -> rich.table.Table:
    """All entries: index, status, name, exact match of the regions of finished ones.

    Args:
        entries: Of a sweep.
        root: Folder of the workdirs.
        failed: What to say of entries that have failed, by index.
    """
    table = make_table("entry", "status", "name", "exact match")
    for index, entry in enumerate(entries):
        word, exact_match = state(entry, root)
        reached = "  ".join(
            f"{region} {share_text(counts['correct'] / counts['total'])}"
            for region, counts in exact_match.items()
        )
        if index in failed:
            word, reached = "failed", failed[index]
        table.add_row(str(index), word, entry.name, rich.text.Text(reached))
    return table


def make_table(*columns: str) -> rich.table.Table:
    """A table without lines, whose names are never cut."""
    table = rich.table.Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column == "name")
    return table
