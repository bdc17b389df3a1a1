"""Exact match over the cells of a task, by teacher forcing."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from typing import Any, NamedTuple

import jax
import numpy as np

from arith_jax.config.data import round_up
from arith_jax.config.evaluation import CellRequest
from arith_jax.config.experiment import Experiment
from arith_jax.evaluation.grading import (
    Drawing,
    Program,
    drawer,
    grader,
    in_batches,
    on_all_devices,
)
from arith_jax.model.banded import Blocks, fitting_blocks
from arith_jax.model.forward import forward as run_forward
from arith_jax.tasks.task import Layout, Task

# Rows of at most so many tokens can have one width: padding costs less than another
# program.
SHARED_WIDTH = 320
# Tokens that are drawn in one call.
DRAWN_TOKENS = 2**18

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

    task, graded = experiment.data.task, {}

    def graded_in(drawing: Drawing, program: Program, grade: Any) -> dict[Named, Cell]:
        """The cells of a bucket, once its programs are compiled."""
        draw, width = drawers[drawing].result(), program.width

        def grade_rows(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            ids = in_batches(draw, rows, drawing.batch_size)[:, :width]
            run = lambda ids: grade(ids, params)
            return in_batches(run, ids, program.batch_size)

        return grade_cells(task, buckets[width], grade_rows)

    num_cores, several = os.cpu_count() or 1, jax.process_count() > 1
    is_one_cpu = jax.default_backend() == "cpu" and not several
    # Programs are compiled side by side, and while others run; the longest rows, which
    # run the longest, first. A program on a CPU keeps one core busy.
    with (
        ThreadPoolExecutor(min(16, num_cores)) as compiling,
        ThreadPoolExecutor(num_cores if is_one_cpu else 1) as grading,
    ):
        drawers: dict[Drawing, Future[Any]] = {}
        graders: dict[Future[Any], tuple[Drawing, Program]] = {}
        for width in sorted(buckets, reverse=True):
            drawing = make_drawing(experiment, width, buckets)
            if drawing not in drawers:
                drawers[drawing] = compiling.submit(drawer, drawing)
            program = make_program(experiment, width, buckets[width])
            grade = compiling.submit(grader, program, shapes, forward)
            graders[grade] = drawing, program
        # Processes run the same programs in the same order.
        done = list(graders) if several else as_completed(graders)
        parts = [
            grading.submit(graded_in, *graders[grade], grade.result()) for grade in done
        ]
        for part in parts:
            graded |= part.result()
    return {
        name: [graded[name, request] for request in cells]
        for name, cells in requests.items()
    }


def make_drawing(
    experiment: Experiment, width: int, buckets: Mapping[int, Sequence[Named]]
) -> Drawing:
    """What the drawing of a bucket is decided by: one for all that are not wide.

    Args:
        experiment: Task and seed of the examples.
        width: Tokens of a row of the bucket.
        buckets: Cells by that width.
    """
    sharing = [width]
    if width <= SHARED_WIDTH:
        sharing = [other for other in buckets if other <= SHARED_WIDTH]
    cells = [cell for other in sharing for cell in buckets[other]]
    task = experiment.data.task
    names = {name for name, _ in cells}
    kind = list(task.eval_sets).index(names.pop()) if len(names) == 1 else None
    layout = Layout(largest_cell(cells), max(sharing))
    size = batch_size(cells, DRAWN_TOKENS // layout.width)
    return Drawing(task, experiment.eval.seed, kind, layout, size)


def largest_cell(cells: Sequence[Named]) -> tuple[int, int]:
    """Sizes that no cell exceeds; few distinct ones, as each is a compilation."""
    max_a, max_b = (max(request[axis] for _, request in cells) for axis in (0, 1))
    return round_up(max_a, 8), round_up(max_b, 8)


def batch_size(cells: Sequence[Named], limit: int) -> int:
    """Rows of a batch: of few examples, a power of two, so that programs are shared.

    Args:
        cells: With the numbers of their examples.
        limit: Rows at most, but for what makes them even among the devices.
    """
    total = sum(request[2] for _, request in cells)
    fitting = 1 << max(total - 1, 0).bit_length()
    return round_up(max(1, min(limit, fitting)), jax.device_count())


def make_program(experiment: Experiment, width: int, cells: Sequence[Named]) -> Program:
    """What the grader of a bucket is decided by.

    Args:
        experiment: Model, data and sizes of a batch.
        width: Tokens of a row.
        cells: Of the bucket.
    """
    blocks, task = blocks_for(experiment, width), experiment.data.task
    return Program(
        model=experiment.model,
        execution=experiment.execution,
        task=task,
        scheme=experiment.data.scheme,
        width=width,
        max_answer=task.answer_width(*largest_cell(cells)) + 1,
        blocks=blocks,
        batch_size=batch_size(cells, batch_rows(experiment, width, blocks)),
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
