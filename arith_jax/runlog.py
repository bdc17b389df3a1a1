"""What a run shows and writes: progress bar, metrics.jsonl, result.json."""

import json
import math
import pathlib
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

import jax
import rich.console
import rich.progress
import rich.table

from arith_jax.evaluate import Cell
from arith_jax.model_config import ModelConfig
from arith_jax.tasks import Task

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def write_json(path: pathlib.Path, content: Any) -> None:
    """Writes a file in one move, so that a cut-off write loses nothing."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(content, separators=(",", ":")) + "\n")
    temporary.replace(path)


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that can change a result."""
    found = {name: metadata.version(name) for name in PACKAGES}
    return {"python": platform.python_version(), **found}


def device_name() -> str:
    """Kind and number of the devices in use."""
    devices = jax.devices()
    return f"{len(devices)} x {devices[0].device_kind}"


def git_state() -> tuple[str, bool]:
    """Commit of the code that runs and whether files differ from it; "" if unknown."""

    def git(*args: str) -> str:
        folder = pathlib.Path(__file__).parent
        command = ["git", "-C", str(folder), *args]
        return subprocess.run(
            command, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain"))
    except (OSError, subprocess.CalledProcessError):
        return "", False


def flops_per_row(
    config: ModelConfig,
    width: int,
    num_frozen: int,
    num_trained: int,
    read: int | None = None,
) -> int:
    """Floating-point operations of matrix products for one row of one training step.

    A multiplication and an addition count as two; the backward pass costs twice the
    forward pass; recurrences without gradient only have the forward pass. Elementwise
    work, embeddings by look-up, FIRE's small MLP and the optimizer are left out; what
    causality or a window masks is counted.

    Args:
        config: The model.
        width: Tokens of a row, padding included.
        num_frozen: Recurrences without gradient.
        num_trained: Recurrences with gradient; 0 counts a forward pass alone.
        read: Tokens whose logits are read (`reading`); None: all.
    """
    d, f = config.width, config.mlp_width
    end = 2 * (d * d + d * f + f // 2 * d)
    layer = 2 * 3 * d * d + 4 * width * d + end
    readout = 2 * d * config.vocab_size
    if config.head_mlp:
        readout += 2 * (d * f + f // 2 * d)
    if config.adapter:
        readout += 2 * d * d
    passes = num_frozen + (3 * num_trained if num_trained else 0)
    ends = 3 if num_trained else 1
    read = width if read is None else read
    left_out = (width - read) * end * ends if config.unroll else 0
    return width * config.layers * layer * passes - left_out + read * readout * ends


class RunLog:
    """Progress bar on a terminal, plain lines elsewhere, and metrics.jsonl.

    Use as a context manager. A resumed run drops the lines past its first step, so
    that the file always reads like one unbroken run.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        first_step: int,
        every: int,
        tensorboard: bool,
        console: rich.console.Console,
    ):
        self._board = open_tensorboard(folder) if tensorboard else None
        path = folder / "metrics.jsonl"
        kept = []
        if path.exists():
            lines = path.read_text().splitlines()
            kept = [line for line in lines if json.loads(line)["step"] <= first_step]
        path.write_text("".join(line + "\n" for line in kept))
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


def percent(correct: int, total: int) -> str:
    """Share and counts, never rounded up to 100%."""
    share = 100 * correct / total
    text = "100%" if correct == total else f"{min(share, 99.99):.2f}%"
    return f"{text} ({correct:,}/{total:,})"


REGIONS = {
    "id": "trained sizes (up to {})",
    "ood": "larger, up to 100",
    "ood_100plus": "beyond 100 digits",
    "ood_digits": "longer numbers, trained list lengths",
    "ood_numbers": "longer lists, trained number lengths",
    "ood_both": "longer lists of longer numbers",
}


def print_result(
    result: Mapping[str, Any],
    task: Task,
    most: tuple[int, int],
    console: rich.console.Console,
) -> None:
    """The closing table of a run."""
    table = rich.table.Table(title=f"{result['config']['name']}, seed {result['seed']}")
    table.add_column("evaluation")
    table.add_column("exact match", justify="right")

    def add_regions(counts_of: Mapping[str, Any], prefix: str = "") -> None:
        for key, counts in counts_of.items():
            label = prefix + REGIONS[key].format(task.cell_label(*most))
            table.add_row(label, percent(counts["correct"], counts["total"]))

    add_regions(result["exact_match"])
    for kind, part in result.get("parts", {}).items():
        add_regions(part["exact_match"], f"{kind}: ")
    add_regions(result.get("first_answer", {}), f"{task.first_answer}: ")
    for cell in diagonal(result["cells"], most[1]):
        label = task.cell_label(cell["a"], cell["b"])
        table.add_row(label, percent(cell["correct"], cell["total"]))
    for kind, cells in result["sets"].items():
        correct = sum(cell["correct"] for cell in cells)
        lengths = f"{cells[0]['a']} to {cells[-1]['a']} digits"
        total = sum(cell["total"] for cell in cells)
        table.add_row(f"{task.kinds[kind]}, {lengths}", percent(correct, total))
    table.add_section()
    table.add_row("parameters", f"{result['num_params']:,}")
    table.add_row("device", result["device"])
    table.add_row("training", f"{result['train_seconds']:.1f} s")
    table.add_row("compilation", f"{result['compile_seconds']:.1f} s")
    table.add_row("evaluation", f"{result['eval_seconds']:.1f} s")
    console.print(table)


def diagonal(cells: Sequence[Mapping[str, Any]], trained: int) -> list[Any]:
    """A few telling diagonal cells: doublings of the trained size, the last, and 100+.

    The last is that of the grid, up to 100.
    """
    found = [cell for cell in cells if cell["a"] == cell["b"] and cell["total"]]
    wanted = {max((cell["a"] for cell in found if cell["a"] <= 100), default=0)}
    length = trained
    while length <= 100:
        wanted.add(length)
        length *= 2
    return [cell for cell in found if cell["a"] in wanted or cell["a"] >= 100]


def cells_json(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """Cells as `result.json` holds them."""
    return [cell._asdict() for cell in cells]


def make_console() -> rich.console.Console:
    """Standard output, wide enough for one line of status when it is not a terminal."""
    width = None if sys.stdout.isatty() else 120
    return rich.console.Console(width=width, highlight=False)
