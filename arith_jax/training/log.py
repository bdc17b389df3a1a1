"""What training shows and writes: progress bar and metrics.jsonl."""

import json
import math
import pathlib
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import rich.console
import rich.progress


class MetricsFile:
    """metrics.jsonl of one model, and its event files if they are asked for.

    Lines past the first step of a resumed run are dropped, so that the file always
    reads like one unbroken run.
    """

    def __init__(self, folder: pathlib.Path, *, first_step: int, tensorboard: bool):
        self._board = open_tensorboard(folder) if tensorboard else None
        path = folder / "metrics.jsonl"
        earlier = []
        if path.exists():
            lines = path.read_text().splitlines()
            earlier = [line for line in lines if json.loads(line)["step"] <= first_step]
        path.write_text("".join(line + "\n" for line in earlier))
        self._file = path.open("a", buffering=1)

    def write(self, record: Mapping[str, Any]) -> None:
        """Adds the line of one step."""
        self._file.write(json.dumps(dict(record)) + "\n")
        if self._board is not None:
            for name, value in record.items():
                self._board.add_scalar(name, value, record["step"])

    def close(self) -> None:
        """Closes the files."""
        self._file.close()
        if self._board is not None:
            self._board.close()


class RunLog:
    """Progress bar on a terminal, plain lines elsewhere, and metrics.jsonl.

    Use as a context manager.
    """

    def __init__(
        self,
        folders: Sequence[pathlib.Path],
        console: rich.console.Console,
        *,
        first_step: int,
        every: int,
        tensorboard: bool,
    ):
        options = {"first_step": first_step, "tensorboard": tensorboard}
        self._files = [MetricsFile(folder, **options) for folder in folders]
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

    def step(self, record: Mapping[str, Any], fraction: float) -> None:
        """Shows one step and, every `every` steps, writes its record.

        Args:
            record: step, samples, train_seconds, samples_per_second, loss (nats a
                token), token_accuracy, exact_match, learning_rate_multiplier. Of
                several models, samples are those of each, and metrics lists.
            fraction: Part of the budget used up.
        """
        if record["step"] % self._every == 0:
            for index, file in enumerate(self._files):
                file.write(of_model(record, index))
        self._newest = record, fraction
        now = time.monotonic()
        if now - self._shown_at > (0.1 if self._console.is_terminal else 10):
            self._shown_at = now
            self._show(*self._newest)

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


def open_tensorboard(folder: pathlib.Path) -> Any:
    """A TensorBoard writer; `tensorboardX` is optional.

    Raises:
        ValueError: If it is not installed.
    """
    try:
        from tensorboardX import SummaryWriter  # pyright: ignore
    except ImportError as error:
        raise ValueError(
            "train.tensorboard=True needs the package tensorboardX; "
            "pip install tensorboardX or set it to False"
        ) from error
    return SummaryWriter(str(folder))


def make_console(*, quiet: bool = False) -> rich.console.Console:
    """Standard output, wide enough for one line of status when it is not a terminal."""
    width = None if sys.stdout.isatty() else 120
    return rich.console.Console(width=width, highlight=False, quiet=quiet)
