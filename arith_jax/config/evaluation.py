"""What is evaluated, and in what batches."""

import dataclasses

from arith_jax.checks import MAX_INT, MAX_LENGTH, check_name, check_range, check_types
from arith_jax.config.data import round_up
from arith_jax.tasks.task import Task

# Cells of the grid are listed on the host: this squared.
MAX_GRID = 300
# A cell's sizes and how many examples of it: (a, b, count).
CellRequest = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class EvalConfig:
    """What is evaluated; `configs/base.py` describes the keys."""

    name: str = ""
    seed: int = 2024
    grid_digits: int = 100
    grid_stride: int = 1
    grid_samples: int = 100
    diagonal: tuple[int, ...] = ()
    diagonal_samples: int = 100
    set_lengths: tuple[int, ...] = ()
    set_samples: int = 0
    buckets: tuple[int, ...] = (64, 128, 192, 256, 320, 640)
    dense_width: int = 640
    token_budget: int = 2**19
    logit_budget: int = 2**30

    def __post_init__(self):
        check_types("eval", type(self), vars(self))
        check_name("eval.name", self.name)
        counts = ("seed", "dense_width", "diagonal_samples", "set_samples")
        check_range("eval", self, 0, MAX_INT, *counts)
        check_range("eval", self, 0, MAX_GRID, "grid_digits")
        budgets = ("token_budget", "logit_budget", "buckets")
        check_range("eval", self, 1, MAX_INT, *budgets)
        check_range("eval", self, -MAX_INT, MAX_INT, "grid_stride", "grid_samples")
        check_range("eval", self, 1, MAX_LENGTH, "diagonal", "set_lengths")
        if not self.buckets:
            raise ValueError(
                f"eval.buckets={self.buckets}: needs at least one width in tokens"
            )
        if self.grid_digits > 0 and min(self.grid_stride, self.grid_samples) < 1:
            raise ValueError(
                f"eval.grid_stride={self.grid_stride} and eval.grid_samples="
                f"{self.grid_samples}: must be at least 1; for no grid, grid_digits=0"
            )

    def grid(self, max_cell: tuple[int, int]) -> list[tuple[int, int]]:
        """Cells of the grid, in order: all trained ones, beyond them every stride-th.

        Both sizes of a cell beyond are multiples of the stride, so that the mean over
        such cells is that over the whole grid. With every trained size beside longer
        ones, short operands would weigh too much.

        Args:
            max_cell: The largest trained cell.
        """
        rows, columns = (range(1, min(n, self.grid_digits) + 1) for n in max_cell)
        inside = {(a, b) for a in rows for b in columns}
        strided = self.strided_sizes
        return sorted(inside | {(a, b) for a in strided for b in strided})

    @property
    def strided_sizes(self) -> range:
        """Sizes of the grid beyond the trained cells; its stride may be 0 without."""
        if not self.grid_digits:
            return range(0)
        return range(self.grid_stride, self.grid_digits + 1, self.grid_stride)

    def requests(
        self, task: Task, max_cell: tuple[int, int]
    ) -> dict[str, list[CellRequest]]:
        """The cells of every set; the task's subtasks get the grid and the diagonal.

        Args:
            task: What is evaluated.
            max_cell: The largest trained cell, all below which are in the grid.
        """
        return self.requests_of_grid(task, self.grid(max_cell))

    def requests_of_grid(
        self, task: Task, grid: list[tuple[int, int]]
    ) -> dict[str, list[CellRequest]]:
        """The cells of every set, with those of a grid among them."""
        inside = set(grid)
        beyond = [(n, n) for n in self.diagonal if (n, n) not in inside]
        requests = {}
        for name in task.subtasks:
            cells = [task.cell(name, *cell, self.grid_samples) for cell in grid]
            for cell in beyond if self.diagonal_samples else []:
                cells.append(task.cell(name, *cell, self.diagonal_samples))
            requests[name] = cells
        for name in task.eval_sets if self.set_samples else []:
            if name not in task.subtasks:
                requests[name] = [
                    task.cell(name, n, n, self.set_samples) for n in self.set_lengths
                ]
        return requests

    def bucket(self, width: int) -> int:
        """Padded width of a row: the next bucket, or a multiple of the largest."""
        fitting = [bucket for bucket in self.buckets if bucket >= width]
        return min(fitting, default=round_up(width, max(self.buckets)))

    def max_evaluated(self, task: Task, max_cell: tuple[int, int]) -> tuple[int, int]:
        """The largest size evaluated on each axis."""
        # The largest cells, trained and beyond, stand for the others.
        rows, columns = (min(size, self.grid_digits) for size in max_cell)
        largest = [(rows, columns)] if self.grid_digits else []
        largest += [(size, size) for size in self.strided_sizes[-1:]]
        requests = self.requests_of_grid(task, largest)
        cells = [cell for cells in requests.values() for cell in cells]
        sizes = [max((cell[axis] for cell in cells), default=0) for axis in (0, 1)]
        return sizes[0] or max_cell[0], sizes[1] or max_cell[1]
