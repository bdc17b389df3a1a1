"""metrics.jsonl: a line for every so many steps, also after cuts and damage."""

import collections
import json
import math
import os
import pathlib
import statistics
from collections.abc import Iterable, Mapping
from typing import Any

from arith_jax.training.record import write_text
from arith_jax.training.saved import warn

# A loss is a spike if it is this many times the median of the lines before, and not
# tiny; fewer lines say nothing.
SPIKE_FACTOR, SPIKE_LOSS = 5.0, 0.01
MAX_LINES, MIN_LINES = 50, 10


class Spikes:
    """Finds losses that stand out from those of the lines before."""

    def __init__(self, losses: Iterable[float] = ()):
        self._losses = collections.deque(losses, MAX_LINES)
        self._lasts = False

    def look(self, loss: float) -> tuple[bool, str]:
        """Takes the loss of the next line.

        Returns:
            Whether it is a spike, and where one begins what to say of it.
        """
        is_spike, text = False, ""
        if len(self._losses) >= MIN_LINES:
            median = statistics.median(self._losses)
            is_spike = loss > SPIKE_LOSS and loss > SPIKE_FACTOR * median
            if is_spike and not self._lasts:
                text = f"{loss:.4f}, after a median of {median:.4f}"
        self._lasts = is_spike
        if math.isfinite(loss):
            self._losses.append(loss)
        return is_spike, text


class MetricsFile:
    """metrics.jsonl of one model.

    Lines past the first step of a resumed run are dropped, so that the file always
    reads like one unbroken run; so are damaged ones, with a warning.
    """

    def __init__(self, folder: pathlib.Path, first_step: int):
        self._path = folder / "metrics.jsonl"
        earlier = []
        if self._path.exists():
            records, num_damaged = read_records(self._path)
            earlier = [record for record in records if record["step"] <= first_step]
            if num_damaged:
                lines = "line" if num_damaged == 1 else "lines"
                warn(f"{self._path}: dropped {num_damaged} damaged {lines}")
        lines = "".join(json.dumps(record) + "\n" for record in earlier)
        write_text(self._path, lines)
        self._file = self._path.open("a", buffering=1)
        losses = [record.get("loss") for record in earlier]
        self._spikes = Spikes(loss for loss in losses if loss is not None)

    def write(self, record: Mapping[str, Any]) -> str:
        """Adds the line of one step.

        Returns:
            What to say of it, if a loss spike begins.
        """
        is_spike, text = self._spikes.look(record["loss"])
        line = {name: finite_or_none(value) for name, value in record.items()}
        if is_spike:
            line["spike"] = True
        self._file.write(json.dumps(line) + "\n")
        where = f"loss spike at step {record['step']} ({self._path.parent})"
        return f"{where}: {text}" if text else ""

    def sync(self) -> None:
        """Makes sure that what was written outlives the machine."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def finite_or_none(value: float | int) -> float | int | None:
    """A number as JSON has it, which knows no other."""
    return value if math.isfinite(value) else None


def read_records(path: pathlib.Path) -> tuple[list[dict[str, Any]], int]:
    """The records of `metrics.jsonl`, and how many lines are damaged, as after a cut.

    A blank line is damaged, too.
    """
    records, num_damaged = [], 0
    for line in path.read_text(errors="replace").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if isinstance(record, dict) and isinstance(record.get("step"), int):
            records.append(record)
        else:
            num_damaged += 1
    return records, num_damaged
