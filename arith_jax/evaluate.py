"""Exact match over cells of operand lengths, by teacher forcing."""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from arith_jax import losses, tasks
from arith_jax.banded import Blocks, fitting_blocks
from arith_jax.data import DataConfig, evaluation_batch, round_up
from arith_jax.model import forward
from arith_jax.model_config import ModelConfig

# A cell's lengths and how many examples of it: (a, b, count).
CellRequest = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class EvalConfig:
    """What is evaluated; the knobs are described in `configs/base.py`."""

    seed: int
    grid_digits: int
    grid_stride: int
    grid_samples: int
    diagonal: tuple[int, ...]
    diagonal_samples: int
    set_lengths: tuple[int, ...]
    set_samples: int
    buckets: tuple[int, ...]
    dense_width: int
    token_budget: int
    logit_budget: int

    def __post_init__(self):
        if self.token_budget < 1 or self.logit_budget < 1:
            raise ValueError(
                f"eval.token_budget={self.token_budget} and eval.logit_budget="
                f"{self.logit_budget}: must be at least 1"
            )
        if not self.buckets or min(self.buckets) < 1:
            raise ValueError(
                f"eval.buckets={self.buckets}: needs at least one width in tokens"
            )
        if self.grid_digits > 0 and min(self.grid_stride, self.grid_samples) < 1:
            raise ValueError(
                f"eval.grid_stride={self.grid_stride} and eval.grid_samples="
                f"{self.grid_samples}: must be at least 1; for no grid, grid_digits=0"
            )

    def grid_lengths(self) -> list[int]:
        """Operand lengths of the grid's rows and columns: 1, then every stride."""
        strided = range(self.grid_stride, self.grid_digits + 1, self.grid_stride)
        return sorted({1, *strided} if self.grid_digits else set())

    def requests(self, max_digits: int) -> dict[str, list[CellRequest]]:
        """The cells of every set, by name; `uniform` is the grid and the diagonal.

        Lengths within training are always in the grid, whatever the stride.
        """
        lengths = sorted(
            {*self.grid_lengths(), *range(1, self.grid_id(max_digits) + 1)}
        )
        grid = [(a, b, self.grid_samples) for a in lengths for b in lengths]
        known = {(a, b) for a, b, _ in grid}
        diagonal = [
            (n, n, self.diagonal_samples)
            for n in self.diagonal
            if (n, n) not in known and self.diagonal_samples
        ]
        requests = {"uniform": grid + diagonal}
        for kind in list(tasks.OPERANDS)[1:] if self.set_samples else []:
            # 999...9 + 1 has one example per length.
            requests[kind] = [
                (n, 1, 1) if kind == "nines" else (n, n, self.set_samples)
                for n in self.set_lengths
            ]
        return requests

    def grid_id(self, max_digits: int) -> int:
        """Largest trained length inside the grid."""
        return min(max_digits, self.grid_digits)

    def bucket(self, width: int) -> int:
        """Padded width of a row: the next bucket, or a multiple of the largest."""
        fitting = [bucket for bucket in self.buckets if bucket >= width]
        return min(fitting, default=round_up(width, max(self.buckets)))

    def longest(self, max_digits: int) -> int:
        """Most digits of any operand evaluated."""
        cells = [cell for cells in self.requests(max_digits).values() for cell in cells]
        return max((max(a, b) for a, b, _ in cells), default=max_digits)


class Cell(NamedTuple):
    """Counts of one cell: lengths, exactly right, examples, right answer tokens.

    `per_digit_correct[i]` counts the examples whose answer token i (least significant
    digit first, `EOS` among them) is right; shorter answers count as right there.
    """

    a: int
    b: int
    correct: int
    total: int
    per_digit_correct: list[int]


@lru_cache(maxsize=64)
def grader(
    model: ModelConfig,
    data: DataConfig,
    seed: int,
    digits: int,
    width: int,
    blocks: Blocks | None,
) -> Any:
    """The compiled grader of one bucket: rows -> right rows, right answer tokens."""
    task = data.make_task()
    answer = task.longest_number(digits, digits) + 1

    @jax.jit
    def grade(
        params: Any, rows: Int[Array, "b 4"]
    ) -> tuple[Bool[Array, " b"], Bool[Array, "b d"]]:
        batch = evaluation_batch(task, jax.random.key(seed), rows, digits, width)
        logits = forward(model, params, batch.ids, batch.positions, blocks=blocks)
        labels, mask = losses.targets(batch)
        wrong = (jnp.argmax(logits, axis=-1) != labels) & mask
        # Answer token i of a row stands i places after its first counted position.
        start = jnp.argmax(mask, axis=1)[:, None]
        place = jnp.minimum(start + jnp.arange(answer)[None], width - 1)
        right = ~jnp.take_along_axis(wrong, place, axis=1)
        return losses.correct_rows(logits, batch), right

    return grade


def exact_match(
    model: ModelConfig,
    data: DataConfig,
    config: EvalConfig,
    params: Any,
    requests: Mapping[str, Sequence[CellRequest]],
) -> dict[str, list[Cell]]:
    """Exact match of every cell by one teacher-forced pass over its examples.

    Greedy decoding is right exactly when, with the true answer fed in, every argmax
    (answer digits and `EOS`) is right: the first wrong token is the same in both.
    Cells are sorted into a few buckets of padded length, one compilation each.

    Args:
        model: The model.
        data: Says how rows are written.
        config: Seed of the examples and the sizes of a batch.
        params: Parameters, or their moving average.
        requests: For each kind of operands (`tasks.OPERANDS`), lengths and number of
            examples of its cells.

    Returns:
        Cells by kind, in the order of the requests.
    """
    task = data.make_task()
    kinds = list(tasks.OPERANDS)
    buckets: dict[int, list[tuple[str, CellRequest]]] = {}
    for kind, cells in requests.items():
        for request in cells:
            width = config.bucket(task.row_width(*request[:2]))
            buckets.setdefault(width, []).append((kind, request))
    graded: dict[tuple[str, CellRequest], Cell] = {}
    for width, cells in sorted(buckets.items()):
        digits = round_up(max(max(request[:2]) for _, request in cells), 8)
        counts = np.array([request[2] for _, request in cells])
        # Row (k, a, b, i) is example i of a cell; `owner` says of which.
        owner = np.repeat(np.arange(len(cells)), counts)
        named = np.array([(kinds.index(kind), *lengths) for kind, lengths in cells])
        example = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
        rows = np.column_stack([named[owner, :3], example]).astype(np.int32)
        right, digits_right = grade_rows(
            model, data, config, params, rows, digits, width
        )
        correct = np.bincount(owner, right, len(cells)).astype(int)
        per_digit = np.zeros((len(cells), digits_right.shape[1]), np.int64)
        np.add.at(per_digit, owner, digits_right)
        for index, (kind, (a, b, total)) in enumerate(cells):
            tokens = per_digit[index, : task.longest_number(a, b) + 1]
            cell = Cell(a, b, int(correct[index]), total, tokens.tolist())
            graded[kind, (a, b, total)] = cell
    return {
        kind: [graded[kind, request] for request in cells]
        for kind, cells in requests.items()
    }


def grade_rows(
    model: ModelConfig,
    data: DataConfig,
    config: EvalConfig,
    params: Any,
    rows: np.ndarray,
    digits: int,
    width: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Right rows [n] and right answer tokens [n, d] of one bucket, batch by batch."""
    # A small bucket is one batch; a power of two, so that programs are shared.
    fitting = 1 << max(len(rows) - 1, 0).bit_length()
    blocks = blocks_for(config, model, data, width)
    size = min(batch_rows(config, model, width, blocks), fitting)
    grade = grader(model, data, config.seed, digits, width, blocks)
    found, pending = [], []
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        padded = np.pad(part, ((0, size - len(part)), (0, 0)), mode="edge")
        pending.append(grade(params, jnp.array(padded)))
        # Two batches in flight keep the device busy and the memory bounded.
        if len(pending) == 2:
            found.append(jax.device_get(pending.pop(0)))
    found += [jax.device_get(batch) for batch in pending]
    right, digits_right = (
        np.concatenate(parts)[: len(rows)] for parts in zip(*found, strict=True)
    )
    return right, digits_right


def blocks_for(
    config: EvalConfig, model: ModelConfig, data: DataConfig, width: int
) -> Blocks | None:
    """Blocks for attention in rows of this width; None: whole rows.

    Blanks are symbols that every later token sees, so they need whole rows.
    """
    if width <= config.dense_width or model.abacus_far != "mask" or data.blanks > 0:
        return None
    task = data.make_task()
    return fitting_blocks(task.num_numbers, task.num_symbols, model.abacus_window)


def batch_rows(
    config: EvalConfig, model: ModelConfig, width: int, blocks: Blocks | None = None
) -> int:
    """Rows per batch that keep tokens and attention logits within their budgets."""
    keys = width if blocks is None else 3 * blocks.size + blocks.symbols
    by_tokens = config.token_budget // width
    by_logits = config.logit_budget // (width * keys * model.heads)
    return max(1, min(by_tokens, by_logits))


def summarise(cells: Sequence[Cell], max_digits: int) -> dict[str, dict[str, int]]:
    """Counts inside training lengths, outside within 100 x 100, and beyond.

    Keys without any example are absent.
    """
    groups = {
        "id": lambda n: n <= max_digits,
        "ood": lambda n: max_digits < n <= 100,
        "ood_100plus": lambda n: n > max(100, max_digits),
    }
    summary = {}
    for name, belongs in groups.items():
        chosen = [cell for cell in cells if belongs(max(cell.a, cell.b))]
        total = sum(cell.total for cell in chosen)
        if total:
            correct = sum(cell.correct for cell in chosen)
            summary[name] = {"correct": correct, "total": total}
    return summary


class Evaluation(NamedTuple):
    """Cells of every evaluation set, by name, the summary of `uniform`, seconds."""

    cells: dict[str, list[Cell]]
    exact_match: dict[str, dict[str, int]]
    seconds: float


def evaluate(
    model: ModelConfig, data: DataConfig, config: EvalConfig, params: Any
) -> Evaluation:
    """Everything the config asks for; seconds include compilation."""
    started = time.perf_counter()
    requests = config.requests(data.max_digits)
    cells = exact_match(model, data, config, params, requests)
    summary = summarise(cells["uniform"], data.max_digits)
    return Evaluation(cells, summary, time.perf_counter() - started)
