"""Tasks on lists of numbers: everything but what is made of them."""

import abc
import dataclasses
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PRNGKeyArray, UInt

from arith_jax.checks import check_types
from arith_jax.tasks import digits
from arith_jax.tasks.calculation import length_regions
from arith_jax.tasks.digits import word_below
from arith_jax.tasks.task import PairKinds


class Numbers(NamedTuple):
    """The numbers of a list, and what else may be decided at random about each.

    Attributes:
        digits: Of each number, least significant first, then zeros.
        lengths: Digits of each.
        words: A random word of each, of which the length used the last three decimals.
    """

    digits: Int[Array, "m d"]
    lengths: Int[Array, " m"]
    words: UInt[Array, " m"]


@dataclasses.dataclass(frozen=True)
class ListTask(abc.ABC):
    """Lists of numbers, least significant digit first.

    A cell (a, b) has lists of exactly a numbers with at most b digits: the number of
    digits of each is uniform on 1 to b, then the number is uniform.

    Attributes:
        hard_lists: Share of training examples, 0 to 1, of the two `hard_kinds`, in
            halves. Uniform lists are mostly decided by lengths.
    """

    hard_lists: float = 0.0

    # Of `eval_sets`, which begin with "uniform".
    hard_kinds: ClassVar[tuple[str, str]]

    subtasks = ("uniform",)
    axes = ("numbers in the list", "most digits of a number")
    # Numbers and symbols grow with the list: attention in blocks has no bound.
    max_numbers_per_row = 0
    max_symbols_per_row = 0
    has_lists = True
    has_blanks = False
    is_packable = False

    def __post_init__(self):
        check_types("task", type(self), vars(self))
        if not 0.0 <= self.hard_lists <= 1.0:
            raise ValueError(
                f"task.hard_lists={self.hard_lists}: must be between 0 and 1"
            )

    @property
    @abc.abstractmethod
    def eval_sets(self) -> Mapping[str, str]:
        """Kinds of lists, which are evaluation sets; the first is uniform."""

    def draw_pair_kinds(self, words: UInt[Array, "n 3"]) -> PairKinds:
        """Raises `NotImplementedError`: see `is_packable`."""
        raise NotImplementedError("lists do not share rows")

    def cell_label(self, a: int, b: int) -> str:
        """The size of an example, for people."""
        return f"{a} numbers, {b} digits"

    def regions(self, a: int, b: int, max_cell: tuple[int, int]) -> tuple[str, ...]:
        """Inside training or not, and which of the two sizes is larger than there.

        Source:
            The paper's "OOD number length", "OOD array length" and "all OOD".
        """
        regions = length_regions(a, b, max_cell)
        is_longer, has_longer_numbers = a > max_cell[0], b > max_cell[1]
        if is_longer and has_longer_numbers:
            return (*regions, "ood_both")
        if is_longer:
            return (*regions, "ood_numbers")
        return (*regions, "ood_digits") if has_longer_numbers else regions

    def cell(self, kind: str, a: int, b: int, count: int) -> tuple[int, int, int]:
        """The cell of a set and its number of examples."""
        del kind
        return a, b, count

    def draw_cell(
        self, words: UInt[Array, " 2"], max_cell: tuple[int, int]
    ) -> Int[Array, " 2"]:
        """Sizes of a training example: uniform and independent."""
        return 1 + word_below(words, jnp.array(max_cell))

    def draw_kind(self, word: UInt[Array, ""]) -> Int[Array, ""]:
        """The kind of a training example, as an index into `eval_sets`."""
        place, names = word_below(word, 10**6), list(self.eval_sets)
        first, second = (names.index(name) for name in self.hard_kinds)
        kind = jnp.where(place % 2 == 0, first, second)
        return jnp.where(place < self.hard_lists * 10**6, kind, 0)

    def draw_numbers(
        self,
        key: PRNGKeyArray,
        max_digits: Int[Array, ""],
        max_cell: tuple[int, int],
        is_full: Bool[Array, ""] | bool,
    ) -> Numbers:
        """Uniform numbers; all of `max_digits` digits where `is_full`."""
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(max_cell[0]))
        words = jax.vmap(lambda k: jax.random.bits(k, (max_cell[1] + 1,)))(keys)
        lengths = 1 + word_below(words[:, 0], max_digits)
        lengths = jnp.where(is_full, max_digits, lengths)
        numbers = jax.vmap(digits.uniform_number)(words[:, 1:], lengths)
        return Numbers(numbers, lengths, words[:, 0] // 1000)

    def longest_carry(self, prompt: str) -> None:
        """None: a list is not one calculation with carries."""
        del prompt
        return None
