"""What a task is, and the task that a config names.

Every task is one class in one file; docs/new_task.md adds one. Imports all of them.
"""

import dataclasses
import random
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Array, Int, PRNGKeyArray, UInt

from arith_jax import vocab
from arith_jax.addition import Addition
from arith_jax.arithmetic import Arithmetic
from arith_jax.bitwise_or import BitwiseOr
from arith_jax.mixture import Mixture
from arith_jax.multiplication import Multiplication
from arith_jax.sorting import Sorting
from arith_jax.subtraction import Subtraction


@runtime_checkable
class Task(Protocol):
    """A family of exercises, each written as one row: prompt, `=`, answer, `EOS`.

    A cell is a pair of sizes (a, b), such as the lengths of two operands. Tasks are
    hashable and decide everything but the random numbers.
    """

    @property
    def title(self) -> str:
        """Name for people."""
        ...

    @property
    def vocab(self) -> vocab.Vocab:
        """The symbols; `=` occurs exactly once in a row."""
        ...

    @property
    def kinds(self) -> Mapping[str, str]:
        """Evaluation sets and what they are, for people, in the order of `kind`."""
        ...

    @property
    def parts(self) -> tuple[str, ...]:
        """Kinds that are evaluated on the grid and the diagonal, which sum up."""
        ...

    @property
    def axes(self) -> tuple[str, str]:
        """What a and b are, for people."""
        ...

    @property
    def answer_axis(self) -> str:
        """What the places of an answer are, for people."""
        ...

    @property
    def first_answer(self) -> str:
        """What a right first answer token means, if that is worth a row; or empty."""
        ...

    @property
    def num_numbers(self) -> int:
        """Most numbers in a row, for attention in blocks; 0 if there is no bound."""
        ...

    @property
    def num_symbols(self) -> int:
        """Most tokens that are no digits, `EOS` included; read if there are numbers."""
        ...

    def cell_label(self, a: int, b: int) -> str:
        """The size of an example, for people."""
        ...

    def regions(self, a: int, b: int, most: tuple[int, int]) -> tuple[str, ...]:
        """Names of the sums in which a cell counts: `id` or `ood`, and others."""
        ...

    def cell(self, kind: str, a: int, b: int, wanted: int) -> tuple[int, int, int]:
        """The cell of a set that stands for (a, b), and how many examples to take."""
        ...

    def row_width(self, a: int, b: int, /) -> int:
        """Tokens of the longest row of a cell, `EOS` included."""
        ...

    def answer_width(self, a: int, b: int, /) -> int:
        """Tokens of the longest answer of a cell, without `EOS`."""
        ...

    def longest_number(self, a: int, b: int, /) -> int:
        """Most digits of any number in a row of a cell."""
        ...

    def draw_cell(
        self, words: UInt[Array, " 2"], most: tuple[int, int]
    ) -> Int[Array, " 2"]:
        """The cell of a training example, from two random words; inside jit."""
        ...

    def sample(
        self,
        key: PRNGKeyArray,
        a: Int[Array, ""],
        b: Int[Array, ""],
        /,
        sizes: tuple[int, int],
        width: int,
        kind: Int[Array, ""] | int | None = None,
        example: Int[Array, ""] | int = 0,
    ) -> Int[Array, " {width}"]:
        """Draws one row, padded with `PAD`; inside jit and vmap.

        Args:
            key: Decides the example; the row does not depend on `sizes` or `width`.
            a: First size, 1 to `sizes[0]`.
            b: Second size, 1 to `sizes[1]`.
            sizes: Sizes of the arrays; static.
            width: Length of the row, at least `row_width` of the cell; static.
            kind: Index into `kinds`; None: a training example.
            example: Number of an evaluation example in its cell.
        """
        ...

    def prompt(self, expression: str) -> str:
        """Model input for a readable expression; `ValueError` if it is not one."""
        ...

    def sizes(self, prompt: str) -> tuple[int, int]:
        """The cell of a prompt."""
        ...

    def read(self, prompt: str, answer: str) -> str:
        """Readable form of what the model answered."""
        ...

    def truth(self, prompt: str) -> str:
        """The right answer, by Python integers, as the model should write it."""
        ...

    def examples(
        self, rng: random.Random, sizes: Sequence[tuple[int, int]]
    ) -> list[str]:
        """A telling expression, and a random one of each size."""
        ...


def make_task(name: str, options: Mapping[str, Any]) -> Task:
    """The task of a config.

    Args:
        name: `data.task`.
        options: Attributes of tasks, by name; off (False or 0) unless this task, or a
            part of it, has them.

    Raises:
        ValueError: If the name is unknown, or an option is on that the task lacks.
    """
    if name == "sorting":
        return built(name, [Sorting], options)[0]
    if name == "bitwise_or":
        return built(name, [BitwiseOr], options)[0]
    parts: dict[str, list[type[Arithmetic]]] = {
        "addition": [Addition],
        "subtraction": [Subtraction],
        "multiplication": [Multiplication],
        "addsub": [Addition, Subtraction],
        "arithmetic": [Addition, Subtraction, Multiplication],
    }
    if name not in parts:
        allowed = ", ".join([*parts, "sorting", "bitwise_or"])
        raise ValueError(f"data.task={name!r} is unknown; allowed: {allowed}")
    tasks = built(name, parts[name], options)
    return tasks[0] if len(tasks) == 1 else Mixture(tasks)


def built(name: str, classes: Sequence[type[Any]], options: Mapping[str, Any]) -> Any:
    """Tasks with those of the options that each of them has."""
    known = [options_of(task) for task in classes]
    for key, value in options.items():
        if value and not any(key in names for names in known):
            raise ValueError(f"data.{key}={value!r}: {name} has no such option")
    given = [{key: options[key] for key in names & options.keys()} for names in known]
    return tuple(task(**own) for task, own in zip(classes, given, strict=True))


def options_of(task: type[Any]) -> set[str]:
    """Options that mean something for a task."""
    names = {field.name for field in dataclasses.fields(task)}
    has_chains = "chains" in getattr(task, "drawn", {})
    return names if has_chains else names - {"carry_chains"}
