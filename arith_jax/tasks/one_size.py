"""Tasks whose examples have one size: everything but what is made of it."""

import abc
import dataclasses
from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Int, UInt

from arith_jax.checks import check_types
from arith_jax.tasks.calculation import length_regions
from arith_jax.tasks.digits import word_below
from arith_jax.tasks.task import PairKinds


@dataclasses.dataclass(frozen=True)
class OneSizeTask(abc.ABC):
    """A cell (a, a) has the examples of size a; other cells have none.

    So the examples of a grid are on its diagonal.
    """

    title: ClassVar[str]
    # What the size is, for people.
    size_axis: ClassVar[str]

    subtasks = ("uniform",)
    first_answer = ""
    has_lists = False
    has_blanks = False
    is_packable = False

    def __post_init__(self):
        check_types("task", type(self), vars(self))

    @property
    def axes(self) -> tuple[str, str]:
        """The size, on both axes."""
        return self.size_axis, self.size_axis

    def draw_pair_kinds(self, words: UInt[Array, "n 3"]) -> PairKinds:
        """Raises `NotImplementedError`: see `is_packable`."""
        raise NotImplementedError(f"problems of {self.title} do not share rows")

    def cell_label(self, a: int, b: int) -> str:
        """The size of an example, for people."""
        del b
        return f"{a} {self.size_axis}"

    def regions(self, a: int, b: int, max_cell: tuple[int, int]) -> tuple[str, ...]:
        """Where a cell is counted, given the largest trained cell."""
        return length_regions(a, b, max_cell)

    def cell(self, kind: str, a: int, b: int, count: int) -> tuple[int, int, int]:
        """The cell of a set, without examples if it has two sizes."""
        del kind
        return a, b, count if a == b else 0

    def draw_cell(
        self, words: UInt[Array, " 2"], max_cell: tuple[int, int]
    ) -> Int[Array, " 2"]:
        """The size of a training example, uniform, twice."""
        return jnp.repeat(1 + word_below(words[0], min(max_cell)), 2)

    def longest_carry(self, prompt: str) -> None:
        """None: these are not one calculation with carries."""
        del prompt
