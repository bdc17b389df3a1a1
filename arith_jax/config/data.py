"""What a training batch holds."""

import dataclasses

from arith_jax.checks import (
    MAX_INT,
    MAX_LENGTH,
    check_choice,
    check_range,
    check_types,
    shown,
)
from arith_jax.positions.schemes import Scheme
from arith_jax.tasks.addition import Addition
from arith_jax.tasks.task import Task

# Rows of problems are listed on the host: pairs of lengths x problems in a row.
MAX_PACKED = 10**7


def round_up(value: int, multiple: int) -> int:
    """Smallest multiple that is not below the value."""
    return -(-value // multiple) * multiple


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """What a training batch holds; `configs/base.py` describes the keys.

        >>> DataConfig(task=Addition(carry_chains=0.1), max_digits=8).max_cell
        (8, 8)

    Attributes:
        task: What is written in a row; in a config, the section `task`.
        max_digits: Longest operand trained on, in digits.
        max_numbers: Longest list trained on, for tasks with lists; else 0.
        position_ids: Name of a position scheme that the task supports.
        max_offset: Position ids begin at 1 + U{0..this}; only tables need it.
        max_gap: Up to so many rows of a table are left out before each place.
        offset_per: An offset for each example, or one for the batch as in the paper.
        predict_prompt: Whether the tokens of the prompt are predicted, too.
        width_multiple: Rows are padded to a multiple of this many tokens.
        problems_per_row: Problems that share a row; a power of two.
    """

    task: Task = Addition()
    max_digits: int = 20
    max_numbers: int = 0
    position_ids: str = "abacus"
    max_offset: int = 0
    max_gap: int = 0
    offset_per: str = "example"
    predict_prompt: bool = False
    width_multiple: int = 1
    problems_per_row: int = 1

    def __post_init__(self):
        check_types("data", type(self), vars(self))
        max_numbers, max_digits = self.task.max_sizes
        check_range("data", self, 1, max_digits, "max_digits")
        check_range("data", self, 1, MAX_LENGTH, "width_multiple")
        check_range("data", self, 0, MAX_LENGTH, "max_offset", "max_gap")
        check_range("data", self, 0, max_numbers, "max_numbers")
        check_choice("data", self, offset_per=("example", "batch"))
        if (self.max_numbers > 0) != self.task.has_lists:
            wanted = "at least 1" if self.task.has_lists else "0"
            raise ValueError(
                f"data.max_numbers={self.max_numbers}: must be {wanted} for "
                f"{self.task.title}"
            )
        if self.position_ids not in self.task.schemes:
            raise ValueError(
                f"data.position_ids={shown(self.position_ids)} does not fit "
                f"{self.task}; allowed: {', '.join(self.task.schemes)}"
            )
        for name in ("max_offset", "max_gap"):
            if getattr(self, name) and not self.scheme.has_offset:
                raise ValueError(
                    f"data.{name}={getattr(self, name)} with data.position_ids="
                    f"{self.position_ids!r}: these ids have no offset; set it to 0"
                )
        width = self.task.row_width(*self.max_cell)
        if width > MAX_INT:
            raise ValueError(
                f"data.max_digits={self.max_digits}: rows would have {width} tokens; "
                f"at most {MAX_INT}; lower it"
            )
        self.check_packing()

    def check_packing(self) -> None:
        """Raises `ValueError` if the rows cannot hold so many problems."""
        count = self.problems_per_row
        if count < 1 or count & (count - 1):
            raise ValueError(
                f"data.problems_per_row={count}: must be a power of two, 1 for rows of "
                "one problem each"
            )
        if count == 1:
            return
        if self.max_digits**2 * count > MAX_PACKED:
            raise ValueError(
                f"data.problems_per_row={count} with data.max_digits="
                f"{self.max_digits}: problems_per_row x max_digits^2 must be at most "
                f"{MAX_PACKED}; set data.problems_per_row=1"
            )
        reasons = {
            f"the task {self.task}": not self.task.is_packable,
            f"data.position_ids={self.position_ids!r}": not self.scheme.is_packable,
            "data.predict_prompt=True": self.predict_prompt,
        }
        for reason, applies in reasons.items():
            if applies:
                raise ValueError(
                    f"data.problems_per_row={count} with {reason}: only plain rows of "
                    "one calculation are packed; set data.problems_per_row=1"
                )

    @property
    def scheme(self) -> Scheme:
        """How tokens are numbered."""
        return self.task.schemes[self.position_ids]

    @property
    def max_cell(self) -> tuple[int, int]:
        """The largest trained cell."""
        return self.max_numbers or self.max_digits, self.max_digits

    def check_sizes(self, cell: tuple[int, int]) -> None:
        """Raises `ValueError` if a cell is larger than the task can write."""
        for size, limit, axis in zip(
            cell, self.task.max_sizes, self.task.axes, strict=True
        ):
            if size > limit:
                raise ValueError(
                    f"{self.task.title}: {size} {axis}; allowed: up to {limit}; lower "
                    "eval.grid_digits, eval.diagonal or eval.set_lengths"
                )

    @property
    def max_shift(self) -> int:
        """How much larger the position ids of training can be than without offset."""
        return self.max_offset + self.max_gap * self.max_position_id(self.max_cell)

    def max_position_id(self, cell: tuple[int, int]) -> int:
        """Largest position id of a cell, without offset."""
        return self.scheme.max_position_id(self.task.max_number_length(*cell))
