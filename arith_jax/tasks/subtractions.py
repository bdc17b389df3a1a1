"""Work that is written as repeated subtraction, a line each time.

A line is a number modulo a power of ten, after a symbol that says how it was made. A
group of lines ends with the first negative number, so the lines that subtract, less
one, are a digit of the result.
"""

import abc
import dataclasses
from collections.abc import Mapping, Sequence

import jax.numpy as jnp
from jaxtyping import Array, Int, UInt

from arith_jax import vocab
from arith_jax.checks import check_types
from arith_jax.tasks import digits
from arith_jax.tasks.digits import word_below
from arith_jax.tasks.operands import mixed_kind

# What begins a line after the first, which `=` begins; a square root has odd numbers.
BRING_DOWN, SUBTRACT, RESTORE, ODD = "+", "-", "/", ":"
# Ways to make a line, as places in a sequence of symbols that ends with ODD, or before.
FIRST, NEXT, MINUS, LAST, ODD_NUMBER = range(5)
# There is no line.
NONE = -1


@dataclasses.dataclass(frozen=True)
class SubtractionTask(abc.ABC):
    """A result with a remainder, by repeated subtraction.

    Attributes:
        edges: Share of training examples, 0 to 1, of the evaluation sets after the
            first, each alike.
    """

    edges: float = 0.0

    subtasks = ("uniform",)
    answer_axis = "token of the answer"
    first_answer = ""
    # Lines grow with the numbers: attention in blocks has no bound.
    max_numbers_per_row = 0
    max_symbols_per_row = 0
    has_lists = False
    has_blanks = False
    is_packable = False

    def __post_init__(self):
        check_types("task", type(self), vars(self))
        if not 0.0 <= self.edges <= 1.0:
            raise ValueError(f"task.edges={self.edges}: must be between 0 and 1")

    @property
    @abc.abstractmethod
    def eval_sets(self) -> Mapping[str, str]:
        """Kinds of problems, which are evaluation sets; the first is uniform."""

    def draw_kind(self, word: UInt[Array, ""]) -> Int[Array, ""]:
        """The kind of a training example, as an index into `eval_sets`."""
        names = list(self.eval_sets)
        shares = dict.fromkeys(names[1:], self.edges / (len(names) - 1))
        return mixed_kind(word, shares, names)

    def read_answer(self, prompt: str, answer: str) -> str:
        """Result and remainder, off the counts of lines and the last line."""
        del prompt
        lines, is_finished, rest = answer.rpartition(RESTORE)
        if not is_finished:
            lines = answer
        groups = lines.split(BRING_DOWN)
        counts = [str(max(group.count(SUBTRACT) - 1, 0)) for group in groups]
        result = "".join(counts).lstrip("0") or "0"
        remainder = rest[::-1].lstrip("0") or "0" if is_finished and rest else "?"
        return f"{result} remainder {remainder}"

    def longest_carry(self, prompt: str) -> None:
        """None: there are many subtractions, not one."""
        del prompt
        return None


def write_lines(
    numbers: Int[Array, "l p"],
    mark: Int[Array, " l"],
    width: Int[Array, "#l"],
    symbols: Sequence[int],
) -> digits.Segment:
    """The lines, without the symbol that begins the first.

    Args:
        numbers: Digits of each, least significant first.
        mark: How each line was made; NONE: it is left out.
        width: Digits of each that are written.
        symbols: Tokens that begin lines, in the order of the marks.
    """
    tokens = jnp.pad(numbers + vocab.DIGIT_ZERO, ((0, 0), (1, 0)))
    # The last one stands for NONE.
    tokens = tokens.at[:, 0].set(jnp.array([*symbols, vocab.PAD])[mark])
    place = jnp.arange(tokens.shape[1])[None]
    is_in_prompt = (place == 0) & (mark == FIRST)[:, None]
    is_written = (place <= width[:, None]) & (mark != NONE)[:, None] & ~is_in_prompt
    return digits.compact(tokens, is_written)


def number_below(words: UInt[Array, " n"], limit: Int[Array, " n"]) -> Int[Array, " n"]:
    """Digits of a random number below a limit above 0, nearly uniform.

    Args:
        words: Random words.
        limit: Its digits, then zeros.
    """
    place, length = jnp.arange(limit.shape[0]), digits.num_digits(limit)
    is_lead, lead = place == length - 1, limit[length - 1]
    number = jnp.where(place < length, word_below(words, 10), 0)
    number = jnp.where(is_lead, word_below(words, lead + 1), number)
    is_below = digits.is_less(number, limit)
    return jnp.where(is_lead & ~is_below, lead - 1, number)
