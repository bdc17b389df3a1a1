"""Exact match over the cells of a task, by teacher forcing."""

import dataclasses
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any, NamedTuple

import jax
import numpy as np

from arith_jax.banded import Blocks, fitting_blocks
from arith_jax.data import DataConfig, round_up
from arith_jax.grading import grade_rows, grader, on_all_devices
from arith_jax.model_config import ModelConfig
from arith_jax.tasks import Task

# A cell's sizes and how many examples of it: (a, b, count).
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

    def grid_sizes(self, trained: int) -> list[int]:
        """Sizes on one axis of the grid: 1, every stride, and all trained ones."""
        strided = range(self.grid_stride, self.grid_digits + 1, self.grid_stride)
        inside = range(1, min(trained, self.grid_digits) + 1)
        return sorted({1, *strided, *inside} if self.grid_digits else set())

    def requests(
        self, task: Task, most: tuple[int, int]
    ) -> dict[str, list[CellRequest]]:
        """The cells of every set, by kind; the task's parts get grid and diagonal.

        Args:
            task: What is evaluated.
            most: The largest trained cell, all below which are in the grid.
        """
        rows, columns = map(self.grid_sizes, most)
        grid = [(a, b) for a in rows for b in columns]
        beyond = [(n, n) for n in self.diagonal if (n, n) not in set(grid)]
        requests = {}
        for kind in task.parts:
            cells = [task.cell(kind, *cell, self.grid_samples) for cell in grid]
            for cell in beyond if self.diagonal_samples else []:
                cells.append(task.cell(kind, *cell, self.diagonal_samples))
            requests[kind] = cells
        for kind in task.kinds if self.set_samples else []:
            if kind not in task.parts:
                requests[kind] = [
                    task.cell(kind, n, n, self.set_samples) for n in self.set_lengths
                ]
        return requests

    def bucket(self, width: int) -> int:
        """Padded width of a row: the next bucket, or a multiple of the largest."""
        fitting = [bucket for bucket in self.buckets if bucket >= width]
        return min(fitting, default=round_up(width, max(self.buckets)))

    def longest(self, task: Task, most: tuple[int, int]) -> tuple[int, int]:
        """The largest size evaluated on each axis."""
        requests = self.requests(task, most)
        cells = [cell for cells in requests.values() for cell in cells]
        largest = [max((cell[axis] for cell in cells), default=0) for axis in (0, 1)]
        return largest[0] or most[0], largest[1] or most[1]


class Cell(NamedTuple):
    """Counts of one cell: sizes, exactly right, examples, right answer tokens.

    `per_digit_correct[i]` counts the examples whose answer token i (in the order they
    are written, `EOS` among them) is right; shorter answers count as right there.
    """

    a: int
    b: int
    correct: int
    total: int
    per_digit_correct: list[int]


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
        requests: For each kind of the task, sizes and number of examples of its cells.

    Returns:
        Cells by kind, in the order of the requests.
    """
    task = data.make_task()
    kinds = list(task.kinds)
    buckets: dict[int, list[tuple[str, CellRequest]]] = {}
    for kind, cells in requests.items():
        for request in cells:
            width = config.bucket(task.row_width(*request[:2]))
            buckets.setdefault(width, []).append((kind, request))
    params, shapes = on_all_devices(params)

    def compiled(width: int) -> tuple[Any, int]:
        """The grader of a bucket, and the rows of a batch."""
        cells = buckets[width]
        # Few distinct sizes: every new one is a compilation.
        most_a, most_b = (max(r[axis] for _, r in cells) for axis in (0, 1))
        sizes = round_up(most_a, 8), round_up(most_b, 8)
        blocks = blocks_for(config, model, data, width)
        size = batch_rows(config, model, width, blocks)
        # A small bucket is one batch; a power of two, so that programs are shared.
        total = sum(request[2] for _, request in cells)
        fitting = 1 << max(total - 1, 0).bit_length()
        size = round_up(min(size, fitting), len(jax.local_devices()))
        key = (model, data, config.seed, sizes, width, blocks, size, shapes)
        return grader(*key), size

    graded: dict[tuple[str, CellRequest], Cell] = {}
    # Programs are compiled side by side, and while others run; the longest rows, which
    # run the longest, first.
    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        widths = sorted(buckets, reverse=True)
        programs = {pool.submit(compiled, width): width for width in widths}
        for program in as_completed(programs):
            cells = buckets[programs[program]]
            grade, size = program.result()
            counts = np.array([request[2] for _, request in cells])
            # Row (k, a, b, i) is example i of a cell; `owner` says of which.
            owner = np.repeat(np.arange(len(cells)), counts)
            named = np.array([(kinds.index(kind), *request) for kind, request in cells])
            firsts = np.cumsum(counts) - counts
            example = np.arange(len(owner)) - np.repeat(firsts, counts)
            rows = np.column_stack([named[owner, :3], example]).astype(np.int32)
            right, digits_right = grade_rows(grade, size, params, rows)
            correct = np.bincount(owner, right, len(cells)).astype(int)
            per_digit = np.zeros((len(cells), digits_right.shape[1]), np.int64)
            some = counts > 0
            per_digit[some] = np.add.reduceat(digits_right, firsts[some], dtype=int)
            for index, (kind, (a, b, total)) in enumerate(cells):
                tokens = per_digit[index, : task.answer_width(a, b) + 1]
                cell = Cell(a, b, int(correct[index]), total, tokens.tolist())
                graded[kind, (a, b, total)] = cell
    return {
        kind: [graded[kind, request] for request in cells]
        for kind, cells in requests.items()
    }


def blocks_for(
    config: EvalConfig, model: ModelConfig, data: DataConfig, width: int
) -> Blocks | None:
    """Blocks for attention in rows of this width; None: whole rows.

    Operators that share the ids of digits (coupled) have no bound here, and two levels
    of ids are not sorted.
    """
    task = data.make_task()
    has_bound = task.num_numbers > 0 and data.position_ids == "abacus"
    if width <= config.dense_width or model.abacus_far != "mask" or not has_bound:
        return None
    return fitting_blocks(task.num_numbers, task.num_symbols, model.abacus_window)


def batch_rows(
    config: EvalConfig, model: ModelConfig, width: int, blocks: Blocks | None = None
) -> int:
    """Rows per batch that keep tokens and attention logits within their budgets."""
    keys = width if blocks is None else 3 * blocks.size + blocks.symbols
    by_tokens = config.token_budget // width
    by_logits = config.logit_budget // (width * keys * model.heads)
    return max(1, min(by_tokens, by_logits))


Counts = dict[str, dict[str, int]]


def summarise(cells: Sequence[Cell], task: Task, most: tuple[int, int]) -> Counts:
    """Counts of the task's regions: inside training, outside, and so on.

    Regions without any example are absent.
    """
    summary: Counts = {}
    for cell in cells:
        for name in task.regions(cell.a, cell.b, most) if cell.total else ():
            counts = summary.setdefault(name, {"correct": 0, "total": 0})
            counts["correct"] += cell.correct
            counts["total"] += cell.total
    return dict(sorted(summary.items()))


def merged(parts: Sequence[Sequence[Cell]]) -> list[Cell]:
    """The cells of several kinds as one: their counts added up."""
    found = []
    for cells in zip(*parts, strict=True):
        longest = max(len(cell.per_digit_correct) for cell in cells)
        digits = np.zeros(longest, np.int64)
        for cell in cells:
            digits[: len(cell.per_digit_correct)] += cell.per_digit_correct
            # A shorter answer counts as right where it has no token.
            digits[len(cell.per_digit_correct) :] += cell.total
        correct, total = (
            sum(getattr(cell, name) for cell in cells) for name in ("correct", "total")
        )
        found.append(Cell(cells[0].a, cells[0].b, correct, total, digits.tolist()))
    return found


class Evaluation(NamedTuple):
    """Everything that was counted.

    Attributes:
        cells: Grid and diagonal, the task's parts added up.
        exact_match: The regions of `cells`.
        first_answer: Of its first answer token, if the task gives that a meaning.
        parts: Cells of each part, if there are several.
        sets: Cells of the other sets.
        seconds: Spent, compilation included.
    """

    cells: list[Cell]
    exact_match: Counts
    first_answer: Counts
    parts: dict[str, list[Cell]]
    sets: dict[str, list[Cell]]
    seconds: float


def evaluate(
    model: ModelConfig, data: DataConfig, config: EvalConfig, params: Any
) -> Evaluation:
    """Everything the config asks for."""
    started = time.perf_counter()
    task, most = data.make_task(), data.most
    found = exact_match(model, data, config, params, config.requests(task, most))
    parts = {kind: found.pop(kind) for kind in task.parts}
    cells = merged(list(parts.values()))
    first = [cell._replace(correct=cell.per_digit_correct[0]) for cell in cells]
    return Evaluation(
        cells,
        summarise(cells, task, most),
        summarise(first, task, most) if task.first_answer else {},
        parts if len(parts) > 1 else {},
        found,
        time.perf_counter() - started,
    )
