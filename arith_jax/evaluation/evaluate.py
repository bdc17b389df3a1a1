"""Exact match over the cells of a task, by teacher forcing."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any, NamedTuple

import jax
import numpy as np

from arith_jax.config.data import round_up
from arith_jax.config.evaluation import CellRequest
from arith_jax.config.experiment import Experiment
from arith_jax.evaluation.grading import (
    Program,
    grade_rows,
    grader,
    on_all_devices,
)
from arith_jax.model.banded import Blocks, fitting_blocks
from arith_jax.model.forward import forward as run_forward
from arith_jax.tasks.task import Layout, Task

# A set and one of its cells.
Named = tuple[str, CellRequest]


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
    experiment: Experiment,
    params: Any,
    requests: Mapping[str, Sequence[CellRequest]],
    *,
    forward: Callable[..., Any] = run_forward,
) -> dict[str, list[Cell]]:
    """Exact match of every cell by one teacher-forced pass over its examples.

    Greedy decoding is right exactly when, with the true answer fed in, every argmax
    (answer digits and `EOS`) is right: the first wrong token is the same in both.
    Cells are sorted into a few buckets of padded length, one compilation each.

    Args:
        experiment: Model, data, seed of the examples, sizes of a batch.
        params: Parameters, or their moving average.
        requests: For each set of the task, sizes and number of examples of its cells.
        forward: Logits of whole rows; `model.forward.forward`, or one with its
            signature.

    Returns:
        Cells by set, in the order of the requests.
    """
    buckets: dict[int, list[Named]] = {}
    for name, cells in requests.items():
        for request in cells:
            width = experiment.data.task.row_width(*request[:2])
            bucket = experiment.eval.bucket(width)
            buckets.setdefault(bucket, []).append((name, request))
    params, shapes = on_all_devices(params)

    def compiled(width: int) -> tuple[Any, int]:
        """The grader of a bucket, and the rows of a batch."""
        program = make_program(experiment, width, buckets[width])
        return grader(program, shapes, forward), program.batch_size

    graded: dict[Named, Cell] = {}
    # Programs are compiled side by side, and while others run; the longest rows, which
    # run the longest, first.
    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        widths = sorted(buckets, reverse=True)
        programs = {pool.submit(compiled, width): width for width in widths}
        # Processes run the same programs in the same order.
        several = jax.process_count() > 1
        for program in list(programs) if several else as_completed(programs):
            grade, size = program.result()
            cells = buckets[programs[program]]
            run = lambda rows, grade=grade, size=size: grade_rows(
                grade, params, rows, batch_size=size
            )
            graded |= grade_cells(experiment.data.task, cells, run)
    return {
        name: [graded[name, request] for request in cells]
        for name, cells in requests.items()
    }


def make_program(experiment: Experiment, width: int, cells: Sequence[Named]) -> Program:
    """What the grader of a bucket is decided by.

    Args:
        experiment: Model, data and sizes of a batch.
        width: Tokens of a row.
        cells: Of the bucket.
    """
    # Few distinct sizes: every new one is a compilation.
    max_a, max_b = (max(request[axis] for _, request in cells) for axis in (0, 1))
    layout = Layout((round_up(max_a, 8), round_up(max_b, 8)), width)
    blocks = blocks_for(experiment, width)
    size = batch_rows(experiment, width, blocks)
    # A small bucket is one batch; a power of two, so that programs are shared.
    total = sum(request[2] for _, request in cells)
    fitting = 1 << max(total - 1, 0).bit_length()
    size = round_up(min(size, fitting), jax.device_count())
    return Program(
        model=experiment.model,
        execution=experiment.execution,
        task=experiment.data.task,
        scheme=experiment.data.scheme,
        seed=experiment.eval.seed,
        layout=layout,
        blocks=blocks,
        batch_size=size,
        deterministic=experiment.deterministic,
    )


def grade_cells(
    task: Task,
    cells: Sequence[Named],
    grade: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
) -> dict[Named, Cell]:
    """Counts of the cells of one bucket.

    Args:
        task: Whose cells they are.
        cells: With the sets that they belong to.
        grade: From rows (set, a, b, example) to right rows and right answer tokens.
    """
    sets = list(task.eval_sets)
    counts = np.array([request[2] for _, request in cells])
    # Row (k, a, b, i) is example i of a cell; `owner` says of which.
    owner = np.repeat(np.arange(len(cells)), counts)
    named = np.array([(sets.index(name), *request) for name, request in cells])
    firsts = np.cumsum(counts) - counts
    example = np.arange(len(owner)) - np.repeat(firsts, counts)
    rows = np.column_stack([named[owner, :3], example]).astype(np.int32)
    right, tokens_right = grade(rows)
    correct = np.bincount(owner, right, len(cells)).astype(int)
    per_token = np.zeros((len(cells), tokens_right.shape[1]), np.int64)
    some = counts > 0
    per_token[some] = np.add.reduceat(tokens_right, firsts[some], dtype=int)
    graded = {}
    for index, (name, (a, b, total)) in enumerate(cells):
        tokens = per_token[index, : task.answer_width(a, b) + 1]
        graded[name, (a, b, total)] = Cell(
            a=a,
            b=b,
            correct=int(correct[index]),
            total=total,
            per_digit_correct=tokens.tolist(),
        )
    return graded


def blocks_for(experiment: Experiment, width: int) -> Blocks | None:
    """Blocks for attention in rows of this width; None: whole rows.

    Operators that share the ids of digits (coupled) have no bound here, and several
    levels of ids are not sorted.
    """
    model, data = experiment.model, experiment.data
    has_bound = data.task.max_numbers_per_row > 0 and data.scheme.is_sortable
    is_short = width <= experiment.eval.dense_width
    if is_short or model.abacus_far != "mask" or not has_bound:
        return None
    numbers, symbols = data.task.max_numbers_per_row, data.task.max_symbols_per_row
    return fitting_blocks(numbers, symbols, model.abacus_window)


def batch_rows(experiment: Experiment, width: int, blocks: Blocks | None = None) -> int:
    """Rows per batch that keep tokens and attention logits within their budgets."""
    config = experiment.eval
    keys = width if blocks is None else 3 * blocks.size + blocks.symbols
    by_tokens = config.token_budget // width
    by_logits = config.logit_budget // (width * keys * experiment.model.num_heads)
    return max(1, min(by_tokens, by_logits))


Counts = dict[str, dict[str, int]]


def summarise(cells: Sequence[Cell], task: Task, max_cell: tuple[int, int]) -> Counts:
    """Counts of the task's regions: inside training, outside, and so on.

    Regions without any example are absent.
    """
    summary: Counts = {}
    for cell in cells:
        for name in task.regions(cell.a, cell.b, max_cell) if cell.total else ():
            counts = summary.setdefault(name, {"correct": 0, "total": 0})
            counts["correct"] += cell.correct
            counts["total"] += cell.total
    return dict(sorted(summary.items()))


def merged(subtasks: Sequence[Sequence[Cell]]) -> list[Cell]:
    """The cells of several subtasks as one: their counts added up."""
    sums = []
    for cells in zip(*subtasks, strict=True):
        longest = max(len(cell.per_digit_correct) for cell in cells)
        digits = np.zeros(longest, np.int64)
        for cell in cells:
            digits[: len(cell.per_digit_correct)] += cell.per_digit_correct
            # A shorter answer counts as right where it has no token.
            digits[len(cell.per_digit_correct) :] += cell.total
        correct, total = (
            sum(getattr(cell, name) for cell in cells) for name in ("correct", "total")
        )
        whole = {"correct": correct, "total": total}
        sums.append(cells[0]._replace(per_digit_correct=digits.tolist(), **whole))
    return sums


class Evaluation(NamedTuple):
    """Everything that was counted.

    Attributes:
        cells: Grid and diagonal, the task's subtasks added up.
        exact_match: The regions of `cells`.
        first_answer: Of its first answer token, if the task gives that a meaning.
        subtasks: Cells of each subtask, if there are several.
        sets: Cells of the other sets.
        seconds: Spent, compilation included.
    """

    cells: list[Cell]
    exact_match: Counts
    first_answer: Counts
    subtasks: dict[str, list[Cell]]
    sets: dict[str, list[Cell]]
    seconds: float


def evaluate(
    experiment: Experiment, params: Any, *, forward: Callable[..., Any] = run_forward
) -> Evaluation:
    """Everything the config asks for; arguments as in `exact_match`."""
    started = time.perf_counter()
    task, max_cell = experiment.data.task, experiment.data.max_cell
    requests = experiment.eval.requests(task, max_cell)
    sets = exact_match(experiment, params, requests, forward=forward)
    subtasks = {name: sets.pop(name) for name in task.subtasks}
    cells = merged(list(subtasks.values()))
    first = [cell._replace(correct=cell.per_digit_correct[0]) for cell in cells]
    return Evaluation(
        cells=cells,
        exact_match=summarise(cells, task, max_cell),
        first_answer=summarise(first, task, max_cell) if task.first_answer else {},
        subtasks=subtasks if len(subtasks) > 1 else {},
        sets=sets,
        seconds=time.perf_counter() - started,
    )
