"""What training shows and writes: progress bar and metrics.jsonl."""

import json
import math
import pathlib
import sys
import time
from collections.abc import Mapping
from typing import Any

import rich.console
import rich.progress


class RunLog:
    """Progress bar on a terminal, plain lines elsewhere, and metrics.jsonl.

    Use as a context manager. A resumed run drops the lines past its first step, so
    that the file always reads like one unbroken run.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        console: rich.console.Console,
        *,
        first_step: int,
        every: int,
        tensorboard: bool,
    ):
        self._board = open_tensorboard(folder) if tensorboard else None
        path = folder / "metrics.jsonl"
        earlier = []
        if path.exists():
            lines = path.read_text().splitlines()
            earlier = [line for line in lines if json.loads(line)["step"] <= first_step]
        path.write_text("".join(line + "\n" for line in earlier))
        self._file = path.open("a", buffering=1)
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
        self._file.close()
        if self._board is not None:
            self._board.close()

    def step(self, record: Mapping[str, float | int], fraction: float) -> None:
        """Shows one step and, every `every` steps, writes its record.

        Args:
            record: step, samples, train_seconds, samples_per_second, loss (nats a
                token), token_accuracy, exact_match, learning_rate_multiplier.
            fraction: Part of the budget used up.
        """
        if record["step"] % self._every == 0:
            self._file.write(json.dumps(dict(record)) + "\n")
            if self._board is not None:
                for name, value in record.items():
                    self._board.add_scalar(name, value, int(record["step"]))
        self._newest = record, fraction
        now = time.monotonic()
        if now - self._shown_at > (0.1 if self._console.is_terminal else 10):
            self._shown_at = now
            self._show(*self._newest)

    def _show(self, record: Mapping[str, float | int], fraction: float) -> None:
        """Puts a step beside the bar, or prints it where there is none."""
        remaining = ""
        if fraction:  # nothing is known before the first step is done
            left = record["train_seconds"] * (1 - fraction) / fraction
            remaining = f"  {left:.0f} s left"
        status = (
            f"step {record['step']}  {record['samples_per_second']:,.0f} samples/s  "
            f"loss {record['loss']:.4f}  in-distribution exact match "
            f"{record['exact_match']:.3f}{remaining}"
        )
        if self._console.is_terminal:
            self._bar.update(self._task, completed=fraction, status=status)
        else:
            self._console.print(status, soft_wrap=True)


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


def make_console() -> rich.console.Console:
    """Standard output, wide enough for one line of status when it is not a terminal."""
    width = None if sys.stdout.isatty() else 120
    return rich.console.Console(width=width, highlight=False)
