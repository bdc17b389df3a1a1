"""What training shows: a progress bar or plain lines, and loss spikes."""

import itertools
import math
import pathlib
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import rich.console
import rich.progress

from arith_jax.training.boards import Board
from arith_jax.training.metrics_file import MetricsFile


class RunLog:
    """Progress bar on a terminal, plain lines elsewhere, metrics.jsonl, and boards.

    Use as a context manager.

    Args:
        folders: Of each model.
        console: Where to print.
        first_step: The last step of an earlier start, or 0.
        every: Steps between lines of `metrics.jsonl`.
        boards: Of each model; closed at the end.
    """

    def __init__(
        self,
        folders: Sequence[pathlib.Path],
        console: rich.console.Console,
        *,
        first_step: int,
        every: int,
        boards: Sequence[Sequence[Board]] = (),
    ):
        self._files = [MetricsFile(folder, first_step) for folder in folders]
        self._boards = boards or [()] * len(folders)
        self._every = every
        self._console = console
        self._shown_at = -math.inf
        self._newest = None
        columns = ("{task.description}", "{task.fields[status]}")
        self._bar = rich.progress.Progress(
            rich.progress.TextColumn(columns[0]),
            rich.progress.BarColumn(),
            rich.progress.TaskProgressColumn(),
            rich.progress.TextColumn(columns[1]),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("train", total=1.0, status="compiling")

    def __enter__(self) -> "RunLog":
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._newest is not None and self._console.is_terminal:
            self._show(*self._newest)
        self._bar.stop()
        for file in self._files:
            file.close()
        for board in itertools.chain(*self._boards):
            board.close()

    def step(self, record: Mapping[str, Any], fraction: float) -> None:
        """Shows one step and, every `every` steps, writes its record.

        Args:
            record: step, samples, train_seconds, samples_per_second, loss (nats a
                token), token_accuracy, exact_match, gradient_norm, num_skipped where
                updates may be left out, learning_rate_multiplier. Of several models,
                samples are those of each, and metrics lists.
            fraction: Part of the budget used up.
        """
        if record["step"] % self._every == 0:
            logs = zip(self._files, self._boards, strict=True)
            for index, (file, boards) in enumerate(logs):
                single = of_model(record, index)
                for board in boards:
                    board.write(single)
                spike = file.write(single)
                if spike:
                    self._console.print(spike, soft_wrap=True)
        self._newest = record, fraction
        now = time.monotonic()
        if now - self._shown_at > (0.1 if self._console.is_terminal else 10):
            self._shown_at = now
            self._show(*self._newest)

    def sync(self) -> None:
        """Makes sure that what was written outlives the machine."""
        for file in self._files:
            file.sync()

    def _show(self, record: Mapping[str, Any], fraction: float) -> None:
        """Puts a step beside the bar, or prints it where there is none."""
        remaining = ""
        if fraction:  # nothing is known before the first step is done
            left = record["train_seconds"] * (1 - fraction) / fraction
            remaining = f"  {left:.0f} s left"
        each = f" x {len(self._files)}" if len(self._files) > 1 else ""
        status = (
            f"step {record['step']}  {record['samples_per_second']:,.0f}{each} "
            f"samples/s  loss {median_and_range(record['loss'], 4)}  in-distribution "
            f"exact match {median_and_range(record['exact_match'], 3)}{remaining}"
        )
        if self._console.is_terminal:
            self._bar.update(self._task, completed=fraction, status=status)
        else:
            self._console.print(status, soft_wrap=True)


def of_model(record: Mapping[str, Any], index: int) -> dict[str, float | int]:
    """The part of a record that is one model's."""
    return {
        name: value[index] if isinstance(value, list) else value
        for name, value in record.items()
    }


def median_and_range(values: float | list[float], places: int) -> str:
    """A number, or median, smallest and largest of several, with decimal places."""
    if not isinstance(values, list):
        return f"{values:.{places}f}"
    numbers = statistics.median(values), min(values), max(values)
    median, smallest, largest = (f"{number:.{places}f}" for number in numbers)
    return f"{median} ({smallest} to {largest})"


def make_console(*, quiet: bool = False) -> rich.console.Console:
    """Standard output, wide enough for one line of status when it is not a terminal."""
    width = None if sys.stdout.isatty() else 120
    return rich.console.Console(width=width, highlight=False, quiet=quiet)
