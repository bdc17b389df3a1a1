"""Several calculations in one model. Imports `arithmetic`."""

import dataclasses
import random
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray, UInt

from arith_jax import vocab
from arith_jax.arithmetic import LENGTH_AXES, Arithmetic, length_regions
from arith_jax.digits import word_below


@dataclasses.dataclass(frozen=True)
class Mixture:
    """Several calculations in one model: each training example is of a random one.

    Every part is evaluated on its own.

    Source:
        McLeish et al. 2024, section 4.1: half addition, half subtraction.
    """

    tasks: tuple[Arithmetic, ...]

    axes = LENGTH_AXES
    answer_axis = "answer digit, least significant first"
    first_answer = ""

    @property
    def title(self) -> str:
        """Names of the parts."""
        return " and ".join(self.parts)

    @property
    def vocab(self) -> vocab.Vocab:
        """The symbols of all parts."""
        return self.tasks[0].vocab

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the parts, which are kinds: their uniform operands."""
        return tuple(task.title for task in self.tasks)

    @property
    def kinds(self) -> dict[str, str]:
        """The kinds of every part."""
        return {
            self.kind_name(task, kind): f"{task.title}: {label}"
            for task in self.tasks
            for kind, label in task.kinds.items()
        }

    def kind_name(self, task: Arithmetic, kind: str) -> str:
        """Name of a part's kind."""
        return task.title if kind == "uniform" else f"{task.title}_{kind}"

    @property
    def num_numbers(self) -> int:
        """The most of any part; no bound if one has none."""
        counts = [task.num_numbers for task in self.tasks]
        return max(counts) if min(counts) else 0

    @property
    def num_symbols(self) -> int:
        """The most of any part."""
        return max(task.num_symbols for task in self.tasks)

    def cell_label(self, a: int, b: int) -> str:
        """The size of an example, for people."""
        return f"{a} and {b} digits"

    def regions(self, a: int, b: int, most: tuple[int, int]) -> tuple[str, ...]:
        """Where a cell is counted, given the largest trained size."""
        return length_regions(a, b, most)

    def cell(self, kind: str, a: int, b: int, wanted: int) -> tuple[int, int, int]:
        """The cell of the part's own set."""
        title, _, name = kind.partition("_")
        task = self.tasks[self.parts.index(title)]
        return task.cell(name or "uniform", a, b, wanted)

    def row_width(self, len_a: int, len_b: int) -> int:
        """The widest of any part."""
        return max(task.row_width(len_a, len_b) for task in self.tasks)

    def answer_width(self, len_a: int, len_b: int) -> int:
        """The widest of any part."""
        return max(task.answer_width(len_a, len_b) for task in self.tasks)

    def longest_number(self, len_a: int, len_b: int) -> int:
        """The longest of any part."""
        return max(task.longest_number(len_a, len_b) for task in self.tasks)

    def draw_cell(
        self, words: UInt[Array, " 2"], most: tuple[int, int]
    ) -> Int[Array, " 2"]:
        """As the parts do."""
        return self.tasks[0].draw_cell(words, most)

    def sample(
        self,
        key: PRNGKeyArray,
        len_a: Int[Array, ""],
        len_b: Int[Array, ""],
        sizes: tuple[int, int],
        width: int,
        kind: Int[Array, ""] | int | None = None,
        example: Int[Array, ""] | int = 0,
    ) -> Int[Array, " {width}"]:
        """Draws one row of one part; see `tasks.Task`."""
        owners = [(i, k) for i, t in enumerate(self.tasks) for k in range(len(t.kinds))]
        if kind is None:
            key, key_part = jax.random.split(key)
            part = word_below(jax.random.bits(key_part), len(self.tasks))
            inner = None
        else:
            part, inner = jnp.array(owners)[kind]
        branches = [
            lambda task=task: task.sample(
                key, len_a, len_b, sizes, width, inner, example
            )
            for task in self.tasks
        ]
        return jax.lax.switch(part, branches)

    def prompt(self, expression: str) -> str:
        """Model input for an expression of any part.

        Raises:
            ValueError: If it is of none.
        """
        for task in self.tasks:
            if any(operator in expression for operator in task.operators):
                return task.prompt(expression)
        operators = "".join(task.operators for task in self.tasks)
        raise ValueError(
            f"expression {expression!r} is none of {', '.join(self.parts)}; allowed: "
            f"two non-negative integers joined by one of {', '.join(operators)}"
        )

    def owner(self, prompt: str) -> Arithmetic:
        """The part a prompt belongs to."""
        return next(task for task in self.tasks if task.operator in prompt)

    def sizes(self, prompt: str) -> tuple[int, int]:
        """Digits of the operands of a prompt."""
        return self.owner(prompt).sizes(prompt)

    def read(self, prompt: str, answer: str) -> str:
        """Readable form of an answer."""
        return self.owner(prompt).read(prompt, answer)

    def truth(self, prompt: str) -> str:
        """The right answer to a prompt, by Python integers."""
        return self.owner(prompt).truth(prompt)

    def examples(
        self, rng: random.Random, sizes: Sequence[tuple[int, int]]
    ) -> list[str]:
        """Those of every part."""
        return [text for task in self.tasks for text in task.examples(rng, sizes)]
