"""Several calculations in one model."""

import dataclasses
import random
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray, UInt

from arith_jax import vocab
from arith_jax.checks import shown
from arith_jax.positions.schemes import Scheme
from arith_jax.tasks.calculation import LENGTH_AXES, Calculation, length_regions
from arith_jax.tasks.digits import word_below
from arith_jax.tasks.task import ANY_SIZES, Layout, PairKinds, Task


@dataclasses.dataclass(frozen=True)
class Mixture:
    """Several calculations in one model: each training example is of a random one.

    Each of them is evaluated separately.

    Attributes:
        tasks: The calculations, which have the same options as far as they have them.

    Source:
        McLeish et al. 2024, section 4.1: half addition, half subtraction.
    """

    tasks: tuple[Calculation, ...]

    axes = LENGTH_AXES
    answer_axis = "answer digit, least significant first"
    first_answer = ""
    max_sizes = ANY_SIZES
    has_lists = False
    is_packable = False

    @property
    def has_blanks(self) -> bool:
        """Whether the prompts of any calculation have blanks in training."""
        return any(task.has_blanks for task in self.tasks)

    @property
    def title(self) -> str:
        """Names of the calculations."""
        return " and ".join(self.subtasks)

    @property
    def vocab(self) -> vocab.Vocab:
        """The symbols of all calculations."""
        return self.tasks[0].vocab

    @property
    def schemes(self) -> dict[str, Scheme]:
        """The position schemes of all calculations."""
        return self.tasks[0].schemes

    @property
    def subtasks(self) -> tuple[str, ...]:
        """Names of the calculations, which are the sets of their uniform operands."""
        return tuple(task.title for task in self.tasks)

    @property
    def eval_sets(self) -> dict[str, str]:
        """The sets of every calculation."""
        return {
            self.set_name(task, kind): f"{task.title}: {label}"
            for task in self.tasks
            for kind, label in task.eval_sets.items()
        }

    def set_name(self, task: Calculation, kind: str) -> str:
        """Name of a set of one calculation."""
        return task.title if kind == "uniform" else f"{task.title}_{kind}"

    @property
    def max_numbers_per_row(self) -> int:
        """The largest bound of any calculation; no bound if one has none."""
        counts = [task.max_numbers_per_row for task in self.tasks]
        return max(counts) if min(counts) else 0

    @property
    def max_symbols_per_row(self) -> int:
        """The largest bound of any calculation."""
        return max(task.max_symbols_per_row for task in self.tasks)

    def draw_pair_kinds(self, words: UInt[Array, "n 3"]) -> PairKinds:
        """Raises `NotImplementedError`: see `is_packable`."""
        raise NotImplementedError("problems of a mixture do not share rows")

    def cell_label(self, a: int, b: int) -> str:
        """The size of an example, for people."""
        return f"{a} and {b} digits"

    def regions(self, a: int, b: int, max_cell: tuple[int, int]) -> tuple[str, ...]:
        """Where a cell is counted, given the largest trained cell."""
        return length_regions(a, b, max_cell)

    def cell(self, kind: str, a: int, b: int, count: int) -> tuple[int, int, int]:
        """The cell of a set of one calculation, and its number of examples."""
        title, _, name = kind.partition("_")
        task = self.tasks[self.subtasks.index(title)]
        return task.cell(name or "uniform", a, b, count)

    def row_width(self, len_a: int, len_b: int) -> int:
        """Tokens of the longest row of any calculation, with `EOS`."""
        return max(task.row_width(len_a, len_b) for task in self.tasks)

    def answer_width(self, len_a: int, len_b: int) -> int:
        """Tokens of the longest answer of any calculation, without `EOS`."""
        return max(task.answer_width(len_a, len_b) for task in self.tasks)

    def max_number_length(self, len_a: int, len_b: int) -> int:
        """Digits of the longest number in a row of any calculation."""
        return max(task.max_number_length(len_a, len_b) for task in self.tasks)

    def draw_cell(
        self, words: UInt[Array, " 2"], max_cell: tuple[int, int]
    ) -> Int[Array, " 2"]:
        """Lengths of a training example, as every calculation draws them."""
        return self.tasks[0].draw_cell(words, max_cell)

    def sample(
        self,
        key: PRNGKeyArray,
        cell: Int[Array, " 2"],
        layout: Layout,
        *,
        kind: Int[Array, ""] | int | None = None,
        example: Int[Array, ""] | int = 0,
    ) -> Int[Array, " t"]:
        """Draws one row of one calculation; see `task.Task`."""
        if kind is None:
            key, key_task = jax.random.split(key)
            index = word_below(jax.random.bits(key_task), len(self.tasks))
            task_kind = None
        else:
            # For each set of the mixture: which calculation, which of its sets.
            pairs = [
                (i, k)
                for i, t in enumerate(self.tasks)
                for k in range(len(t.eval_sets))
            ]
            index, task_kind = jnp.array(pairs)[kind]
        branches = [
            lambda task=task: task.sample(
                key, cell, layout, kind=task_kind, example=example
            )
            for task in self.tasks
        ]
        return jax.lax.switch(index, branches)

    def prompt(self, expression: str) -> str:
        """Model input for an expression of any calculation.

        Raises:
            ValueError: If no calculation reads it.
        """
        for task in self.tasks:
            if any(operator in expression for operator in task.operators):
                return task.prompt(expression)
        names = ", ".join(self.subtasks)
        operators = ", ".join("".join(task.operators for task in self.tasks))
        raise ValueError(
            f"expression {shown(expression)} is none of {names}; allowed: two "
            f"non-negative integers joined by one of {operators}"
        )

    def task_of(self, prompt: str) -> Calculation:
        """The calculation of a prompt."""
        return next(task for task in self.tasks if task.operator in prompt)

    def sizes(self, prompt: str) -> tuple[int, int]:
        """Digits of the operands of a prompt."""
        return self.task_of(prompt).sizes(prompt)

    def read_answer(self, prompt: str, answer: str) -> str:
        """Readable form of an answer."""
        return self.task_of(prompt).read_answer(prompt, answer)

    def true_answer(self, prompt: str) -> str:
        """The right answer to a prompt, by Python integers."""
        return self.task_of(prompt).true_answer(prompt)

    def longest_carry(self, prompt: str) -> int | None:
        """Places that the longest carry travels, if the calculation has carries."""
        return self.task_of(prompt).longest_carry(prompt)

    def examples(
        self, rng: random.Random, sizes: Sequence[tuple[int, int]]
    ) -> list[str]:
        """Those of every calculation."""
        return [text for task in self.tasks for text in task.examples(rng, sizes)]


def part_of(task: Task, prompt: str) -> Task:
    """The calculation of a prompt, where a task has several, or else the task."""
    return task.task_of(prompt) if isinstance(task, Mixture) else task
